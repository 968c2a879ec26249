//! No room: what is refused, and that the rest goes on.

use std::fs;
use std::path::Path;
use std::process::Command;

use windlass_core::process_store::{ChangeNumber, ProcessStore as _, ProcessStoreError, Record};
use windlass_sqlite::{SqliteOptions, SqliteStore};

use crate::{acquire, create, key, open, record, room, run};

fn large(n: u64, kib: usize) -> Record {
    Record { body: format!("\"{}\"", "x".repeat(kib << 10)), ..record(n) }
}

/// Fills the store until it refuses, and insists that it is as good as before.
async fn fill(store: &SqliteStore) {
    let lease = acquire(store).await;
    let mut n = 1;
    let refused = loop {
        match store.commit(create(large(n, 64)), lease).await {
            Ok(number) => assert_eq!(number, ChangeNumber(n)),
            Err(error) => break error,
        }
        n += 1;
        assert!(n < 10_000, "it never fills");
    };
    assert!(matches!(refused, ProcessStoreError::Full), "{refused:?}");
    assert_eq!(store.get(key(n)).await.expect("a read"), None);
    assert!(store.get(key(n - 1)).await.expect("a read").is_some());

    // A group in which one does not fit: its neighbours are none the worse.
    let mut commits: Vec<_> =
        (0..5).map(|m| store.commit(create(record(20_000 + m)), lease)).collect();
    commits.insert(2, store.commit(create(large(30_000, 4_096)), lease));
    let answers = futures::future::join_all(commits).await;
    assert!(matches!(answers[2], Err(ProcessStoreError::Full)), "{:?}", answers[2]);
    let small: Vec<_> = answers.iter().enumerate().filter(|(n, _)| *n != 2).collect();
    assert!(small.iter().all(|(_, answer)| answer.is_ok()), "{answers:?}");
    let last = store.changes(ChangeNumber(0), 0).await.expect("changes").last;
    assert_eq!(last, ChangeNumber(n - 1 + 5));
}

#[test]
fn a_store_at_its_largest_size_refuses_and_goes_on() {
    let (_directory, path) = room();
    run(async {
        let options = SqliteOptions { max_bytes: Some(2 << 20), ..SqliteOptions::default() };
        let store = SqliteStore::open(&path, options).await.expect("a store");
        fill(&store).await;
        store.close().await;
        assert!(fs::metadata(&path).expect("a file").len() <= 2 << 20);
    });
}

/// A small file system of its own; unmounted when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// Mounts one, or says why that cannot be done here.
    fn mount(at: &'a Path) -> Result<Self, String> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "none"])
            .arg(at)
            .output()
            .map_err(|error| error.to_string())?;
        if mount.status.success() {
            return Ok(Self(at));
        }
        Err(String::from_utf8_lossy(&mount.stderr).trim().to_owned())
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "still mounted: {:?}", self.0);
    }
}

#[test]
fn a_full_disk_refuses_and_what_was_acknowledged_stays() {
    let (directory, _) = room();
    let disk = match Disk::mount(directory.path()) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("NOT RUN: a full disk needs the right to mount a small one: {reason}");
            return;
        }
    };
    let path = directory.path().join("windlass.db");
    run(async {
        let store = open(&path).await.expect("a store");
        let lease = acquire(&store).await;
        let mut n = 0;
        let refused = loop {
            n += 1;
            match store.commit(create(large(n, 64)), lease).await {
                Ok(number) => assert_eq!(number, ChangeNumber(n)),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, ProcessStoreError::Full), "{refused:?}");
        assert!(n > 5, "it was full at once");
        for known in 1..n {
            assert!(store.get(key(known)).await.expect("a read").is_some());
        }
        assert_eq!(store.get(key(n)).await.expect("a read"), None);
        store.close().await;
        let store = open(&path).await.expect("a store");
        assert_eq!(store.check().await.expect("a report").records, n - 1);
        store.close().await;
    });
    drop(disk);
}
