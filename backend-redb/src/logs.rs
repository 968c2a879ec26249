//! Appends to logs, seals and removes them, and reads pages of them.

use std::sync::Arc;

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition, WriteTransaction,
};
use tokio::sync::oneshot;
use windlass_core::error::BackendError;
use windlass_core::id::ExecutionId;
use windlass_core::log_store::{
    From, GapCause, LogItem, LogPage, LogStoreError, ReadOptions, Seq, items_to_add,
};

use crate::db::BACKEND;
use crate::format::begin;
use crate::growth::Growth;
use crate::log_schema::{
    ITEMS, LOGS, Log, LogId, REMOVED, item_key, item_value, read_item, read_item_key,
};
use crate::writer::{Failure, Work, closed};

/// How many items of a removed log, and how many of their bytes, go in one transaction.
const TIDIED_ITEMS: usize = 512;
const TIDIED_BYTES: usize = 4 << 20;

type Answer<T> = Result<T, LogStoreError>;

/// What the store of logs is asked to write.
#[derive(Debug)]
pub(crate) struct LogWork {
    pub(crate) log: LogId,
    pub(crate) execution: ExecutionId,
    pub(crate) order: Order,
    pub(crate) growth: Arc<Growth>,
    pub(crate) reply: oneshot::Sender<Answer<Seq>>,
    answer: Option<Answer<Seq>>,
}

/// What is to be done with a log. All of them may be done again.
#[derive(Debug)]
pub(crate) enum Order {
    Append(Vec<LogItem>),
    Seal,
    Remove,
}

impl Order {
    fn op(&self) -> &'static str {
        match self {
            Self::Append(_) => "append",
            Self::Seal => "seal",
            Self::Remove => "remove",
        }
    }
}

impl LogWork {
    pub(crate) fn new(
        log: LogId,
        execution: ExecutionId,
        order: Order,
        growth: Arc<Growth>,
    ) -> (Self, oneshot::Receiver<Answer<Seq>>) {
        let (reply, receiver) = oneshot::channel();
        (Self { log, execution, order, growth, reply, answer: None }, receiver)
    }
}

type Bytes = &'static [u8];

/// The tables of a group that is being written.
pub(crate) struct Tables<'txn> {
    logs: Table<'txn, Bytes, Bytes>,
    items: Table<'txn, Bytes, Bytes>,
    removed: Table<'txn, Bytes, ()>,
}

impl Work for LogWork {
    type Tables<'txn> = Tables<'txn>;

    fn open(transaction: &WriteTransaction) -> Result<Tables<'_>, redb::Error> {
        Ok(Tables {
            logs: transaction.open_table(LOGS)?,
            items: transaction.open_table(ITEMS)?,
            removed: transaction.open_table(REMOVED)?,
        })
    }

    /// What is there already is not written again, so that repeating does no harm.
    fn mark(database: &Database) -> Result<u64, redb::Error> {
        database.begin_read()?;
        Ok(0)
    }

    fn size(&self) -> usize {
        match &self.order {
            Order::Append(items) => items.iter().map(payload).sum(),
            Order::Seal | Order::Remove => 0,
        }
    }

    fn write(&mut self, tables: &mut Tables<'_>) -> Result<bool, redb::Error> {
        let (wrote, answer) = match &self.order {
            Order::Append(items) => tables.append(&self.log, self.execution, items)?,
            Order::Seal => tables.seal(&self.log)?,
            Order::Remove => tables.remove(&self.log)?,
        };
        self.answer = Some(answer);
        Ok(wrote)
    }

    fn answer(self, end: Result<(), &Failure>) {
        let op = self.order.op();
        let answer = match (end, self.answer) {
            (Ok(()), answer) => answer.unwrap_or_else(|| Err(closed(op).into())),
            (Err(failure), _) if failure.full => Err(LogStoreError::Full),
            (Err(failure), _) => Err(failure.error(op).into()),
        };
        if answer.is_ok() {
            self.growth.wake(&self.log);
        }
        // Who no longer waits has no use for the answer.
        let _gone = self.reply.send(answer);
    }

    fn leaves_something(&self) -> bool {
        matches!(self.order, Order::Remove)
    }

    fn tidy(database: &Database) -> Result<bool, redb::Error> {
        if database.begin_read()?.open_table(REMOVED)?.is_empty()? {
            return Ok(false);
        }
        let transaction = begin(database)?;
        let left = {
            let mut tables = Self::open(&transaction)?;
            let next = tables.removed.first()?.map(|(log, _)| log.value().to_vec());
            match next.as_deref().and_then(|log| LogId::try_from(log).ok()) {
                Some(log) => {
                    if tables.remove_items(&log)? {
                        tables.removed.remove(log.as_slice())?;
                    }
                    true
                }
                None => false,
            }
        };
        if left {
            transaction.commit()?
        } else {
            transaction.abort()?
        }
        Ok(left)
    }
}

/// Returns how many bytes of a page an item takes.
fn payload(item: &LogItem) -> usize {
    match item {
        LogItem::Entry { bytes, .. } => bytes.len(),
        LogItem::Gap { .. } => 0,
    }
}

fn damaged(op: &'static str) -> LogStoreError {
    BackendError::permanent(BACKEND, op, "what is known of the log is damaged").into()
}

impl Tables<'_> {
    fn log(&self, log: &LogId) -> Result<Option<Option<Log>>, redb::Error> {
        Ok(self.logs.get(log.as_slice())?.map(|value| Log::read(log, value.value())))
    }

    fn append(
        &mut self,
        id: &LogId,
        execution: ExecutionId,
        items: &[LogItem],
    ) -> Result<(bool, Answer<Seq>), redb::Error> {
        let found = self.log(id)?;
        let is_new = found.is_none();
        let Some(mut log) = found.unwrap_or(Some(Log::default())) else {
            return Ok((false, Err(damaged("append"))));
        };
        let added = match items_to_add(execution, &log.status, items.to_vec()) {
            Ok(added) => added,
            Err(refusal) => return Ok((false, Err(refusal))),
        };
        if added.is_empty() && !is_new {
            return Ok((false, Ok(log.status.last)));
        }
        if is_new && self.removed.remove(id.as_slice())?.is_some() {
            // One of the same name is still being removed.
            while !self.remove_items(id)? {}
        }
        for item in &added {
            let key = item_key(id, item.last_seq());
            self.items.insert(key.as_slice(), &*item_value(&key, item))?;
            log.count(item);
        }
        self.logs.insert(id.as_slice(), &*log.value(id))?;
        Ok((true, Ok(log.status.last)))
    }

    fn seal(&mut self, id: &LogId) -> Result<(bool, Answer<Seq>), redb::Error> {
        let Some(found) = self.log(id)? else { return Ok((false, Ok(Seq(0)))) };
        let Some(mut log) = found else { return Ok((false, Err(damaged("seal")))) };
        if log.status.sealed {
            return Ok((false, Ok(log.status.last)));
        }
        log.status.sealed = true;
        self.logs.insert(id.as_slice(), &*log.value(id))?;
        Ok((true, Ok(log.status.last)))
    }

    /// Removes a log at once, and its items later.
    fn remove(&mut self, id: &LogId) -> Result<(bool, Answer<Seq>), redb::Error> {
        let was_there = self.logs.remove(id.as_slice())?.is_some();
        if was_there {
            self.removed.insert(id.as_slice(), ())?;
        }
        Ok((was_there, Ok(Seq(0))))
    }

    /// Removes a part of the items of a log; returns whether that was the last one.
    fn remove_items(&mut self, id: &LogId) -> Result<bool, redb::Error> {
        let (first, last) = (item_key(id, Seq(0)), item_key(id, Seq(u64::MAX)));
        let (mut keys, mut bytes) = (Vec::new(), 0);
        for entry in self.items.range(first.as_slice()..=last.as_slice())? {
            if keys.len() >= TIDIED_ITEMS || bytes >= TIDIED_BYTES {
                break;
            }
            let (key, value) = entry?;
            bytes += value.value().len();
            keys.push(key.value().to_vec());
        }
        for key in &keys {
            self.items.remove(&**key)?;
        }
        Ok(keys.len() < TIDIED_ITEMS && bytes < TIDIED_BYTES)
    }
}

/// Reads what is known of a log; `None` if there is none.
pub(crate) fn look(
    database: &Database,
    op: &'static str,
    execution: ExecutionId,
    id: &LogId,
) -> Result<Answer<Log>, redb::Error> {
    let logs = database.begin_read()?.open_table(LOGS)?;
    let Some(value) = logs.get(id.as_slice())? else {
        return Ok(Err(LogStoreError::NotFound { execution }));
    };
    Ok(Log::read(id, value.value()).ok_or_else(|| damaged(op)))
}

/// Reads one page.
pub(crate) fn read(
    database: &Database,
    execution: ExecutionId,
    id: &LogId,
    options: ReadOptions,
) -> Result<Answer<LogPage>, redb::Error> {
    let transaction = database.begin_read()?;
    let log = {
        let logs = transaction.open_table(LOGS)?;
        let Some(value) = logs.get(id.as_slice())? else {
            return Ok(Err(LogStoreError::NotFound { execution }));
        };
        let Some(log) = Log::read(id, value.value()) else {
            return Ok(Err(damaged("read")));
        };
        log
    };
    let after = match options.from {
        From::After(after) => after,
        From::Tail(0) => log.status.last,
        From::Tail(count) if u64::from(count) >= log.status.entries + log.gaps => Seq(0),
        From::Tail(count) => before_tail(&transaction, ITEMS, id, count)?,
    };
    let mut page = Page { items: Vec::new(), bytes: 0, next: after, full: false };
    if let Some(first) = after.0.checked_add(1) {
        let items = transaction.open_table(ITEMS)?;
        let (first, last) = (item_key(id, Seq(first)), item_key(id, Seq(u64::MAX)));
        for entry in items.range(first.as_slice()..=last.as_slice())? {
            let (key, value) = entry?;
            page.add(key.value(), value.value(), &options);
            if page.full {
                break;
            }
        }
    }
    if !page.full {
        page.cover(log.status.last);
    }
    let end = log.status.sealed && !page.full;
    Ok(Ok(LogPage { items: page.items.into(), next: page.next, end }))
}

/// Returns the number before the last `count` items.
fn before_tail(
    transaction: &redb::ReadTransaction,
    items: TableDefinition<'_, Bytes, Bytes>,
    id: &LogId,
    count: u32,
) -> Result<Seq, redb::Error> {
    let items = transaction.open_table(items)?;
    let (first, last) = (item_key(id, Seq(0)), item_key(id, Seq(u64::MAX)));
    let mut range = items.range(first.as_slice()..=last.as_slice())?;
    let before = usize::try_from(count).ok().and_then(|count| range.by_ref().rev().nth(count));
    let Some((key, _)) = before.transpose()? else { return Ok(Seq(0)) };
    Ok(read_item_key(key.value()).unwrap_or_default())
}

/// A page that is being filled.
struct Page {
    items: Vec<LogItem>,
    bytes: u64,
    next: Seq,
    full: bool,
}

impl Page {
    /// Adds an item if there is room; one always fits.
    fn add(&mut self, key: &[u8], value: &[u8], options: &ReadOptions) {
        let Some(last) = read_item_key(key) else { return };
        // A damaged one stands for its numbers as if it had been lost.
        let item = read_item(key, value).unwrap_or_else(|| self.lost(last));
        let bytes = payload(&item) as u64;
        let over = self.items.len() >= options.max_items as usize
            || self.bytes.saturating_add(bytes) > options.max_bytes;
        if over && !self.items.is_empty() {
            self.full = true;
            return;
        }
        self.cover(Seq(item.first_seq().0.saturating_sub(1)));
        self.bytes += bytes;
        self.next = last;
        self.items.push(item);
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
