//! No room: what is refused, and that the rest goes on.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::Connection as _;
use windlass_core::process_store::{
    ChangeNumber, Lease, ProcessStore as _, ProcessStoreError, Record,
};
use windlass_sqlite::{SqliteOptions, SqliteStore};

use crate::{acquire, connect, create, execute, key, open, record, room, run};

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

/// Set for the process that has a small file system: where it is.
const SMALL_DISK: &str = "WINDLASS_STORE_ON_A_SMALL_DISK";

/// Runs `test` on a file system of `mib`, which a process of its own has mounted in a namespace of its own, where nobody
/// sees it and nothing is left of it. `name` is that of the calling test.
fn on_a_small_disk<T: Future<Output = ()>>(name: &str, mib: u32, test: impl FnOnce(PathBuf) -> T) {
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        run(test(PathBuf::from(disk)));
        println!("{DONE}");
        return;
    }
    let (directory, _) = room();
    let script = r#"mount -t tmpfs -o "size=$1m" none "$2" || exit 77
        shift 2; exec "$@" --nocapture"#;
    let done = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", &mib.to_string()])
        .arg(directory.path())
        .arg(std::env::current_exe().expect("this binary"))
        .args(["--exact", name])
        .env(SMALL_DISK, directory.path())
        .output();
    let done = match done {
        Ok(done) if done.status.code() != Some(77) && done.status.code() != Some(1) => done,
        done => {
            // A test that fails ends with 101; 1 is what unshare ends with where it is not permitted.
            eprintln!("NOT RUN: a full disk needs the right to mount a small one: {done:?}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains(DONE), "{done:#?}");
}

/// What the process with the small disk says at its end.
const DONE: &str = "all of it was done";

#[test]
fn a_full_disk_refuses_and_what_was_acknowledged_stays() {
    let name = "full::a_full_disk_refuses_and_what_was_acknowledged_stays";
    on_a_small_disk(name, 3, async |disk| {
        let path = disk.join("windlass.db");
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
}

/// Writes until not one byte more fits.
fn fill_to_the_last_byte(disk: &Path, name: &str) -> PathBuf {
    let path = disk.join(name);
    let mut file = fs::File::create(&path).expect("a file");
    for size in [1 << 20, 4 << 10, 1] {
        while file.write(&vec![1; size]).is_ok() {}
    }
    path
}

/// Commits small records from `n` on until the store has taken its reserve; returns the next number.
async fn until_reserved(store: &SqliteStore, lease: Lease, mut n: u64) -> u64 {
    let mut look = connect(store.path()).await;
    loop {
        store.commit(create(record(n)), lease).await.expect("room for it");
        n += 1;
        let free: i64 = sqlx::query_scalar("PRAGMA freelist_count")
            .fetch_one(&mut look)
            .await
            .expect("a number");
        if free * 4_096 > 3 << 20 {
            look.close().await.expect("a close");
            return n;
        }
        assert!(n < 5_000, "it never takes its reserve");
    }
}

#[test]
fn thousands_of_commits_succeed_on_a_full_disk_and_all_goes_on_after_it() {
    let name = "full::thousands_of_commits_succeed_on_a_full_disk_and_all_goes_on_after_it";
    on_a_small_disk(name, 64, async |disk| {
        let path = disk.join("windlass.db");
        let store = open(&path).await.expect("a store");
        let lease = acquire(&store).await;
        let first = until_reserved(&store, lease, 1).await;
        let filler = fill_to_the_last_byte(&disk, "filler");
        for n in first..first + 2_000 {
            store.commit(create(record(n)), lease).await.expect("a commit on a full disk");
        }

        // A host that goes leaves its room to the one that comes, not to whoever fills the disk.
        store.close().await;
        fill_to_the_last_byte(&disk, "more");
        let store = open(&path).await.expect("a store on a full disk");
        let lease = acquire(&store).await;
        let mut n = first + 2_000;
        store.commit(create(record(n)), lease).await.expect("a commit of the next host");

        let refused = loop {
            n += 1;
            match store.commit(create(large(n, 16)), lease).await {
                Ok(number) => assert_eq!(number, ChangeNumber(n)),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, ProcessStoreError::Full), "{refused:?}");
        let again = store.commit(create(large(n, 16)), lease).await;
        assert!(matches!(again, Err(ProcessStoreError::Full)), "{again:?}");
        assert_eq!(store.get(key(n)).await.expect("a read"), None);
        let report = store.check().await.expect("a report");
        assert_eq!((report.records, report.problems), (n - 1, Vec::new()));

        fs::remove_file(filler).expect("room again");
        let number = store.commit(create(large(n, 16)), lease).await.expect("room for it");
        assert_eq!(number, ChangeNumber(n), "a refused batch took a number");
        store.close().await;
        assert!(!disk.join("windlass.db-wal").exists(), "with room the store is tidy");
        let store = open(&path).await.expect("a store");
        assert_eq!(store.check().await.expect("a report").records, n);
        store.close().await;
    });
}

#[test]
fn no_reserve_is_taken_where_it_would_be_most_of_the_room() {
    let name = "full::no_reserve_is_taken_where_it_would_be_most_of_the_room";
    on_a_small_disk(name, 12, async |disk| {
        let path = disk.join("windlass.db");
        let store = open(&path).await.expect("a store");
        let lease = acquire(&store).await;
        for n in 1..=3_000 {
            store.commit(create(record(n)), lease).await.expect("a commit");
        }
        let log = fs::metadata(disk.join("windlass.db-wal")).expect("a log");
        assert!(log.blocks() * 512 < 6 << 20, "{} blocks", log.blocks());
        let mut look = connect(&path).await;
        let pages: i64 = sqlx::query_scalar("PRAGMA freelist_count")
            .fetch_one(&mut look)
            .await
            .expect("a number");
        assert_eq!(pages, 0);
        look.close().await.expect("a close");
        store.close().await;
    });
}

#[test]
fn a_reserve_whose_making_was_interrupted_becomes_room() {
    let (_directory, path) = room();
    run(async {
        let none = SqliteOptions { reserve_bytes: 0, ..SqliteOptions::default() };
        let store = SqliteStore::open(&path, none).await.expect("a store");
        acquire(&store).await;
        store.close().await;
        execute(
            &path,
            "CREATE TABLE reserve (room BLOB); INSERT INTO reserve VALUES (zeroblob(4194304))",
        )
        .await;
        let before = fs::metadata(&path).expect("a file").len();

        let store = open(&path).await.expect("a store");
        let lease = acquire(&store).await;
        until_reserved(&store, lease, 1).await;
        store.close().await;
        let mut look = connect(&path).await;
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM reserve")
            .fetch_one(&mut look)
            .await
            .expect("a number");
        assert_eq!(left, 0);
        look.close().await.expect("a close");
        assert_eq!(fs::metadata(&path).expect("a file").len(), before, "it was made twice");
    });
}
