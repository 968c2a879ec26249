//! Waits for the locks of a data directory without holding up anything else.

use std::io;
use std::path::Path;
use std::time::Duration;

use windlass::api::lock::HostLock;

/// Waits for a lock; `None` if it was not free in time. The thread that waits for it ends with the process then.
///
/// # Errors
///
/// The system's.
pub async fn take_within(path: &Path, limit: Duration) -> io::Result<Option<HostLock>> {
    let path = path.to_owned();
    let waiting = tokio::task::spawn_blocking(move || HostLock::take(&path));
    match tokio::time::timeout(limit, waiting).await {
        Ok(Ok(taken)) => taken.map(Some),
        Ok(Err(panicked)) => Err(io::Error::other(panicked)),
        Err(_) => Ok(None),
    }
}

/// Waits until nobody has a lock; says whether that was in time. It is not taken for that.
///
/// # Errors
///
/// The system's.
pub async fn free_within(path: &Path, limit: Duration) -> io::Result<bool> {
    let path = path.to_owned();
    let waiting = tokio::task::spawn_blocking(move || HostLock::wait_until_free(&path));
    match tokio::time::timeout(limit, waiting).await {
        Ok(Ok(free)) => free.map(|()| true),
        Ok(Err(panicked)) => Err(io::Error::other(panicked)),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_gets_it_when_it_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("host.lock");
        let held = HostLock::try_take(&path).unwrap().unwrap();
        let (next, ()) = tokio::join!(take_within(&path, Duration::from_secs(30)), async {
            drop(held);
        });
        assert!(next.unwrap().is_some());
    }
}
