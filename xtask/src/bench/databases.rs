//! The stores that are measured, by kind, through the same code.

use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use uuid::Uuid;
use windlass::core::id::{HostId, NodeId};
use windlass::core::log_store::LogStore;
use windlass::core::process_store::{
    Expect, Kind as RecordKind, Lease, ProcessStore, Record, RecordKey, Write,
};
use windlass::core::time::Timestamp;
use windlass_redb::{RedbLogs, RedbOptions, RedbStore};
use windlass_sqlite::{SqliteLogs, SqliteOptions, SqliteStore};

use crate::failure::{Doing, Failure};

/// The machine that all records are of.
const NODE: NodeId = NodeId(Uuid::from_u128(1));

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Database {
    Sqlite,
    Redb,
}

impl Database {
    pub(super) const ALL: [Self; 2] = [Self::Sqlite, Self::Redb];

    /// Returns the word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Redb => "redb",
        }
    }
}

/// Who closes what is open.
#[derive(Clone, Debug)]
enum Closing {
    Sqlite(Arc<SqliteStore>),
    Redb(Arc<RedbStore>),
}

/// A store that this process may write to.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) port: Arc<dyn ProcessStore>,
    closing: Closing,
    lease: Lease,
}

impl Store {
    /// Opens it without taking it over.
    pub(super) async fn look(database: Database, path: &Path) -> Result<Self, Failure> {
        let (port, closing): (Arc<dyn ProcessStore>, _) = match database {
            Database::Sqlite => {
                let store = SqliteStore::open(path, SqliteOptions::default()).await;
                let store = store.doing("open a store")?;
                (Arc::clone(&store) as Arc<dyn ProcessStore>, Closing::Sqlite(store))
            }
            Database::Redb => {
                let store = RedbStore::open(path, RedbOptions::default()).await;
                let store = store.doing("open a store")?;
                (Arc::clone(&store) as Arc<dyn ProcessStore>, Closing::Redb(store))
            }
        };
        let lease = Lease {
            node: NODE,
            host: HostId(Uuid::from_u128(2)),
            epoch: windlass::core::id::Epoch(0),
        };
        Ok(Self { port, closing, lease })
    }

    pub(super) async fn open(database: Database, path: &Path) -> Result<Self, Failure> {
        let mut store = Self::look(database, path).await?;
        store.lease = store.port.acquire(store.lease.host, NODE).await.doing("acquire it")?;
        Ok(store)
    }

    /// Commits new records in one batch.
    pub(super) async fn create(&self, numbers: impl Iterator<Item = u64>) -> Result<(), Failure> {
        let put = |number| Write::Put { record: record(number), expect: Expect::Absent };
        self.port.commit(numbers.map(put).collect(), self.lease).await.doing("commit").map(drop)
    }

    pub(super) async fn close(&self) {
        match &self.closing {
            Closing::Sqlite(store) => store.close().await,
            Closing::Redb(store) => store.close().await,
        }
    }
}

/// Names a record.
pub(super) fn key(number: u64) -> RecordKey {
    RecordKey { kind: RecordKind::Execution, id: Uuid::from_u128(u128::from(number) + 1) }
}

/// Returns the parent of every thousandth record.
pub(super) fn parent(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number % 1_000))
}

/// A record of 220 bytes whose place in the order is its number.
pub(super) fn record(number: u64) -> Record {
    Record {
        key: key(number),
        parent: Some(parent(number)),
        owner: number.is_multiple_of(4).then(|| format!("client-{}", number % 100)),
        state: if number.is_multiple_of(1_000) { "running" } else { "final" }.to_owned(),
        at: Timestamp(number),
        body: format!("{{\"v\":1,\"number\":{number},\"pad\":\"{}\"}}", "x".repeat(180)),
    }
}

/// A database of logs.
#[derive(Clone, Debug)]
pub(super) struct Logs {
    pub(super) port: Arc<dyn LogStore>,
    closing: ClosingLogs,
}

#[derive(Clone, Debug)]
enum ClosingLogs {
    Sqlite(Arc<SqliteLogs>),
    Redb(Arc<RedbLogs>),
}

impl Logs {
    pub(super) async fn open(database: Database, path: &Path) -> Result<Self, Failure> {
        let (port, closing): (Arc<dyn LogStore>, _) = match database {
            Database::Sqlite => {
                let logs = SqliteLogs::open(path, SqliteOptions::default()).await;
                let logs = logs.doing("open a store of logs")?;
                (Arc::clone(&logs) as Arc<dyn LogStore>, ClosingLogs::Sqlite(logs))
            }
            Database::Redb => {
                let logs = RedbLogs::open(path, RedbOptions::default()).await;
                let logs = logs.doing("open a store of logs")?;
                (Arc::clone(&logs) as Arc<dyn LogStore>, ClosingLogs::Redb(logs))
            }
        };
        Ok(Self { port, closing })
    }

    pub(super) async fn close(&self) {
        match &self.closing {
            ClosingLogs::Sqlite(logs) => logs.close().await,
            ClosingLogs::Redb(logs) => logs.close().await,
        }
    }
}
