//! Looks compared with git itself, which also makes the checkout that bytes are compared with.

mod odd;
pub(in crate::vcs_worktree) mod place;
pub(in crate::vcs_worktree) mod random;
mod sources;
