//! Decides a group of batches against what is stored, and sums up what has to be written. Pure.
//!
//! All batches of a group share one transaction and one sync. Each is decided before anything is written, on top of those
//! accepted before it; so a refused one has nothing to undo and its neighbours do not notice. What is written is the sum: a
//! record that two batches wrote is written once, but both are in the change log.

use std::collections::BTreeMap;
use std::mem;

use uuid::Uuid;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    ChangeNumber, Expect, Lease, ProcessStoreError, Record, RecordKey, Revision, Write,
};
use windlass_core::time::Timestamp;

/// One batch of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) writes: &'a [Write],
    pub(crate) lease: Lease,
}

/// What the store has of everything that the group touches.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// The last change number.
    pub(crate) last: u64,
    /// Who holds which node.
    pub(crate) leases: BTreeMap<NodeId, (HostId, Epoch)>,
    /// The rows of the keys that are there.
    pub(crate) rows: BTreeMap<RecordKey, Row>,
}

/// The row of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its number in the table.
    pub(crate) n: i64,
    /// What else is read of it, or why it cannot be.
    pub(crate) content: Result<Content, String>,
}

/// The columns of a row that decide how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) revision: Revision,
    pub(crate) parent: Option<Uuid>,
    pub(crate) owner: Option<String>,
    pub(crate) at: Timestamp,
}

/// What has to be written, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum<'a> {
    /// Rows to remove.
    pub(crate) deletes: Vec<i64>,
    /// Rows of which only state, revision, change and body differ: fewer indexes to touch.
    pub(crate) updates: Vec<(i64, Version<'a>)>,
    /// Rows to add.
    pub(crate) inserts: Vec<Version<'a>>,
    /// The entries of the change log.
    pub(crate) changes: Vec<Entry<'a>>,
}

/// One version of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version<'a> {
    pub(crate) record: &'a Record,
    pub(crate) revision: Revision,
    pub(crate) change: ChangeNumber,
}

/// One entry of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) number: ChangeNumber,
    pub(crate) ordinal: usize,
    pub(crate) key: RecordKey,
    pub(crate) parent: Option<Uuid>,
    pub(crate) owner: Option<OwnerOf<'a>>,
    pub(crate) state: Option<&'a str>,
    pub(crate) revision: Revision,
}

/// An owner's name: of the batch, or of the row that a batch deletes.
pub(crate) type OwnerOf<'a> = std::borrow::Cow<'a, str>;

/// One record while the group is decided.
#[derive(Debug)]
enum Now<'a> {
    Stored(Revision),
    Written(Version<'a>),
    Absent,
    Damaged(String),
}

/// The answers, in the order of the batches, and what has to be written.
#[derive(Debug)]
pub(crate) struct Decided<'a> {
    pub(crate) answers: Vec<Result<ChangeNumber, ProcessStoreError>>,
    pub(crate) sum: Sum<'a>,
}

/// Decides `batches` one after the other.
pub(crate) fn decide<'a>(batches: &[Batch<'a>], before: &Before) -> Decided<'a> {
    let mut deciding =
        Deciding { before, last: before.last, now: BTreeMap::new(), changes: Vec::new() };
    let answers = batches.iter().map(|batch| deciding.batch(batch)).collect();
    Decided { answers, sum: deciding.sum() }
}

struct Deciding<'a, 'b> {
    before: &'b Before,
    last: u64,
    now: BTreeMap<RecordKey, Now<'a>>,
    changes: Vec<Entry<'a>>,
}

impl<'a> Deciding<'a, '_> {
    fn batch(&mut self, batch: &Batch<'a>) -> Result<ChangeNumber, ProcessStoreError> {
        self.check_lease(batch.lease)?;
        for write in batch.writes {
            self.check(write)?;
        }
        self.last += 1;
        let number = ChangeNumber(self.last);
        for (ordinal, write) in batch.writes.iter().enumerate() {
            self.apply(number, ordinal, write);
        }
        Ok(number)
    }

    fn check_lease(&self, lease: Lease) -> Result<(), ProcessStoreError> {
        let holder = self.before.leases.get(&lease.node);
        if holder == Some(&(lease.host, lease.epoch)) {
            return Ok(());
        }
        let current = holder.map_or(Epoch(0), |(_, epoch)| *epoch);
        Err(ProcessStoreError::Superseded { held: lease.epoch, current })
    }

    fn check(&mut self, write: &Write) -> Result<(), ProcessStoreError> {
        let key = write.key();
        let expected = match write {
            Write::Put { expect, .. } => *expect,
            Write::Delete { expect, .. } => Expect::At(*expect),
        };
        let found = match self.now(key) {
            Now::Stored(revision) | Now::Written(Version { revision, .. }) => Some(*revision),
            Now::Absent => None,
            Now::Damaged(reason) => {
                return Err(ProcessStoreError::Damaged { key, reason: reason.clone() });
            }
        };
        let met = match expected {
            Expect::Absent => found.is_none(),
            Expect::At(revision) => found == Some(revision),
        };
        if met { Ok(()) } else { Err(ProcessStoreError::Conflict { key, expected, found }) }
    }

    fn now(&mut self, key: RecordKey) -> &mut Now<'a> {
        let before = self.before;
        self.now.entry(key).or_insert_with(|| match before.rows.get(&key) {
            None => Now::Absent,
            Some(Row { content: Ok(content), .. }) => Now::Stored(content.revision),
            Some(Row { content: Err(reason), .. }) => Now::Damaged(reason.clone()),
        })
    }

    fn apply(&mut self, number: ChangeNumber, ordinal: usize, write: &'a Write) {
        let key = write.key();
        let entry = match write {
            Write::Put { record, expect } => {
                let revision = match expect {
                    Expect::Absent => Revision(1),
                    Expect::At(Revision(revision)) => Revision(revision + 1),
                };
                *self.now(key) = Now::Written(Version { record, revision, change: number });
                Entry {
                    number,
                    ordinal,
                    key,
                    parent: record.parent,
                    owner: record.owner.as_deref().map(OwnerOf::Borrowed),
                    state: Some(&record.state),
                    revision,
                }
            }
            Write::Delete { expect: Revision(revision), .. } => {
                let was = mem::replace(self.now(key), Now::Absent);
                let (parent, owner) = self.belongings(key, &was);
                let revision = Revision(revision + 1);
                Entry { number, ordinal, key, parent, owner, state: None, revision }
            }
        };
        self.changes.push(entry);
    }

    /// Returns parent and owner of a record that is being deleted.
    fn belongings(&self, key: RecordKey, was: &Now<'a>) -> (Option<Uuid>, Option<OwnerOf<'a>>) {
        match was {
            Now::Written(Version { record, .. }) => {
                (record.parent, record.owner.as_deref().map(OwnerOf::Borrowed))
            }
            Now::Stored(_) => match self.before.rows.get(&key) {
                Some(Row { content: Ok(content), .. }) => {
                    (content.parent, content.owner.clone().map(OwnerOf::Owned))
                }
                _ => (None, None),
            },
            Now::Absent | Now::Damaged(_) => (None, None),
        }
    }

    fn sum(self) -> Sum<'a> {
        let mut sum = Sum { changes: self.changes, ..Sum::default() };
        for (key, now) in &self.now {
            match (self.before.rows.get(key), now) {
                (None, Now::Written(version)) => sum.inserts.push(*version),
                (Some(row), Now::Written(version)) if stays(row, version.record) => {
                    sum.updates.push((row.n, *version));
                }
                (Some(row), Now::Written(version)) => {
                    sum.deletes.push(row.n);
                    sum.inserts.push(*version);
                }
                (Some(row), Now::Absent) => sum.deletes.push(row.n),
                (None, Now::Absent) | (_, Now::Stored(_) | Now::Damaged(_)) => {}
            }
        }
        sum
    }
}

/// Says whether the row keeps what most indexes are made of.
fn stays(row: &Row, record: &Record) -> bool {
    row.content.as_ref().is_ok_and(|content| {
        content.parent == record.parent && content.owner == record.owner && content.at == record.at
    })
}

#[cfg(test)]
mod tests {
    use windlass_core::process_store::Kind;

    use super::*;

    const HOLDER: (HostId, Epoch) = (HostId(Uuid::from_u128(1)), Epoch(3));
    const NODE: NodeId = NodeId(Uuid::from_u128(2));
    const LEASE: Lease = Lease { node: NODE, host: HOLDER.0, epoch: HOLDER.1 };

    fn key(n: u128) -> RecordKey {
        RecordKey { kind: Kind::Task, id: Uuid::from_u128(n) }
    }

    fn record(n: u128, body: &str) -> Record {
        Record {
            key: key(n),
            parent: None,
            owner: None,
            state: "queued".to_owned(),
            at: Timestamp(5),
            body: body.to_owned(),
        }
    }

    fn put(n: u128, body: &str, expect: Expect) -> Write {
        Write::Put { record: record(n, body), expect }
    }

    /// Records 1 and 2 are there, at revision 4, in rows 10 and 20; 9 is damaged.
    fn before() -> Before {
        let content =
            Content { revision: Revision(4), parent: None, owner: None, at: Timestamp(5) };
        let row = |n| Row { n, content: Ok(content.clone()) };
        let damaged = Row { n: 90, content: Err("rotten".to_owned()) };
        Before {
            last: 100,
            leases: BTreeMap::from([(NODE, HOLDER)]),
            rows: BTreeMap::from([(key(1), row(10)), (key(2), row(20)), (key(9), damaged)]),
        }
    }

    const AT_4: Expect = Expect::At(Revision(4));

    /// Decides batches under the valid lease; returns which numbers were given, and passes the sum to `look`.
    fn check(batches: &[Vec<Write>], look: impl FnOnce(&Sum<'_>)) -> Vec<Option<u64>> {
        let batches: Vec<_> = batches.iter().map(|writes| Batch { writes, lease: LEASE }).collect();
        let decided = decide(&batches, &before());
        look(&decided.sum);
        decided.answers.iter().map(|answer| answer.as_ref().ok().map(|number| number.0)).collect()
    }

    fn names(versions: &[Version<'_>]) -> Vec<(RecordKey, u64, u64)> {
        let name = |v: &Version<'_>| (v.record.key, v.revision.0, v.change.0);
        versions.iter().map(name).collect()
    }

    #[test]
    fn a_refused_batch_leaves_no_trace_between_its_neighbours() {
        let batches = [
            vec![put(3, "a", Expect::Absent)],
            vec![put(4, "b", Expect::Absent), put(1, "b", Expect::Absent)],
            vec![put(4, "c", Expect::Absent)],
        ];
        let numbers = check(&batches, |sum| {
            assert_eq!(names(&sum.inserts), [(key(3), 1, 101), (key(4), 1, 102)]);
            assert_eq!((sum.deletes.len(), sum.updates.len(), sum.changes.len()), (0, 0, 2));
        });
        assert_eq!(numbers, [Some(101), None, Some(102)]);
    }

    #[test]
    fn a_record_that_several_batches_write_is_written_once_and_told_each_time() {
        let batches = [
            vec![put(1, "a", AT_4)],
            vec![put(1, "stale", AT_4)],
            vec![put(1, "b", Expect::At(Revision(5)))],
        ];
        let numbers = check(&batches, |sum| {
            let updated: Vec<_> =
                sum.updates.iter().map(|(row, version)| (*row, *version)).collect();
            assert_eq!(updated.len(), 1);
            assert_eq!((updated[0].0, &*updated[0].1.record.body), (10, "b"));
            assert_eq!(updated[0].1.revision, Revision(6));
            let told: Vec<_> = sum.changes.iter().map(|e| (e.number.0, e.revision.0)).collect();
            assert_eq!(told, [(101, 5), (102, 6)]);
        });
        assert_eq!(numbers, [Some(101), None, Some(102)]);
    }

    #[test]
    fn what_comes_and_goes_within_a_group_is_only_told() {
        let delete = |n, revision| Write::Delete { key: key(n), expect: Revision(revision) };
        let batches = [
            vec![put(3, "a", Expect::Absent), delete(1, 4)],
            vec![delete(3, 1), put(1, "new", Expect::Absent)],
            vec![delete(2, 4)],
        ];
        let numbers = check(&batches, |sum| {
            assert!(sum.inserts.is_empty());
            assert_eq!(sum.deletes, [20]);
            assert_eq!(sum.updates[0].1.revision, Revision(1), "a new life begins at 1");
            let told: Vec<_> = sum.changes.iter().map(|e| (e.key, e.state, e.revision.0)).collect();
            let queued = Some("queued");
            let expected = [
                (key(3), queued, 1),
                (key(1), None, 5),
                (key(3), None, 2),
                (key(1), queued, 1),
                (key(2), None, 5),
            ];
            assert_eq!(told, expected);
        });
        assert_eq!(numbers, [Some(101), Some(102), Some(103)]);
    }

    #[test]
    fn a_record_that_moves_in_the_indexes_is_inserted_anew() {
        for moved in [
            Record { parent: Some(Uuid::nil()), ..record(1, "a") },
            Record { owner: Some(String::new()), ..record(1, "a") },
            Record { at: Timestamp(6), ..record(1, "a") },
        ] {
            check(&[vec![Write::Put { record: moved, expect: AT_4 }]], |sum| {
                assert_eq!(
                    (&sum.deletes[..], names(&sum.inserts)),
                    (&[10][..], vec![(key(1), 5, 101)])
                );
            });
        }
    }

    #[test]
    fn a_damaged_row_refuses_the_batch_that_names_it_only() {
        let batches = [vec![put(9, "a", Expect::Absent)], vec![put(3, "a", Expect::Absent)]];
        let batches: Vec<_> = batches.iter().map(|writes| Batch { writes, lease: LEASE }).collect();
        let decided = decide(&batches, &before());
        assert!(matches!(
            &decided.answers[..],
            [Err(ProcessStoreError::Damaged { .. }), Ok(ChangeNumber(101))]
        ));
    }
}
