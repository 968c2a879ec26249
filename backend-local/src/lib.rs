//! Local backends of Windlass: processes under a shim, logs in segment files, git worktrees.
//!
//! Each port has a file of its name. No policy is here: what is to run, when and why, others decide.

mod attached;
mod attachments;
mod connection;
mod container_service;
mod data_directory;
mod diff_watch;
mod evidence;
mod follow;
mod group;
mod identity;
mod input;
mod kernel;
mod launch;
mod listeners;
mod log_store;
mod node;
mod open_files;
mod place;
mod recent;
mod repository_lock;
mod segment_reader;
mod shim_program;
mod sweep;
mod vcs_history;
mod vcs_worktree;

pub use attachments::FileAttachments;
pub use container_service::{LocalContainers, LocalOptions, Provenance, ShimChoice};
pub use data_directory::{DataDirectory, DataDirectoryError};
pub use diff_watch::DiffWatchLimits;
pub use log_store::FileLogs;
pub use open_files::OpenFiles;
pub use vcs_worktree::{GitOptions, GitWorktrees};
