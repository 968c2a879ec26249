//! No room: what is refused, and that the rest goes on.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use windlass_core::process_store::{
    ChangeNumber, ProcessStore as _, ProcessStoreError, Record, Revision, Write,
};
use windlass_redb::{RedbOptions, RedbStore};

use crate::{acquire, create, key, open, record, room, run};

fn large(n: u64, kib: usize) -> Record {
    Record { body: format!("\"{}\"", "x".repeat(kib << 10)), ..record(n) }
}

/// Fills the store until it refuses, and insists that it is as good as before.
async fn fill(store: &RedbStore) {
    let lease = acquire(store).await;
    // A group in which one does not fit: its neighbours are none the worse.
    let mut commits: Vec<_> =
        (0..5).map(|m| store.commit(create(record(20_000 + m)), lease)).collect();
    commits.insert(2, store.commit(create(large(30_000, 8_192)), lease));
    let answers = futures::future::join_all(commits).await;
    assert!(matches!(answers[2], Err(ProcessStoreError::Full)), "{:?}", answers[2]);
    let small: Vec<_> = answers.iter().enumerate().filter(|(n, _)| *n != 2).collect();
    assert!(small.iter().all(|(_, answer)| answer.is_ok()), "{answers:?}");

    let mut n = 1;
    let refused = loop {
        match store.commit(create(large(n, 64)), lease).await {
            Ok(number) => assert_eq!(number, ChangeNumber(5 + n)),
            Err(error) => break error,
        }
        n += 1;
        assert!(n < 10_000, "it never fills");
    };
    assert!(matches!(refused, ProcessStoreError::Full), "{refused:?}");
    assert!(n > 5, "it was full at once");
    assert_eq!(store.get(key(n)).await.expect("a read"), None);
    for known in 1..n {
        assert!(store.get(key(known)).await.expect("a read").is_some());
    }
    let report = store.check().await.expect("a report");
    assert_eq!((report.records, report.problems), (5 + n - 1, Vec::new()));
    // What is removed makes room.
    for known in 1..5 {
        let delete = vec![Write::Delete { key: key(known), expect: Revision(1) }];
        store.commit(delete, lease).await.expect("a removal");
    }
    store.commit(create(large(n, 64)), lease).await.expect("a commit");
}

#[test]
fn a_store_at_its_largest_size_refuses_and_goes_on() {
    let (_directory, path) = room();
    run(async {
        let options = RedbOptions { max_bytes: Some(4 << 20), ..RedbOptions::default() };
        let store = RedbStore::open(&path, options).await.expect("a store");
        fill(&store).await;
        store.close().await;
        assert!(fs::metadata(&path).expect("a file").len() <= 4 << 20);
    });
}

/// A small file system of its own; unmounted when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    /// Mounts one, or says why that cannot be done here.
    fn mount(at: &'a Path) -> Result<Self, String> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=5m", "none"])
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
    let path = directory.path().join("windlass.redb");
    run(async {
        let store = open(&path).await.expect("a store");
        fill(&store).await;
        let before = store.check().await.expect("a report");
        store.close().await;
        let store = open(&path).await.expect("a store");
        assert_eq!(store.check().await.expect("a report"), before);
        store.close().await;
    });
    drop(disk);
}

#[test]
fn a_disk_that_others_fill_leaves_the_store_what_it_has() {
    let (directory, _) = room();
    let disk = match Disk::mount(directory.path()) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("NOT RUN: a full disk needs the right to mount a small one: {reason}");
            return;
        }
    };
    run(async {
        let store = open(&directory.path().join("windlass.redb")).await.expect("a store");
        let lease = acquire(&store).await;
        let mut filler = fs::File::create(directory.path().join("filler")).expect("a file");
        let full = loop {
            if let Err(error) = filler.write_all(&[b'x'; 4_096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        for n in 0..200 {
            store.commit(create(record(n)), lease).await.expect("a commit");
        }
        store.close().await;
    });
    drop(disk);
}
