//! What is true of SQLite alone: the file, damage, a full disk, another process.

mod conformance;
mod damage;
mod file;
mod full;
mod kill;
mod logs;

use std::path::Path;
use std::sync::Arc;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use uuid::Uuid;
use windlass_core::id::{HostId, NodeId};
use windlass_core::process_store::{
    ChangeNumber, Expect, Kind, Lease, ProcessStore as _, ProcessStoreError, Record, RecordKey,
    Write,
};
use windlass_core::time::Timestamp;
use windlass_sqlite::{SqliteOptions, SqliteStore};

/// Runs a test on a runtime of its own.
fn run<T>(test: impl Future<Output = T>) -> T {
    windlass_conformance::block_on(test)
}

/// Makes a directory and returns it with the path of a store in it.
fn room() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("windlass.db");
    (directory, path)
}

async fn open(path: &Path) -> Result<Arc<SqliteStore>, ProcessStoreError> {
    SqliteStore::open(path, SqliteOptions::default()).await
}

fn key(n: u64) -> RecordKey {
    RecordKey { kind: Kind::Execution, id: Uuid::from_u64_pair(n, n) }
}

fn record(n: u64) -> Record {
    Record {
        key: key(n),
        parent: Some(Uuid::from_u64_pair(7, 7)),
        owner: Some("somebody".to_owned()),
        state: "queued".to_owned(),
        at: Timestamp(1_000 + n),
        body: format!(r#"{{"v":1,"note":"the body of {n}"}}"#),
    }
}

fn create(record: Record) -> Vec<Write> {
    vec![Write::Put { record, expect: Expect::Absent }]
}

async fn acquire(store: &SqliteStore) -> Lease {
    let (host, node) = (HostId(Uuid::from_u128(1)), NodeId(Uuid::from_u128(2)));
    store.acquire(host, node).await.expect("a lease")
}

/// Makes a store that holds `records` records, and closes it.
async fn filled(path: &Path, records: u64) {
    let store = open(path).await.expect("a store");
    let lease = acquire(&store).await;
    let batch = (1..=records).flat_map(|n| create(record(n))).collect();
    assert_eq!(store.commit(batch, lease).await.expect("a commit"), ChangeNumber(1));
    store.close().await;
}

/// Connects as anybody with SQLite could.
async fn connect(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.expect("a connection")
}

/// Runs SQL as anybody with SQLite could.
async fn execute(path: &Path, sql: &'static str) {
    let mut connection = connect(path).await;
    sqlx::raw_sql(sql).execute(&mut connection).await.expect("some SQL");
    connection.close().await.expect("a close");
}

/// Returns an error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
