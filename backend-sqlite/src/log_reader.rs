//! Reads logs: what is known of one, and pages of items.
//!
//! A page is read in two steps within one transaction: how long the items are, then those that fit. So no more of them is
//! ever in memory than a page has.

use bytes::Bytes;
use futures::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use windlass_core::log_store::{
    From, GapCause, LogItem, LogPage, LogStatus, ReadOptions, Seq, Stream,
};
use windlass_core::time::Timestamp;

use crate::log_store::LogId;

/// The most items of a page, whatever was asked for.
const PAGE_ITEMS: u32 = 4_096;

/// What is known of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its number in the table.
    pub(crate) n: i64,
    pub(crate) status: LogStatus,
    pub(crate) gaps: u64,
}

/// Looks a log up.
pub(crate) async fn find(
    connection: &mut SqliteConnection,
    log: &LogId,
) -> Result<Option<Found>, sqlx::Error> {
    const SQL: &str = "SELECT n, last, entries, gaps, bytes, dropped, sealed FROM logs \
         INDEXED BY logs_by_name WHERE execution = ? AND nonce = ? AND NOT removed";
    let (execution, nonce) = log.split_at(16);
    let query = sqlx::query(SQL).bind(execution.to_vec()).bind(nonce.to_vec());
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
    let number = |index: usize| row.try_get::<i64, _>(index).map(unsigned);
    let status = LogStatus {
        last: Seq(number(1)?),
        entries: number(2)?,
        bytes: number(4)?,
        dropped_bytes: number(5)?,
        sealed: number(6)? != 0,
    };
    Ok(Some(Found { n: row.try_get(0)?, status, gaps: number(3)? }))
}

/// Reads a page; `None` if there is no such log.
pub(crate) async fn page(
    connection: &mut SqliteConnection,
    log: &LogId,
    options: ReadOptions,
) -> Result<Option<LogPage>, sqlx::Error> {
    // One state for all that is read. Whoever gets an error gives the connection up.
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    let page = match find(connection, log).await? {
        Some(found) => Some(page_of(connection, found, options).await?),
        None => None,
    };
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
    Ok(page)
}

async fn page_of(
    connection: &mut SqliteConnection,
    found: Found,
    options: ReadOptions,
) -> Result<LogPage, sqlx::Error> {
    let after = match options.from {
        From::After(after) => after,
        From::Tail(0) => found.status.last,
        From::Tail(count) if u64::from(count) >= found.status.entries + found.gaps => Seq(0),
        From::Tail(count) => before_tail(connection, found.n, count).await?,
    };
    let (last, full) = fitting(connection, found.n, after, options).await?;
    let mut page = Page { items: Vec::new(), next: after };
    if let Some(last) = last {
        const SQL: &str = "SELECT first, last, stream, at, partial, cause, endless, len, bytes \
             FROM items INDEXED BY items_by_number WHERE log = ? AND last > ? AND last <= ? \
             ORDER BY last";
        let query = sqlx::query(SQL).bind(found.n).bind(signed(after.0)).bind(last);
        let mut rows = query.fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            page.add(&row)?;
        }
    }
    if !full {
        page.cover(found.status.last);
    }
    let end = found.status.sealed && !full;
    Ok(LogPage { items: page.items.into(), next: page.next, end })
}

/// Returns the number before the last `count` items.
async fn before_tail(
    connection: &mut SqliteConnection,
    log: i64,
    count: u32,
) -> Result<Seq, sqlx::Error> {
    const SQL: &str = "SELECT last FROM items INDEXED BY items_by_number WHERE log = ? \
         ORDER BY last DESC LIMIT 1 OFFSET ?";
    let query = sqlx::query(SQL).bind(log).bind(i64::from(count));
    let row = query.fetch_optional(connection).await?;
    row.map_or(Ok(Seq(0)), |row| Ok(Seq(unsigned(row.try_get(0)?))))
}

/// Returns the last number of what fits into a page, if there is anything, and whether there is more.
async fn fitting(
    connection: &mut SqliteConnection,
    log: i64,
    after: Seq,
    options: ReadOptions,
) -> Result<(Option<i64>, bool), sqlx::Error> {
    const SQL: &str = "SELECT last, coalesce(octet_length(bytes), 0) FROM items \
         INDEXED BY items_by_number WHERE log = ? AND last > ? ORDER BY last LIMIT ?";
    let most = options.max_items.clamp(1, PAGE_ITEMS);
    let query = sqlx::query(SQL).bind(log).bind(signed(after.0)).bind(i64::from(most) + 1);
    let rows = query.fetch_all(connection).await?;
    let (mut last, mut bytes) = (None, 0_u64);
    for (row, count) in rows.iter().zip(1..) {
        bytes = bytes.saturating_add(unsigned(row.try_get(1)?));
        if count > most || (bytes > options.max_bytes && count > 1) {
            return Ok((last, true));
        }
        last = Some(row.try_get(0)?);
    }
    Ok((last, false))
}

/// A page that is being filled.
struct Page {
    items: Vec<LogItem>,
    next: Seq,
}

impl Page {
    fn add(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        let last = Seq(unsigned(row.try_get(1)?));
        // One that is not what it should be stands for its numbers as if it had been lost.
        let item = item(row, last).unwrap_or_else(|| self.lost(last));
        self.cover(Seq(item.first_seq().0.saturating_sub(1)));
        self.next = last;
        self.items.push(item);
        Ok(())
    }

    /// Makes sure that every number up to `last` is covered.
    fn cover(&mut self, last: Seq) {
        if last > self.next {
            self.items.push(self.lost(last));
            self.next = last;
        }
    }

    fn lost(&self, last: Seq) -> LogItem {
        let first = Seq(self.next.0.saturating_add(1));
        LogItem::Gap { first, last: Some(last), bytes: 0, cause: GapCause::Power }
    }
}

fn item(row: &SqliteRow, last: Seq) -> Option<LogItem> {
    let number = |index: usize| row.try_get::<i64, _>(index).ok().map(unsigned);
    let (first, len) = (Seq(number(0)?), number(7)?);
    if let Some(word) = row.try_get::<Option<&str>, _>(2).ok()? {
        let (stream, at) = (stream_of(word)?, Timestamp(number(3)?));
        let partial = number(4)? != 0;
        let bytes = Bytes::copy_from_slice(row.try_get(8).ok()?);
        return Some(LogItem::Entry { seq: last, at, stream, partial, bytes, len });
    }
    let cause = cause_of(row.try_get(5).ok()?)?;
    let last = (number(6)? == 0).then_some(last);
    Some(LogItem::Gap { first, last, bytes: len, cause })
}

/// Returns the word that the table has for a stream.
pub(crate) fn stream_word(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Pty => "pty",
        Stream::Stdin => "stdin",
    }
}

fn stream_of(word: &str) -> Option<Stream> {
    let all = [Stream::Stdout, Stream::Stderr, Stream::Pty, Stream::Stdin];
    all.into_iter().find(|stream| stream_word(*stream) == word)
}

/// Returns the word that the table has for a cause.
pub(crate) fn cause_word(cause: GapCause) -> &'static str {
    match cause {
        GapCause::Cap => "cap",
        GapCause::Full => "full",
        GapCause::Dropped => "dropped",
        GapCause::Power => "power",
    }
}

fn cause_of(word: &str) -> Option<GapCause> {
    let all = [GapCause::Cap, GapCause::Full, GapCause::Dropped, GapCause::Power];
    all.into_iter().find(|cause| cause_word(*cause) == word)
}

/// Numbers above the half of the range do not occur: the shim counts from 1.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
