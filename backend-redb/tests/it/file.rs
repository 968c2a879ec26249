//! Which files are opened, which are left alone, and how.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use redb::{Database, TableDefinition};
use windlass_core::process_store::{
    Kind, ProcessStore as _, ProcessStoreError, Query, Revision, Write,
};
use windlass_redb::{RedbOptions, RedbStore};

use crate::{acquire, chain, create, filled, key, open, record, room, run};

const STAMP: TableDefinition<'_, &str, &str> = TableDefinition::new("windlass");

/// Reads all files of a directory.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("a directory");
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, fs::read(entry.path()).expect("a file"))
    };
    entries.map(|entry| file(entry.expect("an entry"))).collect()
}

/// Opens what must be refused, and insists that no file was changed, made or removed.
fn refused(directory: &Path, path: &Path) -> ProcessStoreError {
    let before = contents(directory);
    let error = run(open(path)).expect_err("a refusal");
    assert!(contents(directory) == before, "{error}");
    error
}

/// Writes into the table that says what the file is.
fn stamp(path: &Path, key: &str, value: &str) {
    let database = Database::create(path).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    transaction.open_table(STAMP).expect("a table").insert(key, value).expect("an entry");
    transaction.commit().expect("a commit");
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let (directory, path) = room();
    run(filled(&path, 3));
    stamp(&path, "format", "99");
    let error = refused(directory.path(), &path);
    assert!(matches!(error, ProcessStoreError::Newer { found: 99, known: 1 }), "{error:?}");
}

#[test]
fn a_newer_store_that_was_killed_is_refused_and_left_alone() {
    let (directory, path) = room();
    run(filled(&path, 3));
    let database = Database::create(&path).expect("a database");
    let mut transaction = database.begin_write().expect("a transaction");
    transaction.set_quick_repair(true);
    transaction.open_table(STAMP).expect("a table").insert("format", "99").expect("an entry");
    transaction.commit().expect("a commit");
    // As a kill leaves it: nothing of the closing is in the file.
    let killed = fs::read(&path).expect("a file");
    drop(database);
    assert!(killed != fs::read(&path).expect("a file"), "closing writes nothing any more");
    fs::write(&path, killed).expect("a file");
    let error = refused(directory.path(), &path);
    assert!(matches!(error, ProcessStoreError::Newer { found: 99, known: 1 }), "{error:?}");
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let (directory, path) = room();
    drop(Database::create(&path).expect("a database"));
    assert!(chain(&refused(directory.path(), &path)).contains("not one of Windlass"));
    stamp(&path, "holds", "something else");
    stamp(&path, "format", "1");
    assert!(chain(&refused(directory.path(), &path)).contains("holds something else"));
    stamp(&path, "holds", "records");
    stamp(&path, "format", "the first");
    assert!(chain(&refused(directory.path(), &path)).contains("not one of Windlass"));
    for text in ["notes\n", &"notes\n".repeat(1_000)] {
        fs::write(&path, text).expect("a file");
        assert!(chain(&refused(directory.path(), &path)).contains("not a redb database"));
    }
    fs::write(&path, "").expect("a file");
    assert!(chain(&refused(directory.path(), &path)).contains("empty"));
}

#[test]
fn a_store_whose_beginning_is_damaged_is_refused_and_left_alone() {
    let (directory, path) = room();
    run(filled(&path, 3));
    let whole = fs::read(&path).expect("a store");
    let mut damaged = whole.clone();
    damaged[..16].fill(0);
    for bytes in [&damaged[..], &whole[..5], &whole[..50], &whole[..5_000]] {
        fs::write(&path, bytes).expect("a file");
        let error = chain(&refused(directory.path(), &path));
        assert!(error.contains("left alone"), "{error}");
    }
}

#[test]
fn a_directory_and_a_missing_directory_are_refused() {
    let (directory, path) = room();
    fs::create_dir(&path).expect("a directory");
    assert!(run(open(&path)).is_err());
    assert!(run(open(&directory.path().join("none/windlass.redb"))).is_err());
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
}

#[test]
fn a_path_that_is_no_text_is_opened() {
    use std::os::unix::ffi::OsStrExt as _;
    let (directory, _) = room();
    let deep = directory.path().join("ein Größe? 50% & 'mehr' #1").join("x".repeat(220));
    fs::create_dir_all(&deep).expect("directories");
    let path = deep.join(std::ffi::OsStr::from_bytes(b"wind\xfflass.redb"));
    run(async {
        filled(&path, 1).await;
        let store = open(&path).await.expect("a store");
        assert!(store.get(key(1)).await.expect("a read").is_some());
        store.close().await;
    });
    assert!(path.exists());
}

#[test]
fn a_store_that_is_open_is_refused_until_it_is_closed() {
    let (_directory, path) = room();
    run(async {
        let store = open(&path).await.expect("a store");
        let error = open(&path).await.expect_err("a refusal");
        let transient = matches!(&error, ProcessStoreError::Backend(backend) if backend.transient);
        assert!(transient && chain(&error).contains("is open already"), "{}", chain(&error));
        let lease = acquire(&store).await;
        store.commit(create(record(1)), lease).await.expect("nobody was disturbed");
        store.close().await;
        let again = open(&path).await.expect("a store");
        assert!(again.get(key(1)).await.expect("a read").is_some());
        for closed in
            [store.get(key(1)).await.err(), store.commit(create(record(2)), lease).await.err()]
        {
            assert!(matches!(closed, Some(ProcessStoreError::Backend(_))), "{closed:?}");
        }
        again.close().await;
    });
}

#[test]
fn many_that_make_the_same_store_have_one_winner() {
    let (directory, path) = room();
    run(async {
        let opening: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move { open(&path).await })
            })
            .collect();
        let opened = futures::future::join_all(opening).await;
        let (opened, refused): (Vec<_>, Vec<_>) =
            opened.into_iter().map(|task| task.expect("a task")).partition(Result::is_ok);
        assert_eq!(opened.len(), 1, "{refused:?}");
        for error in refused {
            let error = error.expect_err("a refusal");
            assert!(chain(&error).contains("is open already"), "{}", chain(&error));
        }
        for store in opened {
            store.expect("a store").close().await;
        }
    });
    assert!(contents(directory.path()).keys().eq(["windlass.redb"]));
}

#[test]
fn a_store_whose_making_was_interrupted_is_made() {
    let (directory, path) = room();
    let unfinished = directory.path().join("windlass.redb.new");
    fs::write(&unfinished, [0x5a; 10_000]).expect("a file");
    run(filled(&path, 2));
    assert!(contents(directory.path()).keys().eq(["windlass.redb"]));
    // Killed after it had its name, and before it lost the other one.
    fs::hard_link(&path, &unfinished).expect("a link");
    run(async {
        let store = open(&path).await.expect("a store");
        assert!(store.get(key(2)).await.expect("a read").is_some());
        store.close().await;
    });
    assert!(contents(directory.path()).keys().eq(["windlass.redb"]));
}

#[test]
fn compacting_gives_room_back_and_loses_nothing() {
    let (_directory, path) = room();
    run(async {
        let store = open(&path).await.expect("a store");
        let lease = acquire(&store).await;
        for n in 0..200 {
            let body = format!("\"{}\"", "x".repeat(50_000));
            let batch = create(windlass_core::process_store::Record { body, ..record(n) });
            store.commit(batch, lease).await.expect("a commit");
        }
        for n in 0..190 {
            let delete = vec![Write::Delete { key: key(n), expect: Revision(1) }];
            store.commit(delete, lease).await.expect("a commit");
        }
        let before = fs::metadata(&path).expect("a file").len();
        assert!(store.compact().await.expect("a compaction"), "nothing was moved");
        let after = fs::metadata(&path).expect("a file").len();
        assert!(after < before / 2, "{before} bytes, then {after}");
        let report = store.check().await.expect("a report");
        assert_eq!((report.records, report.problems), (10, Vec::new()));
        store.commit(create(record(999)), lease).await.expect("a commit");
        let page = store.list(Query::newest(Kind::Execution, 50)).await.expect("a page");
        assert_eq!(page.records.len(), 11);
        store.close().await;
        assert!(store.compact().await.is_err());
    });
}

#[test]
fn memory_for_pages_is_as_much_as_was_given() {
    let (_directory, path) = room();
    run(async {
        let options = RedbOptions { cache_kib: 64, readers: 1, max_bytes: None };
        let store = RedbStore::open(&path, options).await.expect("a store");
        let lease = acquire(&store).await;
        let batch = (0..2_000).flat_map(|n| create(record(n))).collect();
        store.commit(batch, lease).await.expect("a commit larger than the cache");
        let query = Query::newest(Kind::Execution, 1_000);
        let reads = (0..8).map(|_| store.list(query.clone()));
        for page in futures::future::join_all(reads).await {
            assert_eq!(page.expect("a page").records.len(), 1_000);
        }
        store.close().await;
    });
}
