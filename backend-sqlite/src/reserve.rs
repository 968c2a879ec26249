//! Room that the store keeps for itself, so that a full disk does not stop it at once.
//!
//! Who wants to stop the command that fills the disk needs a commit. A commit writes to the log, and a checkpoint writes
//! the log into the main file; both find that the room they need is theirs already:
//!
//! - The log is overwritten from its beginning after each checkpoint, in blocks that it has. More blocks are allocated
//!   beyond its end: SQLite knows a frame by its salt and checksum, and looks for none there.
//! - The main file has free pages. They are made by storing a value as large as the reserve and removing it again, in two
//!   transactions, so that every page has been written once. Blocks beyond the end of the main file would not do: each
//!   complete checkpoint truncates it to its size, which frees them.
//!
//! It does not help on a file system that never overwrites in place.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;

use crate::db::pragma;
use crate::migrate::beside;

/// How much room to keep, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reserve {
    /// In free pages of the main file.
    pub(crate) main: u64,
    /// In blocks of the log.
    pub(crate) log: u64,
}

/// What a record costs beside its body: its columns, its place in the indexes, its line of the change log. Roughly.
const BESIDE_BODY_BYTES: u64 = 1_024;

/// The file system must have this many times the reserve free, or it is not taken: others need room too.
const MODESTY: u64 = 4;

/// Says when to look after the free pages. To look costs a round trip to the connection's thread.
#[derive(Debug)]
pub(crate) struct Upkeep {
    reserve: Reserve,
    /// The log has its blocks, or will never have them.
    log_is_done: bool,
    /// Bytes that may have been taken from the free pages since they were counted.
    taken: u64,
}

impl Upkeep {
    /// Makes one that looks at the first opportunity.
    pub(crate) fn new(reserve: Reserve) -> Self {
        Self { reserve, log_is_done: reserve.log == 0, taken: reserve.main / 4 }
    }

    /// Notes what was committed.
    pub(crate) fn note(&mut self, records: usize, body_bytes: usize) {
        let beside = (records as u64).saturating_mul(BESIDE_BODY_BYTES);
        self.taken = self.taken.saturating_add(beside).saturating_add(body_bytes as u64);
    }

    /// Says whether it is time: `idle` if nobody has to wait for it.
    pub(crate) fn is_due(&self, idle: bool) -> bool {
        let main = self.reserve.main;
        (main > 0 && self.taken >= if idle { main / 4 } else { main / 2 })
            || (idle && !self.log_is_done)
    }

    /// Allocates blocks for the log, once; makes free pages if there are few. Both only if the disk has plenty of room.
    ///
    /// # Errors
    ///
    /// Those of SQLite. No transaction is open, and what is stored is as before.
    pub(crate) async fn renew(
        &mut self,
        connection: &mut SqliteConnection,
        database: &Path,
    ) -> Result<(), sqlx::Error> {
        if !std::mem::replace(&mut self.log_is_done, true) {
            let (log, bytes) = (beside(database, "-wal"), self.reserve.log);
            // An error is a panic in there, which the store outlives.
            let _joined = tokio::task::spawn_blocking(move || reserve_log(&log, bytes)).await;
        }
        self.taken = 0;
        if self.reserve.main == 0 || self.is_kept(connection).await? {
            return Ok(());
        }
        // What a kill in the middle of this left behind is room.
        let cleared = "CREATE TABLE IF NOT EXISTS reserve (room BLOB); DELETE FROM reserve";
        sqlx::raw_sql(cleared).execute(&mut *connection).await?;
        if self.is_kept(connection).await? || !has_room(database, self.reserve.main) {
            return Ok(());
        }
        sqlx::query("INSERT INTO reserve VALUES (zeroblob(?))")
            .bind(i64::try_from(self.reserve.main).unwrap_or(i64::MAX))
            .execute(&mut *connection)
            .await?;
        let _complete: Option<i64> = pragma(connection, "PRAGMA wal_checkpoint(PASSIVE)").await?;
        sqlx::raw_sql("DELETE FROM reserve").execute(&mut *connection).await?;
        Ok(())
    }

    /// Says whether at least half of the free pages are there.
    async fn is_kept(&self, connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        let pages: Option<i64> = pragma(connection, "PRAGMA freelist_count").await?;
        let bytes: Option<i64> = pragma(connection, "PRAGMA page_size").await?;
        let free = pages.unwrap_or(0).saturating_mul(bytes.unwrap_or(0));
        Ok(u64::try_from(free).unwrap_or(0) >= self.reserve.main / 2)
    }
}

/// Says whether the blocks of the log would be hard to get back.
pub(crate) fn is_precious(database: &Path, reserve: Reserve) -> bool {
    reserve.log > 0 && !has_room(database, reserve.log)
}

/// Says whether the disk would hardly notice.
fn has_room(beside: &Path, bytes: u64) -> bool {
    let Some(directory) = beside.parent() else {
        return false;
    };
    rustix::fs::statvfs(directory).is_ok_and(|disk| {
        disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes.saturating_mul(MODESTY)
    })
}

/// Gives the log its blocks. Waits for the file system.
///
/// Nothing holds a lock on the log, so that it may be opened and closed beside SQLite; this is not true of its other files.
#[cfg(target_os = "linux")]
pub(crate) fn reserve_log(log: &Path, bytes: u64) {
    use rustix::fs::{FallocateFlags, fallocate};

    if !has_room(log, bytes) {
        return;
    }
    if let Ok(file) = std::fs::OpenOptions::new().write(true).open(log) {
        // Where it cannot be done the store works as well, only not on a full disk.
        let _unsupported = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes);
    }
}

/// Gives the log no blocks: there is no call for it that leaves the file's length alone.
#[cfg(not(target_os = "linux"))]
pub(crate) fn reserve_log(_log: &Path, _bytes: u64) {}
