//! The connections that read.
//!
//! sqlx's own pool pings every connection that comes back to it, from a task of its own: two more hops between threads for
//! each list, and a caller that asks again at once finds its connection not yet back and gets a cold one. Here the
//! connection that was used last is used next, with its pages and statements, and nothing runs between two reads.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Connects when needed, up to a number; keeps what was connected.
pub(crate) struct Readers {
    connect: SqliteConnectOptions,
    most: u32,
    /// One for each connection that may be in use. Closed with the store.
    permits: Semaphore,
    /// The one that was used last at the end.
    idle: Mutex<Vec<SqliteConnection>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("most", &self.most).finish_non_exhaustive()
    }
}

/// A connection in use.
///
/// Dropping it closes the connection, which may be in the middle of something: give it [back](Self::give_back).
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    readers: &'a Readers,
    pub(crate) connection: SqliteConnection,
    _permit: SemaphorePermit<'a>,
}

impl Readers {
    pub(crate) fn new(connect: SqliteConnectOptions, most: u32) -> Self {
        let most = most.max(1);
        let permits = Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS));
        Self { connect, most, permits, idle: Mutex::new(Vec::new()) }
    }

    /// Takes a connection, waiting for one if all are in use.
    ///
    /// # Errors
    ///
    /// [`sqlx::Error::PoolClosed`] once the store was closed; that of connecting.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub(crate) async fn take(&self) -> Result<Reader<'_>, sqlx::Error> {
        let permit = self.permits.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect.connect().await?,
        };
        Ok(Reader { readers: self, connection, _permit: permit })
    }

    /// Waits for those in use and closes all. Later takers get an error.
    pub(crate) async fn close(&self) {
        // Those who wait already come first. An error says that it was closed before.
        if let Ok(all) = self.permits.acquire_many(self.most).await {
            self.permits.close();
            drop(all);
        }
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            // It has nothing to write; whether it closes well does not matter.
            let _closed = connection.close().await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        // Every state of the list is a valid one.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader<'_> {
    /// Keeps the connection for the next one who reads.
    pub(crate) fn give_back(self) {
        let Self { readers, connection, _permit } = self;
        readers.idle().push(connection);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use sqlx::Row as _;

    use super::*;

    fn readers(directory: &tempfile::TempDir, most: u32) -> Readers {
        let path = directory.path().join("database");
        Readers::new(SqliteConnectOptions::new().filename(path).create_if_missing(true), most)
    }

    /// Leaves a mark that only this connection has.
    async fn mark(reader: &mut Reader<'_>) {
        let mark = sqlx::raw_sql("CREATE TEMP TABLE mark (n)");
        mark.execute(&mut reader.connection).await.unwrap();
    }

    async fn is_marked(reader: &mut Reader<'_>) -> bool {
        let marks = sqlx::query("SELECT count(*) FROM sqlite_temp_schema");
        marks.fetch_one(&mut reader.connection).await.unwrap().get::<i64, _>(0) == 1
    }

    #[tokio::test]
    async fn the_one_that_was_used_last_is_used_next_and_a_dropped_one_never() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(&directory, 2);
        let (cold, mut warm) = (readers.take().await.unwrap(), readers.take().await.unwrap());
        mark(&mut warm).await;
        assert!(readers.take().now_or_never().is_none(), "there are only two");
        cold.give_back();
        warm.give_back();
        let mut next = readers.take().await.unwrap();
        assert!(is_marked(&mut next).await);
        drop(next);
        for _ in 0..2 {
            let mut next = readers.take().await.unwrap();
            assert!(!is_marked(&mut next).await);
            next.give_back();
        }
    }

    #[tokio::test]
    async fn closing_waits_for_who_reads_and_then_nobody_does() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(&directory, 3);
        let reader = readers.take().await.unwrap();
        let mut closing = Box::pin(readers.close());
        assert!(closing.as_mut().now_or_never().is_none(), "somebody reads");
        reader.give_back();
        closing.await;
        assert!(readers.idle().is_empty());
        assert!(matches!(readers.take().await, Err(sqlx::Error::PoolClosed)));
        readers.close().await;
    }
}
