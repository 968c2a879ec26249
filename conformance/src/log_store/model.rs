//! Random histories of a [`LogStore`] that keeps what is appended, with calls that are dropped and restarts at any place,
//! held against every state that the contract allows.
//!
//! What stands at a number of a log is always the same, so that a log is known by its end. A call whose future was
//! dropped may be done at any later moment, an append up to any of its items, or never. The yardstick never sees an
//! answer of the store; the store must be in one of the states that it allows, and never go back to one that it has left.
#![expect(clippy::panic, reason = "a history that fails panics")]

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::poll_immediate;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tokio::runtime::Runtime;
use windlass_core::log_store::{
    From, GapCause, LogItem, LogKey, LogStatus, LogStore, LogStoreError, ReadOptions, Seq, Stream,
};

use super::{LogStorePlace, entry, fresh_log};
use crate::histories::{self, Fault};

/// How many logs a history has.
const LOGS: usize = 2;
/// Above so many possibilities of a log none of its calls is dropped any more.
const MANY: usize = 32;

/// Expands random histories over places of stores that keep what is appended: `log_store_histories! { memory => Memory }`.
#[macro_export]
macro_rules! log_store_histories {
    ($($name:ident => $place:ty),+ $(,)?) => {
        $(mod $name {
            #[test]
            fn a_random_history_stays_within_what_is_allowed() {
                $crate::log_store::model::random_histories::<$place>();
            }
        })+
    };
}

/// Runs random histories on fresh places.
///
/// # Panics
///
/// When the store is in a state that the contract does not allow; with the shortest history found that leads there.
pub fn random_histories<P: LogStorePlace + 'static>() {
    histories::run::<Histories<P>>();
}

/// What a call asks for. Items are those of the log, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Append { first: u64, last: u64 },
    Seal,
    Remove,
}

/// One step of a history.
#[derive(Clone)]
enum Step {
    Call { log: usize, order: Order, fault: Fault },
    Read { log: usize, options: ReadOptions },
    Reopen,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { log, order, fault } => write!(f, "log {log}: {order:?} ({fault:?})"),
            Self::Read { log, options } => write!(f, "log {log}: {options:?}"),
            Self::Reopen => f.write_str("reopen"),
        }
    }
}

/// How a call was answered, without what only people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    End(u64),
    Done,
    NotNext { end: u64, got: u64 },
    Sealed,
}

/// What a log may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    Kept { end: u64, sealed: bool },
}

impl State {
    /// Does what is asked for, of an append only the items up to `most`.
    fn after(self, order: Order, most: u64) -> (Self, Answer) {
        match (order, self) {
            (Order::Remove, _) => (Self::Missing, Answer::Done),
            (Order::Seal, Self::Missing) => (Self::Missing, Answer::Done),
            (Order::Seal, Self::Kept { end, .. }) => {
                (Self::Kept { end, sealed: true }, Answer::Done)
            }
            (Order::Append { first, last }, before) => {
                let (end, sealed) = match before {
                    Self::Missing => (0, false),
                    Self::Kept { end, sealed } => (end, sealed),
                };
                if last > end && sealed {
                    return (before, Answer::Sealed);
                }
                if first > end + 1 && last > end {
                    return (before, Answer::NotNext { end, got: first });
                }
                let end = end.max(last.min(most));
                (Self::Kept { end, sealed }, Answer::End(end))
            }
        }
    }
}

/// A state that is allowed, what may still come to it, and what was answered to the last step.
#[derive(Clone, Debug, PartialEq)]
struct Possible {
    state: State,
    late: Vec<Order>,
    answer: Option<Answer>,
}

/// Adds everything that can be reached by what is late.
fn reached(mut states: Vec<Possible>) -> Vec<Possible> {
    let mut at = 0;
    while let Some(from) = states.get(at).cloned() {
        at += 1;
        for nth in 0..from.late.len() {
            let order = from.late[nth];
            let ends = match order {
                Order::Append { first, last } => first.saturating_sub(1)..=last,
                Order::Seal | Order::Remove => 0..=0,
            };
            for most in ends {
                let mut next = from.clone();
                next.late.remove(nth);
                next.state = from.state.after(order, most).0;
                if !states.contains(&next) {
                    states.push(next);
                }
            }
        }
    }
    states
}

/// All states that are allowed, for each log.
#[derive(Clone, Debug)]
struct Allowed([Vec<Possible>; LOGS]);

impl Allowed {
    fn after(&self, step: &Step) -> Self {
        let mut logs = self.0.clone();
        for (nth, possible) in logs.iter_mut().enumerate() {
            for possible in possible.iter_mut() {
                possible.answer = None;
            }
            let before = reached(std::mem::take(possible));
            let after = before.into_iter().map(|mut possible| {
                match step {
                    Step::Call { log, order, fault } if *log == nth => match fault {
                        Fault::None => {
                            let (state, answer) = possible.state.after(*order, u64::MAX);
                            possible.state = state;
                            possible.answer = Some(answer);
                        }
                        Fault::Unbegun => {}
                        Fault::Dropped => possible.late.push(*order),
                    },
                    Step::Call { .. } | Step::Read { .. } | Step::Reopen => {}
                }
                possible
            });
            let mut unique: Vec<Possible> = Vec::new();
            for possible in after {
                if !unique.contains(&possible) {
                    unique.push(possible);
                }
            }
            *possible = reached(unique);
        }
        Self(logs)
    }
}

/// Returns what stands at a number of a log. Some items are gaps over several numbers.
fn items(log: usize, first: u64, last: u64) -> Vec<LogItem> {
    let mut items = Vec::new();
    let mut seq = first;
    while seq <= last {
        if seq % 7 == 3 {
            let end = seq + 1;
            let (first, last) = (Seq(seq), Some(Seq(end)));
            items.push(LogItem::Gap { first, last, bytes: seq * 10, cause: GapCause::Full });
            seq = end + 1;
        } else {
            let text =
                format!("{log}:{seq}").repeat(1 + usize::try_from(seq % 5).unwrap_or(0) * 40);
            items.push(entry(seq, Stream::Stdout, text.as_bytes()));
            seq += 1;
        }
    }
    items
}

/// Returns the number at which an item ends that has this one.
fn border(seq: u64) -> u64 {
    if seq % 7 == 3 { seq + 1 } else { seq }
}

fn calls(state: &Allowed, log: usize) -> BoxedStrategy<Step> {
    let possible = &state.0[log];
    let end = possible.first().map_or(0, |possible| match possible.state {
        State::Missing => 0,
        State::Kept { end, .. } => end,
    });
    let order = prop_oneof![
        // Mostly what is next; else something again, or too much.
        12 => (0..3_u64, 0..9_u64, 0..12_u8).prop_map(move |(back, count, doubt)| {
            let first = match doubt {
                0 => end + 3,
                1..=3 => end.saturating_sub(back) + 1,
                _ => end + 1,
            };
            // An item is given whole.
            let first = if first % 7 == 4 { first - 1 } else { first };
            Order::Append { first, last: border(first + count) }
        }),
        2 => Just(Order::Seal),
        2 => Just(Order::Remove),
    ];
    let fault = histories::fault(possible.len() > MANY);
    (order, fault).prop_map(move |(order, fault)| Step::Call { log, order, fault }).boxed()
}

fn reads(log: usize) -> impl Strategy<Value = Step> {
    (0..20_u64, any::<bool>(), 1..6_u32, 0..800_u64).prop_map(
        move |(from, tail, max_items, max_bytes)| {
            let from = if tail {
                From::Tail(u32::try_from(from).unwrap_or(0))
            } else {
                From::After(Seq(from))
            };
            Step::Read { log, options: ReadOptions { from, max_items, max_bytes } }
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
        let missing = Possible { state: State::Missing, late: Vec::new(), answer: None };
        Just(Allowed([vec![missing.clone()], vec![missing]])).boxed()
    }

    fn transitions(state: &Allowed) -> BoxedStrategy<Step> {
        prop_oneof![
            5 => calls(state, 0),
            5 => calls(state, 1),
            1 => reads(0),
            1 => reads(1),
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
    store: Option<Arc<dyn LogStore>>,
    keys: [LogKey; LOGS],
    /// What each log may still be, by all that was seen of it.
    allowed: Allowed,
}

/// Random histories on places of this kind.
struct Histories<P>(PhantomData<P>);

fn answer(order: Order, result: Result<Seq, LogStoreError>) -> Answer {
    match (order, result) {
        (Order::Append { .. }, Ok(end)) => Answer::End(end.0),
        (Order::Seal | Order::Remove, Ok(_)) => Answer::Done,
        (_, Err(LogStoreError::NotNext { end, got, .. })) => {
            Answer::NotNext { end: end.0, got: got.0 }
        }
        (_, Err(LogStoreError::Sealed { .. })) => Answer::Sealed,
        (_, Err(error)) => panic!("{order:?}: {error:?}"),
    }
}

async fn call(
    store: &dyn LogStore,
    key: &LogKey,
    log: usize,
    order: Order,
) -> Result<Seq, LogStoreError> {
    match order {
        Order::Append { first, last } => store.append(key, items(log, first, last)).await,
        Order::Seal => store.seal(key).await.map(|()| Seq(0)),
        Order::Remove => store.remove(key).await.map(|()| Seq(0)),
    }
}

async fn status(store: &dyn LogStore, key: &LogKey) -> Option<LogStatus> {
    match store.status(key).await {
        Err(LogStoreError::NotFound { .. }) => None,
        status => Some(status.expect("a status")),
    }
}

/// Reads a log whole, and checks that all that is said of it agrees. Reads anew if something late comes meanwhile, which
/// ends with what is late.
async fn look(store: &dyn LogStore, key: &LogKey, log: usize) -> State {
    let from = From::After(Seq(0));
    let options = ReadOptions { from, max_items: u32::MAX, max_bytes: u64::MAX };
    let (status, page) = loop {
        let before = status(store, key).await;
        let page = store.read(key, options).await;
        if status(store, key).await != before {
            continue;
        }
        match (before, page) {
            (None, Err(LogStoreError::NotFound { .. })) => return State::Missing,
            (Some(status), Ok(page)) => break (status, page),
            (status, page) => panic!("log {log}: {status:?}, and yet {page:?}"),
        }
    };
    assert_eq!(&page.items[..], items(log, 1, status.last.0), "log {log} up to {:?}", status.last);
    assert_eq!((page.next, page.end), (status.last, status.sealed));
    let mut sums = LogStatus { sealed: status.sealed, ..LogStatus::default() };
    page.items.iter().for_each(|item| sums.count(item));
    assert_eq!(status, sums, "log {log}");
    State::Kept { end: status.last.0, sealed: status.sealed }
}

impl<P: LogStorePlace> Subject<P> {
    fn store(&self) -> Arc<dyn LogStore> {
        Arc::clone(self.store.as_ref().expect("an open store"))
    }

    async fn perform(&mut self, step: &mut Step) -> Option<Answer> {
        match step {
            Step::Call { log, order, fault } => {
                let store = self.store();
                let (log, order) = (*log, *order);
                let calling = call(&*store, &self.keys[log], log, order);
                let result = match fault {
                    Fault::None => Some(calling.await),
                    Fault::Unbegun => None,
                    Fault::Dropped => poll_immediate(calling).await,
                };
                let result = result?;
                // Some answer at once; then nothing is open.
                *fault = Fault::None;
                Some(answer(order, result))
            }
            Step::Read { log, options } => {
                self.read(*log, *options).await;
                None
            }
            Step::Reopen => {
                self.store = None;
                self.store = Some(self.place.open().await);
                None
            }
        }
    }

    /// Reads a page and checks that it is a part of the log, as long as it may be.
    async fn read(&self, log: usize, options: ReadOptions) {
        let Ok(page) = self.store().read(&self.keys[log], options).await else { return };
        let most = usize::try_from(options.max_items).unwrap_or(usize::MAX);
        assert!(page.items.len() <= most, "{options:?}: {page:?}");
        for pair in page.items.windows(2) {
            assert_eq!(pair[0].last_seq().0 + 1, pair[1].first_seq().0, "{page:?}");
        }
        if let (Some(first), Some(last)) = (page.items.first(), page.items.last()) {
            // One that begins inside a gap gets the rest of it, or all.
            let begin = first.first_seq().0;
            let expected = items(log, begin, last.last_seq().0);
            assert!(begin % 7 == 4 || page.items[..] == expected[..], "{options:?}: {page:?}");
            assert_eq!(page.next, last.last_seq());
            if let From::After(after) = options.from {
                assert!(begin <= after.0 + 1 && last.last_seq() > after, "{options:?}: {page:?}");
            }
        }
    }

    async fn take(&mut self, mut step: Step) {
        let answered = self.perform(&mut step).await;
        let next = self.allowed.after(&step);
        let store = self.store();
        for (log, possible) in next.0.into_iter().enumerate() {
            let found = look(&*store, &self.keys[log], log).await;
            let asked =
                matches!(step, Step::Call { log: asked, fault: Fault::None, .. } if asked == log);
            let kept: Vec<Possible> = possible
                .iter()
                .filter(|it| it.state == found && (!asked || it.answer == answered))
                .cloned()
                .collect();
            assert!(
                !kept.is_empty(),
                "after {step:?} with {answered:?} log {log} is {found:?}; allowed is {possible:?}"
            );
            self.allowed.0[log] = kept;
        }
    }
}

impl<P: LogStorePlace + 'static> StateMachineTest for Histories<P> {
    type SystemUnderTest = Subject<P>;
    type Reference = Contract;

    fn init_test(allowed: &Allowed) -> Subject<P> {
        let runtime = crate::runtime();
        let place = P::default();
        let store = Some(runtime.block_on(place.open()));
        let keys = [fresh_log(), fresh_log()];
        Subject { runtime, place, store, keys, allowed: allowed.clone() }
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

    fn kept(end: u64) -> Vec<Possible> {
        vec![Possible { state: State::Kept { end, sealed: false }, late: Vec::new(), answer: None }]
    }

    fn states(possible: &[Possible]) -> Vec<State> {
        possible.iter().map(|possible| possible.state).collect()
    }

    #[test]
    fn a_dropped_append_may_come_to_any_of_its_items_at_any_time() {
        let allowed = Allowed([kept(2), kept(0)]);
        let order = Order::Append { first: 3, last: 5 };
        let dropped = allowed.after(&Step::Call { log: 0, order, fault: Fault::Dropped });
        let ends = states(&dropped.0[0]);
        for end in 2..=5 {
            assert!(ends.contains(&State::Kept { end, sealed: false }), "{ends:?}");
        }
        let sealed = dropped.after(&Step::Call { log: 0, order: Order::Seal, fault: Fault::None });
        let answered = sealed.0[0].iter().all(|possible| possible.answer == Some(Answer::Done));
        assert!(answered && states(&sealed.0[0]).contains(&State::Kept { end: 2, sealed: true }));
        assert_eq!(states(&sealed.0[1]), [State::Kept { end: 0, sealed: false }]);
    }

    #[test]
    fn what_was_never_begun_changes_nothing() {
        let allowed = Allowed([kept(2), kept(0)]);
        let call = Step::Call { log: 0, order: Order::Remove, fault: Fault::Unbegun };
        assert_eq!(states(&allowed.after(&call).0[0]), [State::Kept { end: 2, sealed: false }]);
    }
}
