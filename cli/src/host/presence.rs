//! Notices when a host cannot be found any more: its socket or its whole data directory was taken away or moved.

use std::fs::{Metadata, metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::DataDir;

/// How long a directory is left alone after something went: somebody may be taking away all of it.
const CALM: Duration = Duration::from_secs(1);

/// How often it is looked where the system tells of no changes.
const NOW_AND_THEN: Duration = Duration::from_secs(30);

/// What is not in its place any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The socket alone.
    Socket,
    /// The data directory, or what makes it one.
    Directory,
}

/// Watches a data directory.
#[derive(Debug)]
pub(crate) struct Presence {
    changes: Changes,
    path: PathBuf,
    /// Without these it is no data directory.
    needed: [PathBuf; 2],
    socket: PathBuf,
    directory: (u64, u64),
}

impl Presence {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn watch(data: &DataDir) -> io::Result<Self> {
        Ok(Self {
            changes: Changes::of(&data.path),
            path: data.path.clone(),
            needed: [data.path.join("config.toml"), data.lock()],
            socket: data.socket(),
            directory: identity(&metadata(&data.path)?),
        })
    }

    /// Waits until something is not in its place any more.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; what is lost then is told the next time.
    pub(crate) async fn lost(&mut self) -> Lost {
        loop {
            if self.look().is_some() {
                tokio::time::sleep(CALM).await;
                if let Some(lost) = self.look() {
                    return lost;
                }
            }
            self.changes.next().await;
        }
    }

    /// Waits until something in the directory may have changed.
    ///
    /// # Cancel safety
    ///
    /// May be dropped.
    pub(crate) async fn changed(&mut self) {
        self.changes.next().await;
    }

    fn look(&self) -> Option<Lost> {
        let is_here = metadata(&self.path).is_ok_and(|found| identity(&found) == self.directory);
        if !is_here || !self.needed.iter().all(|path| path.exists()) {
            return Some(Lost::Directory);
        }
        (!self.socket.exists()).then_some(Lost::Socket)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Tells when names in a directory, or the directory itself, come and go.
#[derive(Debug)]
struct Changes {
    /// None where the system tells nothing, or has no more to give: then it is looked now and then.
    told: Option<inotify::Watch>,
}

impl Changes {
    fn of(path: &Path) -> Self {
        Self { told: inotify::Watch::of(path).ok() }
    }

    async fn next(&mut self) {
        match &mut self.told {
            Some(watch) => watch.next().await,
            None => tokio::time::sleep(NOW_AND_THEN).await,
        }
    }
}

#[cfg(target_os = "linux")]
mod inotify {
    use std::io;
    use std::path::Path;

    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use tokio::net::unix::pipe::Receiver;

    /// An inotify descriptor: it is read like a pipe.
    #[derive(Debug)]
    pub(super) struct Watch(Receiver);

    impl Watch {
        pub(super) fn of(path: &Path) -> io::Result<Self> {
            let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let flags = WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            add_watch(&inotify, path, flags)?;
            Receiver::from_owned_fd_unchecked(inotify).map(Self)
        }

        /// Waits for a change.
        pub(super) async fn next(&mut self) {
            if self.0.readable().await.is_err() {
                // The runtime is ending.
                return std::future::pending().await;
            }
            // What happened is looked up in the directory: here it is only taken away.
            while self.0.try_read(&mut [0; 4_096]).is_ok_and(|count| count > 0) {}
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod inotify {
    use std::io;
    use std::path::Path;

    #[derive(Debug)]
    pub(super) enum Watch {}

    impl Watch {
        pub(super) fn of(_path: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) async fn next(&mut self) {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn data_directory() -> (tempfile::TempDir, DataDir) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        fs::create_dir(&path).unwrap();
        for name in ["config.toml", "host.lock", "host.sock"] {
            fs::write(path.join(name), "").unwrap();
        }
        (root, DataDir { path, fixed: None })
    }

    #[tokio::test]
    async fn what_goes_is_noticed() {
        let (root, data) = data_directory();
        let mut presence = Presence::watch(&data).unwrap();
        fs::remove_file(data.socket()).unwrap();
        assert_eq!(presence.lost().await, Lost::Socket);
        fs::write(root.path().join("new"), "").unwrap();
        fs::rename(root.path().join("new"), data.socket()).unwrap();
        presence.changed().await;
        assert_eq!(presence.look(), None);
        fs::remove_file(data.lock()).unwrap();
        assert_eq!(presence.lost().await, Lost::Directory);
    }

    #[tokio::test]
    async fn a_directory_that_was_moved_is_lost_though_another_is_in_its_place() {
        let (root, data) = data_directory();
        let mut presence = Presence::watch(&data).unwrap();
        fs::rename(&data.path, root.path().join("elsewhere")).unwrap();
        fs::create_dir(&data.path).unwrap();
        assert_eq!(presence.lost().await, Lost::Directory);
    }
}
