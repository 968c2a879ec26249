//! How many files this process may have open: each live execution takes a few descriptors, and the customary limit of
//! 1024 is for programs that use `select`.

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// What is done about the limit of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFiles {
    /// It is left as it is.
    Keep,
    /// It is raised as far as this process may, for itself only: commands get the limit that was there before.
    Raise,
}

impl OpenFiles {
    /// Does it; returns the limit that commands are to have, if it is another one than ours.
    pub(crate) fn apply(self) -> Option<Rlimit> {
        let before = getrlimit(Resource::Nofile);
        if self == Self::Keep || before.current == before.maximum {
            return None;
        }
        // Where it is refused we make do.
        setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }).ok()?;
        Some(before)
    }
}

/// Gives a process that was just started, and has started nothing itself, another limit than ours.
pub(crate) fn limit(pid: u32, limit: &Rlimit) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It has ours then, which is more.
        let _ = prlimit(Some(pid), Resource::Nofile, *limit);
    }
}
