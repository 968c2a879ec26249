//! Which files are opened, which are left alone, and how.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sqlx::{Connection as _, Row as _};
use windlass_core::process_store::{Kind, ProcessStore as _, ProcessStoreError, Query};
use windlass_sqlite::{SqliteOptions, SqliteStore};

use crate::{acquire, chain, connect, create, execute, filled, key, open, record, room, run};

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
    assert_eq!(contents(directory), before, "{error}");
    error
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let (directory, path) = room();
    run(async {
        filled(&path, 3).await;
        execute(&path, "PRAGMA user_version = 99").await;
    });
    let error = refused(directory.path(), &path);
    assert!(matches!(error, ProcessStoreError::Newer { found: 99, known: 1 }), "{error:?}");
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let (directory, path) = room();
    run(async {
        execute_new(&path, "CREATE TABLE notes (text)").await;
    });
    assert!(chain(&refused(directory.path(), &path)).contains("not one of Windlass"));
    for text in ["notes\n", &"notes\n".repeat(1_000)] {
        fs::write(&path, text).expect("a file");
        assert!(chain(&refused(directory.path(), &path)).contains("not a SQLite database"));
    }
}

async fn execute_new(path: &Path, sql: &'static str) {
    fs::write(path, "").expect("a file");
    execute(path, sql).await;
}

#[test]
fn a_store_that_lost_its_main_file_is_not_begun_anew() {
    let (directory, path) = room();
    fs::write(&path, "").expect("a file");
    fs::write(directory.path().join("windlass.db-wal"), "frames").expect("a file");
    assert!(chain(&refused(directory.path(), &path)).contains("empty"));
}

#[test]
fn a_store_whose_beginning_is_damaged_is_refused_and_left_alone() {
    let (directory, path) = room();
    run(filled(&path, 3));
    let whole = fs::read(&path).expect("a store");
    let mut damaged = whole.clone();
    damaged[..16].fill(0);
    for bytes in [&damaged[..], &whole[..50]] {
        fs::write(&path, bytes).expect("a file");
        assert!(chain(&refused(directory.path(), &path)).contains("damaged"));
    }
}

#[test]
fn a_directory_and_a_missing_directory_are_refused() {
    let (directory, path) = room();
    fs::create_dir(&path).expect("a directory");
    assert!(run(open(&path)).is_err());
    assert!(run(open(&directory.path().join("none/windlass.db"))).is_err());
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
}

#[test]
fn a_path_that_sqlite_cannot_take_is_refused_with_the_reason() {
    let (directory, _) = room();
    let long = directory.path().join("x".repeat(200)).join("y".repeat(200)).join("z".repeat(200));
    assert!(chain(&run(open(&long)).expect_err("a refusal")).contains("500"));
}

#[test]
fn a_path_of_three_hundred_characters_with_spaces_is_opened() {
    let (directory, _) = room();
    let deep = directory.path().join("ein Größe? 50% & 'mehr' #1").join("x".repeat(220));
    fs::create_dir_all(&deep).expect("directories");
    let path = deep.join("wind lass.db");
    run(async {
        filled(&path, 1).await;
        assert!(open(&path).await.expect("a store").get(key(1)).await.expect("a read").is_some());
    });
    assert!(path.exists());
}

#[test]
fn a_closed_store_is_one_file_and_answers_no_more() {
    let (directory, path) = room();
    run(async {
        let store = open(&path).await.expect("a store");
        let lease = acquire(&store).await;
        store.commit(create(record(1)), lease).await.expect("a commit");
        store.close().await;
        store.close().await;
        assert!(store.commit(create(record(2)), lease).await.is_err());
        assert!(store.get(key(1)).await.is_err());
    });
    assert_eq!(contents(directory.path()).into_keys().collect::<Vec<_>>(), ["windlass.db"]);
}

#[test]
fn another_process_that_writes_is_waited_for_and_then_reported_as_transient() {
    let (_directory, path) = room();
    run(async {
        let options = SqliteOptions {
            busy_timeout: std::time::Duration::from_millis(20),
            ..Default::default()
        };
        let store = SqliteStore::open(&path, options).await.expect("a store");
        let lease = acquire(&store).await;
        let mut other = connect(&path).await;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.expect("a transaction");
        let answers =
            futures::future::join_all((1..=5).map(|n| store.commit(create(record(n)), lease)));
        for answer in answers.await {
            let transient = |error: &ProcessStoreError| matches!(error, ProcessStoreError::Backend(backend) if backend.transient);
            assert!(answer.as_ref().is_err_and(transient), "{answer:?}");
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.expect("an end");
        assert_eq!(store.get(key(1)).await.expect("a read"), None);
        store.commit(create(record(1)), lease).await.expect("a commit");
    });
}

#[test]
fn people_can_query_typed_columns() {
    let (_directory, path) = room();
    run(async {
        let store = open(&path).await.expect("a store");
        let lease = acquire(&store).await;
        let body = r#"{"v":1,"id":"x","attempt":"a","action":{"kind":"command","argv":["true"],
            "run_reason":"agent"},"outcome":{"kind":"exited","code":0},"exit":{"code":0}}"#;
        let execution = windlass_core::process_store::Record { body: body.to_owned(), ..record(1) };
        let mut attempt = record(2);
        attempt.key.kind = Kind::Attempt;
        attempt.body =
            r#"{"v":1,"id":"a","title":"Grüße","workspace":{"branch":"wl/1"}}"#.to_owned();
        let batch = [create(execution), create(attempt)].concat();
        store.commit(batch, lease).await.expect("a commit");
        // One that is damaged is not in the way.
        execute(
            &path,
            "INSERT INTO records (kind, id, state, at, revision, change, body) \
             VALUES ('execution', randomblob(16), 'final', 0, 1, 1, 'not json')",
        )
        .await;
        let mut connection = connect(&path).await;
        let sql = "SELECT e.outcome, e.exit_code, e.run_reason, e.phase, a.title, a.branch \
             FROM executions AS e JOIN attempts AS a ON a.id = e.attempt";
        let rows = sqlx::query(sql).fetch_all(&mut connection).await.expect("rows");
        assert_eq!(rows.len(), 1);
        let text = |index: usize| rows[0].get::<String, _>(index);
        assert_eq!([0, 2, 3, 4, 5].map(text), ["exited", "agent", "queued", "Grüße", "wl/1"]);
        assert_eq!(rows[0].get::<i64, _>(1), 0);
        let requests = sqlx::query("SELECT * FROM requests").fetch_all(&mut connection).await;
        assert!(requests.expect("rows").is_empty());
        connection.close().await.expect("a close");
    });
}

#[test]
fn commits_that_would_not_be_durable_are_refused_at_open() {
    let (_directory, path) = room();
    run(async {
        filled(&path, 1).await;
        let mut reader = connect(&path).await;
        // Somebody keeps the store in another journal mode and is reading: SQLite cannot change it back.
        sqlx::raw_sql("PRAGMA journal_mode = DELETE; BEGIN; SELECT * FROM leases")
            .execute(&mut reader)
            .await
            .expect("a transaction");
        let options = SqliteOptions {
            busy_timeout: std::time::Duration::from_millis(20),
            ..Default::default()
        };
        let refused = SqliteStore::open(&path, options).await;
        assert!(refused.is_err(), "{refused:?}");
        sqlx::raw_sql("COMMIT").execute(&mut reader).await.expect("an end");
        reader.close().await.expect("a close");
        let store = open(&path).await.expect("a store");
        assert!(store.get(key(1)).await.expect("a read").is_some());
        let mut connection = connect(&path).await;
        let mode =
            sqlx::query("PRAGMA journal_mode").fetch_one(&mut connection).await.expect("a row");
        assert_eq!(mode.get::<String, _>(0), "wal");
    });
}

#[test]
fn an_idle_store_reads_and_writes_nothing_when_it_is_opened() {
    let (_directory, path) = room();
    run(async {
        filled(&path, 5).await;
        let before = fs::read(&path).expect("a store");
        let store = open(&path).await.expect("a store");
        assert_eq!(
            store.list(Query::newest(Kind::Execution, 9)).await.expect("a page").records.len(),
            5
        );
        store.close().await;
        assert_eq!(fs::read(&path).expect("a store"), before);
    });
}
