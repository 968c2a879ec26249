//! What is the same for every execution of this service: where it is, where places are, what runs shims.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Rlimit;
use windlass_core::time::Timestamp;

use crate::follow::{Follow, Follower};
use crate::identity::Here;
use crate::open_files::OpenFiles;
use crate::place::Runs;
use crate::shim_program::{ShimChoice, ShimProgram};

/// How local processes are run.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The directory of all places; made if it is not there, and private to its user.
    pub runs_dir: PathBuf,
    /// Where the shim is.
    pub shim: ShimChoice,
    /// The free bytes below which nothing new is admitted.
    pub disk_floor_bytes: u64,
    /// From TERM to KILL for what a dead shim left running.
    pub orphan_grace: Duration,
    /// Whether the data directory is where it was.
    pub provenance: Provenance,
    /// What is done about this process's limit of open files; a live execution takes three.
    pub open_files: OpenFiles,
}

/// Whether a data directory is where it was when its places were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// It is, and a place that is not is left alone.
    InPlace,
    /// It was moved or restored on purpose. Its places are read; what ran in them is on no account signalled.
    Moved,
}

/// What the parts of the service share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) here: Here,
    pub(crate) runs: Runs,
    pub(crate) shim: ShimProgram,
    /// Opened when it is needed first: a user has few inotify instances.
    follow: OnceLock<Follow>,
    pub(crate) options: LocalOptions,
    /// The limit of open files that shims get, if it is not ours.
    pub(crate) open_files: Option<Rlimit>,
}

impl Node {
    /// Opens it. Blocking.
    pub(crate) fn open(options: LocalOptions) -> io::Result<Arc<Self>> {
        let runs = Runs::open(&options.runs_dir)?;
        runs.remove_discarded()?;
        let shim = ShimProgram::open(&options.shim)?;
        let open_files = options.open_files.apply();
        let (here, follow) = (Here::read(), OnceLock::new());
        Ok(Arc::new(Self { here, runs, shim, follow, options, open_files }))
    }

    /// Follows a directory.
    pub(crate) fn follow(&self, directory: BorrowedFd<'_>) -> io::Result<Follower> {
        if self.follow.get().is_none() {
            // Somebody may have been quicker; then his is used.
            drop(self.follow.set(Follow::open()?));
        }
        match self.follow.get() {
            Some(follow) => follow.directory(directory),
            None => Err(io::Error::other("no inotify")),
        }
    }
}

/// Returns the time of the wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
