//! Random histories of a [`ProcessStore`], with calls that are dropped and restarts at any place, held against every state
//! that the contract allows.
//!
//! The yardstick never sees an answer of the store. Where the contract leaves open what happens, it goes on with each
//! possibility: a commit whose future was dropped may be applied at any later moment, or never, until a higher epoch
//! fences it off. The store has to be in one of these states after each step, answer as that state does, and never go
//! back to one that it has left.
#![expect(clippy::panic, reason = "a history that fails panics")]

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::{join_all, poll_immediate};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tokio::runtime::Runtime;
use uuid::Uuid;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    ChangeNumber, Expect, Kind, Lease, ProcessStore, Query, Record, RecordKey, Revision, Write,
};
use windlass_core::time::Timestamp;

use super::ProcessStorePlace;
use super::reference::{Answer, Reference, Visible};
use crate::histories::{self, Fault};

/// Above so many possibilities no call is dropped any more.
const MANY: usize = 24;
const KINDS: [Kind; 2] = [Kind::Execution, Kind::Attempt];
const STATES: [&str; 3] = ["queued", "running", "ended"];

/// Expands random histories over places: `process_store_histories! { memory => Memory }`.
#[macro_export]
macro_rules! process_store_histories {
    ($($name:ident => $place:ty),+ $(,)?) => {
        $(mod $name {
            #[test]
            fn a_random_history_stays_within_what_is_allowed() {
                $crate::process_store::model::random_histories::<$place>();
            }
        })+
    };
}

/// Runs random histories on fresh places.
///
/// # Panics
///
/// When the store is in a state that the contract does not allow; with the shortest history found that leads there.
pub fn random_histories<P: ProcessStorePlace + 'static>() {
    histories::run::<Histories<P>>();
}

/// A batch and whose right it is written with.
type Commit = (Vec<Write>, Lease);

/// One step of a history.
#[derive(Clone)]
enum Step {
    Acquire { host: HostId, node: NodeId },
    Commit { commits: Vec<Commit>, fault: Fault },
    List(Query),
    Check,
    Reopen,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquire { host, node } => write!(f, "acquire {node:?} for {host:?}"),
            Self::Commit { commits, fault } => write!(f, "commit ({fault:?}) {commits:?}"),
            Self::List(query) => write!(f, "{query:?}"),
            Self::Check => f.write_str("check"),
            Self::Reopen => f.write_str("reopen"),
        }
    }
}

/// A state that is allowed, and what it answered to the last step.
#[derive(Clone, Debug, Default, PartialEq)]
struct Possible {
    store: Reference,
    /// What was dropped under way and may still be applied.
    late: Vec<Commit>,
    answers: Vec<Answer>,
}

/// All states that are allowed.
#[derive(Clone, Debug)]
struct Allowed(Vec<Possible>);

impl Allowed {
    fn after(&self, step: &Step) -> Self {
        let mut next = Vec::new();
        for before in &self.0 {
            let mut before = before.clone();
            before.answers.clear();
            match step {
                Step::Acquire { host, node } => {
                    for mut possible in reached(before, &[]) {
                        let lease = possible.store.acquire(*host, *node);
                        possible.answers.push(Answer::Done(lease.epoch.0));
                        // An older epoch changes nothing.
                        possible.late.retain(|(_, late)| {
                            late.node != *node || (late.host, late.epoch) == (*host, lease.epoch)
                        });
                        next.push(possible);
                    }
                }
                Step::Commit { commits, fault: Fault::None } => {
                    next.extend(reached(before, commits));
                }
                Step::Commit { commits, fault: Fault::Dropped } => {
                    before.late.extend(commits.iter().cloned());
                    next.extend(reached(before, &[]));
                }
                Step::Commit { fault: Fault::Unbegun, .. }
                | Step::List(_)
                | Step::Check
                | Step::Reopen => next.extend(reached(before, &[])),
            }
        }
        let mut allowed: Vec<Possible> = Vec::new();
        for possible in next {
            if !allowed.contains(&possible) {
                allowed.push(possible);
            }
        }
        Self(allowed)
    }
}

/// Returns the states that can be there once all of `commits` were answered, in any order, with any of what is late before,
/// between and after.
fn reached(from: Possible, commits: &[Commit]) -> Vec<Possible> {
    let mut found = Vec::new();
    let open: Vec<usize> = (0..commits.len()).collect();
    let answers = vec![None; commits.len()];
    explore(&from, commits, &open, &answers, &mut found);
    found
}

fn explore(
    from: &Possible,
    commits: &[Commit],
    open: &[usize],
    answers: &[Option<Answer>],
    found: &mut Vec<Possible>,
) {
    if open.is_empty() {
        let answers = answers.iter().copied().flatten().collect();
        let possible = Possible { answers, ..from.clone() };
        if found.contains(&possible) {
            return;
        }
        found.push(possible);
    }
    for &nth in open {
        let (batch, lease) = &commits[nth];
        let (mut next, mut answers) = (from.clone(), answers.to_vec());
        answers[nth] = Some(next.store.commit(batch, *lease));
        let open: Vec<usize> = open.iter().copied().filter(|other| *other != nth).collect();
        explore(&next, commits, &open, &answers, found);
    }
    for late in 0..from.late.len() {
        let mut next = from.clone();
        let (batch, lease) = next.late.remove(late);
        if matches!(next.store.commit(&batch, lease), Answer::Done(_)) {
            explore(&next, commits, open, answers, found);
        }
    }
}

fn host(nth: u64) -> HostId {
    HostId(Uuid::from_u64_pair(1, nth))
}

fn node(nth: u64) -> NodeId {
    NodeId(Uuid::from_u64_pair(2, nth))
}

/// What one write is made of.
type Draft = (usize, u8, u8, u8, bool);

fn write((name, expectation, content, at, delete): Draft, store: &Reference) -> Write {
    let id = Uuid::from_u64_pair(3, (name / 2) as u64);
    let key = RecordKey { kind: KINDS[name % 2], id };
    let found = store.revision(key);
    // Mostly what is there.
    let expect = match expectation {
        0 => Expect::Absent,
        1 => Expect::At(Revision(u64::from(content % 3))),
        _ => found.map_or(Expect::Absent, Expect::At),
    };
    match expect {
        Expect::At(expect) if delete => Write::Delete { key, expect },
        Expect::At(_) | Expect::Absent => {
            let parent = (content % 2 == 0).then(|| Uuid::from_u64_pair(4, u64::from(content % 3)));
            let record = Record {
                key,
                parent,
                owner: (content % 3 == 0).then(|| format!("owner {}", content % 2)),
                state: STATES[usize::from(content) % STATES.len()].to_owned(),
                at: Timestamp(u64::from(at)),
                body: format!("\"{}\"", "x".repeat(usize::from(content) * 20)),
            };
            Write::Put { record, expect }
        }
    }
}

fn draft() -> impl Strategy<Value = Draft> {
    (0..8_usize, 0..10_u8, any::<u8>(), 0..4_u8, any::<bool>())
}

fn lease(store: &Reference, nth: u64, doubt: u8) -> Lease {
    let (node, current) = (node(nth), store.epoch(node(nth)));
    match doubt {
        0 => Lease { node, host: host(nth), epoch: Epoch(current.0.saturating_sub(1)) },
        1 => Lease { node, host: host(nth + 1), epoch: current },
        _ => Lease { node, host: host(nth), epoch: current },
    }
}

fn commits(state: &Allowed) -> BoxedStrategy<Step> {
    let store = state.0.first().map(|possible| possible.store.clone()).unwrap_or_default();
    let fault = histories::fault(state.0.len() > MANY);
    let batch = (prop::collection::vec(draft(), 1..4), 0..2_u64, 0..12_u8);
    (prop::collection::vec(batch, 1..=3), 0..4_u8, fault)
        .prop_map(move |(batches, together, fault)| {
            // Three at a time are the exception.
            let count = if together == 0 { batches.len() } else { 1 };
            let commits = batches.into_iter().take(count);
            let commits = commits.map(|(drafts, nth, doubt)| {
                let batch = drafts.into_iter().map(|draft| write(draft, &store)).collect();
                (batch, lease(&store, nth, doubt))
            });
            Step::Commit { commits: commits.collect(), fault }
        })
        .boxed()
}

fn queries() -> impl Strategy<Value = Step> {
    (0..2_usize, 0..4_usize, 0..4_u64, 0..3_u8, 1..5_u32, 0..3_u8).prop_map(
        |(kind, states, parent, owner, limit, suffix)| {
            let mut query = Query::newest(KINDS[kind], limit);
            query.states = STATES.iter().take(states % 3).map(|&state| state.to_owned()).collect();
            query.parent = (parent < 3).then(|| Uuid::from_u64_pair(4, parent));
            query.owner = (owner < 2).then(|| format!("owner {owner}"));
            query.id_suffix = (suffix == 0).then(|| format!("0{parent:x}"));
            Step::List(query)
        },
    )
}

/// The histories, as their yardstick knows them.
#[derive(Debug)]
struct Contract;

impl ReferenceStateMachine for Contract {
    type State = Allowed;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Allowed> {
        Just(Allowed(vec![Possible::default()])).boxed()
    }

    fn transitions(state: &Allowed) -> BoxedStrategy<Step> {
        let acquire = (0..2_u64).prop_map(|nth| Step::Acquire { host: host(nth), node: node(nth) });
        let fresh = state.0.iter().any(|possible| possible.store.epoch(node(0)) == Epoch(0));
        prop_oneof![
            if fresh { 30 } else { 2 } => acquire,
            10 => commits(state),
            2 => queries(),
            1 => Just(Step::Check),
            2 => Just(Step::Reopen),
        ]
        .boxed()
    }

    fn apply(state: Allowed, step: &Step) -> Allowed {
        state.after(step)
    }
}

/// A store in the midst of a history.
struct Subject<P> {
    runtime: Runtime,
    place: P,
    store: Option<Arc<dyn ProcessStore>>,
    /// What it may still be in, by all that was seen of it.
    allowed: Allowed,
}

/// Random histories on places of this kind.
struct Histories<P>(PhantomData<P>);

/// What a step showed.
#[derive(Debug)]
enum Shown {
    Answers(Vec<Answer>),
    /// The answers may come yet.
    Nothing,
    Page(Vec<RecordKey>),
    Count(u64),
}

/// Reads everything, as it is at one moment: anew if something late comes meanwhile, which ends with what is late.
async fn look(store: &dyn ProcessStore) -> Result<Visible, String> {
    loop {
        let before = last(store).await?;
        let visible = Visible::of(store, &Kind::ALL).await?;
        let each = visible.is_each_alone(store).await;
        if last(store).await? == before {
            return each.map(|()| visible);
        }
    }
}

async fn last(store: &dyn ProcessStore) -> Result<ChangeNumber, String> {
    let page = store.changes(ChangeNumber(u64::MAX), 1).await;
    page.map(|page| page.last).map_err(|error| format!("the changes failed: {error}"))
}

impl<P: ProcessStorePlace> Subject<P> {
    async fn perform(&mut self, step: &mut Step) -> Shown {
        let store = self.store.clone().expect("an open store");
        match step {
            Step::Acquire { host, node } => {
                let lease = store.acquire(*host, *node).await.expect("a lease");
                assert_eq!((lease.host, lease.node), (*host, *node));
                Shown::Answers(vec![Answer::Done(lease.epoch.0)])
            }
            Step::Commit { commits, fault } => {
                let calls =
                    commits.iter().map(|(batch, lease)| store.commit(batch.clone(), *lease));
                let calls = join_all(calls);
                let answers = match fault {
                    Fault::None => Some(calls.await),
                    Fault::Unbegun => None,
                    Fault::Dropped => poll_immediate(calls).await,
                };
                let Some(answers) = answers else { return Shown::Nothing };
                // Some answer at once; then nothing is open.
                *fault = Fault::None;
                let known = answers
                    .iter()
                    .map(|answer| Answer::of(answer).unwrap_or_else(|| panic!("{answer:?}")));
                Shown::Answers(known.collect())
            }
            Step::List(query) => {
                let page = store.list(query.clone()).await.expect("a page");
                Shown::Page(page.records.iter().map(|stored| stored.record.key).collect())
            }
            Step::Check => {
                let report = store.check().await.expect("a report");
                assert!(report.set_aside.is_empty() && report.problems.is_empty(), "{report:?}");
                Shown::Count(report.records)
            }
            Step::Reopen => {
                drop(store);
                self.store = None;
                self.store = Some(self.place.open().await);
                Shown::Nothing
            }
        }
    }

    async fn take(&mut self, mut step: Step) {
        let shown = self.perform(&mut step).await;
        let visible = look(&**self.store.as_ref().expect("an open store")).await;
        let visible = visible.unwrap_or_else(|why| panic!("{why}"));
        let next = self.allowed.after(&step);
        // While it was looked at, something late may have come.
        let meanwhile: Vec<Possible> =
            self.allowed.0.iter().flat_map(|before| reached(before.clone(), &[])).collect();
        let fits = |possible: &&Possible| {
            let shows = match (&shown, &step) {
                (Shown::Answers(answers), _) => possible.answers == *answers,
                (Shown::Page(page), Step::List(query)) => {
                    meanwhile.iter().any(|then| then.store.visible().page(query) == *page)
                }
                (Shown::Count(count), _) => {
                    meanwhile.iter().any(|then| then.store.visible().records.len() as u64 == *count)
                }
                (Shown::Nothing | Shown::Page(_), _) => true,
            };
            shows && *possible.store.visible() == visible
        };
        let kept: Vec<Possible> = next.0.iter().filter(fits).cloned().collect();
        if kept.is_empty() {
            let differences: Vec<_> = next
                .0
                .iter()
                .map(|possible| (&possible.answers, visible.difference(possible.store.visible())))
                .collect();
            panic!(
                "after {step:?} and {shown:?} it is in no state that is allowed: {differences:?}"
            );
        }
        self.allowed = Allowed(kept);
    }
}

impl<P: ProcessStorePlace + 'static> StateMachineTest for Histories<P> {
    type SystemUnderTest = Subject<P>;
    type Reference = Contract;

    fn init_test(allowed: &Allowed) -> Subject<P> {
        let runtime = crate::runtime();
        let place = P::default();
        let store = Some(runtime.block_on(place.open()));
        Subject { runtime, place, store, allowed: allowed.clone() }
    }

    fn apply(mut subject: Subject<P>, _: &Allowed, step: Step) -> Subject<P> {
        let runtime = subject.runtime.handle().clone();
        runtime.block_on(subject.take(step));
        subject
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(n: u64, expect: Expect) -> Vec<Write> {
        let draft = (usize::try_from(n).unwrap(), 9, 1, 1, false);
        let Write::Put { record, .. } = write(draft, &Reference::default()) else { unreachable!() };
        vec![Write::Put { record, expect }]
    }

    fn begun() -> (Allowed, Lease) {
        let allowed = Allowed(vec![Possible::default()]);
        let allowed = allowed.after(&Step::Acquire { host: host(0), node: node(0) });
        (allowed, Lease { node: node(0), host: host(0), epoch: Epoch(1) })
    }

    fn lasts(allowed: &Allowed) -> Vec<u64> {
        let mut lasts: Vec<u64> =
            allowed.0.iter().map(|possible| possible.store.visible().last.0).collect();
        lasts.sort_unstable();
        lasts.dedup();
        lasts
    }

    #[test]
    fn a_dropped_commit_may_come_late_until_it_is_fenced_off() {
        let (allowed, lease) = begun();
        let commits = vec![(put(0, Expect::Absent), lease)];
        let dropped = allowed.after(&Step::Commit { commits, fault: Fault::Dropped });
        assert_eq!(lasts(&dropped), [0, 1]);
        let commits = vec![(put(2, Expect::Absent), lease)];
        let next = dropped.after(&Step::Commit { commits, fault: Fault::None });
        assert_eq!(lasts(&next), [1, 2]);
        assert!(next.0.iter().any(|possible| !possible.late.is_empty()));
        let fenced = next.after(&Step::Acquire { host: host(0), node: node(0) });
        assert!(fenced.0.iter().all(|possible| possible.late.is_empty()));
        assert_eq!(lasts(&fenced), [1, 2]);
    }

    #[test]
    fn commits_at_the_same_time_come_in_any_order() {
        let (allowed, lease) = begun();
        let same = vec![(put(0, Expect::Absent), lease); 2];
        let next = allowed.after(&Step::Commit { commits: same, fault: Fault::None });
        let winners: Vec<usize> = next
            .0
            .iter()
            .map(|possible| {
                possible.answers.iter().position(|answer| *answer == Answer::Done(1)).unwrap()
            })
            .collect();
        assert_eq!(winners, [0, 1]);
    }
}
