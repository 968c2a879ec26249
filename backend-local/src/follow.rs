//! Wakes whoever waits for a place to change: one inotify instance, one watch per followed place, none without followers.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::kernel::register;

/// What happens to a place that somebody may wait for.
const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Watches directories for whoever follows them.
#[derive(Debug)]
pub(crate) struct Follow {
    shared: Arc<Shared>,
    reader: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    inotify: AsyncFd<OwnedFd>,
    /// By watch descriptor: the directory's changes, counted, and how many follow it.
    watches: Mutex<HashMap<i32, Watched>>,
}

#[derive(Debug)]
struct Watched {
    changes: watch::Sender<u64>,
    followers: usize,
}

impl Follow {
    /// Begins to listen. Needs a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let inotify = register(inotify)?;
        let shared = Arc::new(Shared { inotify, watches: Mutex::new(HashMap::new()) });
        let reader = tokio::spawn(read_events(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, reader })
    }

    /// Follows a directory until the follower is dropped. What changes from now on wakes it.
    pub(crate) fn directory(&self, directory: BorrowedFd<'_>) -> io::Result<Follower> {
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let mut watches = self.shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
        // The same directory gives the same descriptor.
        let watch = inotify::add_watch(self.shared.inotify.get_ref(), path, CHANGES)?;
        let watched = watches
            .entry(watch)
            .or_insert_with(|| Watched { changes: watch::channel(0).0, followers: 0 });
        watched.followers += 1;
        let changes = watched.changes.subscribe();
        Ok(Follower { watch, changes, shared: Arc::clone(&self.shared) })
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Somebody who follows a directory.
#[derive(Debug)]
pub(crate) struct Follower {
    watch: i32,
    changes: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

impl Follower {
    /// Waits for a change since it was made or since it returned last.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub(crate) async fn changed(&mut self) {
        // The sender lives as long as its followers are counted, so this cannot fail; if it did, looking again is right.
        let _ = self.changes.changed().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut watches = self.shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(watched) = watches.get_mut(&self.watch) else { return };
        watched.followers -= 1;
        if watched.followers == 0 {
            watches.remove(&self.watch);
            // It is gone already if the directory is.
            let _ = inotify::remove_watch(self.shared.inotify.get_ref(), self.watch);
        }
    }
}

/// Reads events for ever and wakes who follows.
async fn read_events(shared: Arc<Shared>) {
    while let Ok(mut ready) = shared.inotify.readable().await {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(shared.inotify.get_ref(), &mut buffer);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    wake(&shared, None)
                }
                Ok(event) => wake(&shared, Some(event.wd())),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        ready.clear_ready();
    }
}

/// Wakes the followers of one directory, or all.
fn wake(shared: &Shared, watch: Option<i32>) {
    let watches = shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
    let woken = watches.iter().filter(|(each, _)| watch.is_none_or(|watch| watch == **each));
    for (_, watched) in woken {
        watched.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}
