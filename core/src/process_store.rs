//! The port [`ProcessStore`]: a small transactional record store.
//!
//! It knows keys, order, revisions and epochs. It does not know what a body means: only core encodes and decodes them
//! (see [`crate::record`]).

use std::fmt;
use std::future::Future;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::BackendError;
use crate::id::{Epoch, HostId, NodeId};
use crate::time::Timestamp;

/// The kind of a record. A new kind is a new variant, never a new method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A repository with its defaults.
    Project,
    /// What somebody wants done.
    Task,
    /// One try in its own workspace.
    Attempt,
    /// One start of one action.
    Execution,
    /// A message that is queued for an attempt.
    FollowUp,
    /// A client's request, by its key.
    Request,
    /// A keyed message to a running execution.
    Input,
    /// Saved work of a worktree.
    Snapshot,
    /// What cleanup has seen of something.
    Observation,
}

impl Kind {
    /// Every kind, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Project,
        Self::Task,
        Self::Attempt,
        Self::Execution,
        Self::FollowUp,
        Self::Request,
        Self::Input,
        Self::Snapshot,
        Self::Observation,
    ];

    /// Returns the word that stores keep; it never changes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Task => "task",
            Self::Attempt => "attempt",
            Self::Execution => "execution",
            Self::FollowUp => "follow_up",
            Self::Request => "request",
            Self::Input => "input",
            Self::Snapshot => "snapshot",
            Self::Observation => "observation",
        }
    }

    /// Reads the word back; `None` for one of a newer version.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Names one record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey {
    /// Its kind.
    pub kind: Kind,
    /// Its id.
    pub id: Uuid,
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.id)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Counts the writes of one record: 1 after its creation, one more with each put.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// Counts the committed batches of a store, from 1. What is visible is always a prefix.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ChangeNumber(pub u64);

/// What a store keeps of one thing.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub key: RecordKey,
    /// What it belongs to, for example the attempt of an execution.
    pub parent: Option<Uuid>,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// A short word to select by: `a-z`, digits and `_`, at most 32 bytes.
    pub state: String,
    /// When the thing was created; lists are ordered by it.
    pub at: Timestamp,
    /// The JSON text that only core understands.
    pub body: String,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} [{}] at {} {}", self.key, self.state, self.at.0, self.body)
    }
}

/// A record with the number of its last write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// How often it has been written.
    pub revision: Revision,
    /// The batch that wrote it last.
    pub change: ChangeNumber,
}

/// What must be stored for a write to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No record has this key.
    Absent,
    /// The record is at this revision.
    At(Revision),
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Stores the record.
    Put {
        /// The record.
        record: Record,
        /// The condition.
        expect: Expect,
    },
    /// Removes the record.
    Delete {
        /// Its name.
        key: RecordKey,
        /// The revision it must be at.
        expect: Revision,
    },
}

impl Write {
    /// Returns the key that it touches.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Put { record, .. } => record.key,
            Self::Delete { key, .. } => *key,
        }
    }
}

/// The right of one host to write the records of one node, until another acquires it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The scope: the node whose records it drives.
    pub node: NodeId,
    /// Who holds it.
    pub host: HostId,
    /// Higher with each acquisition.
    pub epoch: Epoch,
}

/// Which records to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of this kind.
    pub kind: Kind,
    /// In one of these states; empty means any.
    pub states: Vec<String>,
    /// Below this parent.
    pub parent: Option<Uuid>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Whose id ends with these hex digits (lower case, no hyphens).
    pub id_suffix: Option<String>,
    /// Continue after this place in the order.
    pub after: Option<Cursor>,
    /// At most this many, 1 to [`Query::MAX_LIMIT`].
    pub limit: u32,
}

impl Query {
    /// The most records that one page holds.
    pub const MAX_LIMIT: u32 = 1_000;

    /// Makes a query for the newest of a kind.
    #[must_use]
    pub fn newest(kind: Kind, limit: u32) -> Self {
        Self {
            kind,
            states: Vec::new(),
            parent: None,
            owner: None,
            id_suffix: None,
            after: None,
            limit,
        }
    }
}

/// A place in the order of a list: newest first, by time, then by id, both descending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The time of the last record seen.
    pub at: Timestamp,
    /// Its id.
    pub id: Uuid,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The records, newest first.
    pub records: Vec<Stored>,
    /// Where to go on; `None` if this was the last page.
    pub next: Option<Cursor>,
}

/// That one record was written, or deleted, by one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The batch.
    pub number: ChangeNumber,
    /// The record.
    pub key: RecordKey,
    /// Its parent.
    pub parent: Option<Uuid>,
    /// Its owner.
    pub owner: Option<String>,
    /// The state that it was put in; `None` if it was deleted.
    pub state: Option<String>,
    /// Its revision after the write.
    pub revision: Revision,
}

/// One page of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangePage {
    /// In order of their number, then as written in the batch. A batch is never cut in two.
    pub changes: Vec<Change>,
    /// The number of the last committed batch, 0 for an empty store.
    pub last: ChangeNumber,
}

/// What [`ProcessStore::check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Records that can be read.
    pub records: u64,
    /// Records that were set aside because they cannot be read: name as far as it is known, and why.
    pub set_aside: Vec<String>,
    /// What is wrong with the store as a whole.
    pub problems: Vec<String>,
}

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ProcessStoreError {
    /// What is stored is not what the write expected; nothing of the batch was written.
    #[error("{key} is at revision {found:?}, expected {expected:?}")]
    Conflict {
        /// The record.
        key: RecordKey,
        /// What the batch expected.
        expected: Expect,
        /// What is there; `None` if it is absent.
        found: Option<Revision>,
    },
    /// A higher epoch was acquired for this node; nothing of the batch was written.
    #[error("epoch {held:?} was superseded by {current:?}")]
    Superseded {
        /// The epoch of the lease that was given.
        held: Epoch,
        /// The node's epoch.
        current: Epoch,
    },
    /// The batch breaks the contract (empty, key twice, state too long); nothing was written.
    #[error("invalid batch: {reason}")]
    Invalid {
        /// What is wrong.
        reason: &'static str,
    },
    /// The record is there but cannot be read; it was set aside and the rest is usable.
    #[error("{key} is damaged: {reason}")]
    Damaged {
        /// The record.
        key: RecordKey,
        /// What is wrong.
        reason: String,
    },
    /// The store was written by a newer version and is left alone.
    #[error("the store has format {found}, this version knows up to {known}")]
    Newer {
        /// The format that was found.
        found: u32,
        /// The newest format that is known.
        known: u32,
    },
    /// There is no room on the disk; nothing of the batch was written.
    #[error("no space left for the store")]
    Full,
    /// The backend failed; a write may or may not have happened.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A small transactional record store.
///
/// This is the contract for implementors; callers want [`ProcessStoreExt`].
///
/// # Contract
///
/// - A returned `Ok` from [`acquire`](Self::acquire) or [`commit`](Self::commit) is durable against power loss.
/// - A batch is atomic. Batches have consecutive change numbers, and whoever sees a batch sees every earlier one.
/// - Concurrent commits may share a sync; a refusal of one changes nothing for its neighbours.
/// - An error other than [`ProcessStoreError::Backend`] is a refusal: nothing happened.
/// - Opening the same place again is a restart: what was acknowledged is there.
///
/// # Cancel safety
///
/// Dropping a returned future leaves the operation either fully applied or not applied, never partly.
///
/// # Example
///
/// ```
/// # use windlass_core::process_store::*;
/// # use windlass_core::id::*;
/// # async fn doc(store: &dyn ProcessStore, host: HostId, node: NodeId, record: Record) -> Result<(), ProcessStoreError> {
/// let lease = store.acquire(host, node).await?;
/// let key = record.key;
/// let created = store.commit(vec![Write::Put { record, expect: Expect::Absent }], lease).await?;
/// assert_eq!(store.require(key).await?.change, created);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait ProcessStore: fmt::Debug + Send + Sync + 'static {
    /// Takes over the records of `node`: raises its epoch by one and gives it to `host`.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Backend`]; the epoch may have been raised.
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError>;

    /// Writes all of `batch` or nothing, if `lease` still holds and every expectation is met.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Conflict`], [`Superseded`](ProcessStoreError::Superseded),
    /// [`Invalid`](ProcessStoreError::Invalid), [`Full`](ProcessStoreError::Full): nothing was written.
    /// [`Backend`](ProcessStoreError::Backend): unknown.
    async fn commit(
        &self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError>;

    /// Reads one record.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Damaged`] if it is there but unreadable.
    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError>;

    /// Reads one page of records, newest first. The cost is that of what it returns, not of what is stored.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Invalid`] for a limit out of range. A damaged record is left out, not an error.
    async fn list(&self, query: Query) -> Result<Page, ProcessStoreError>;

    /// Reads the changes after `after`, whole batches, until at least `limit` changes or the end.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Backend`].
    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError>;

    /// Reads everything once and reports what is damaged.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Backend`] if not even that can be done.
    async fn check(&self) -> Result<CheckReport, ProcessStoreError>;
}

/// What callers of a [`ProcessStore`] want on top.
pub trait ProcessStoreExt: ProcessStore {
    /// Reads one record that must be there.
    ///
    /// # Errors
    ///
    /// As [`ProcessStore::get`]; [`ProcessStoreError::Conflict`] with `found: None` if it is absent.
    fn require(
        &self,
        key: RecordKey,
    ) -> impl Future<Output = Result<Stored, ProcessStoreError>> + Send {
        async move {
            self.get(key).await?.ok_or(ProcessStoreError::Conflict {
                key,
                expected: Expect::At(Revision(1)),
                found: None,
            })
        }
    }

    /// Reads all pages of a query.
    ///
    /// # Errors
    ///
    /// As [`ProcessStore::list`].
    fn list_all(
        &self,
        mut query: Query,
    ) -> impl Future<Output = Result<Vec<Stored>, ProcessStoreError>> + Send {
        async move {
            query.limit = Query::MAX_LIMIT;
            let mut all = Vec::new();
            loop {
                let page = self.list(query.clone()).await?;
                all.extend(page.records);
                match page.next {
                    Some(next) => query.after = Some(next),
                    None => return Ok(all),
                }
            }
        }
    }
}

impl<T: ProcessStore + ?Sized> ProcessStoreExt for T {}

/// Checks what every backend must refuse before it looks at anything.
///
/// # Errors
///
/// [`ProcessStoreError::Invalid`].
pub fn validate(batch: &[Write]) -> Result<(), ProcessStoreError> {
    let invalid = |reason| Err(ProcessStoreError::Invalid { reason });
    if batch.is_empty() {
        return invalid("it is empty");
    }
    let mut keys: Vec<_> = batch.iter().map(Write::key).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return invalid("it names a record twice");
    }
    for write in batch {
        if let Write::Put { record, .. } = write {
            if i64::try_from(record.at.0).is_err() {
                return invalid("a time is out of range");
            }
            let word =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if record.state.is_empty() || record.state.len() > 32 || !record.state.bytes().all(word)
            {
                return invalid("a state is not a short word");
            }
        }
    }
    Ok(())
}

/// Checks what every backend must refuse of a query before it looks at anything.
///
/// # Errors
///
/// [`ProcessStoreError::Invalid`].
pub fn validate_query(query: &Query) -> Result<(), ProcessStoreError> {
    let invalid = |reason| Err(ProcessStoreError::Invalid { reason });
    if query.limit == 0 || query.limit > Query::MAX_LIMIT {
        return invalid("the limit is out of range");
    }
    if let Some(suffix) = &query.id_suffix {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if suffix.is_empty() || suffix.len() > 32 || !suffix.bytes().all(digit) {
            return invalid("an id suffix is not 1 to 32 lower-case hex digits");
        }
    }
    Ok(())
}
