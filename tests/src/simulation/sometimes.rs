//! [`Sometimes`]: what must happen now and then, or the attack is none.

use std::collections::BTreeMap;

use windlass_core::action::RunReason;
use windlass_core::outcome::Outcome;
use windlass_core::process_store::RecordKey;
use windlass_core::record::{FollowUpState, Phase};
use windlass_fakes::faulty::{Fault, Site};
use windlass_fakes::world::{Happened, Signaller};

use super::event::{Answer, Event, Gone, What};
use super::view::{Value, View};

/// How often things happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sometimes {
    counts: BTreeMap<&'static str, u64>,
}

/// What must happen in a run of thousands of seeds.
pub const MUST: [&str; 30] = [
    "a live process was adopted",
    "an exit came while no host was there",
    "a host was killed",
    "a host was killed while it took over",
    "a host left in good order",
    "two hosts lived at once",
    "an older host was refused",
    "KILL followed TERM",
    "a removal was refused",
    "a worktree was removed",
    "a worktree was made again",
    "a commit in doubt had happened",
    "a commit in doubt had not happened",
    "a launch in doubt had happened",
    "a number was given to another process",
    "the power was lost",
    "a shim was killed",
    "an execution was lost",
    "an execution waited for a slot",
    "a deadline fired",
    "a request was repeated",
    "a commit was made by a git step",
    "a setup was followed by its command",
    "a command was followed by its cleanup",
    "a chain was finalised in the middle",
    "a message started an execution",
    "a message was held",
    "a message was given back",
    "a worktree was put back",
    "an execution was tried again",
];

impl Sometimes {
    /// Counts something.
    pub fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_insert(0) += 1;
    }

    /// Adds what another run counted.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.counts {
            *self.counts.entry(name).or_insert(0) += count;
        }
    }

    /// Returns how often something happened.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Returns all counts.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().map(|(name, count)| (*name, *count))
    }

    /// Names what must have happened and has not.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        MUST.into_iter().filter(|name| self.of(name) == 0).collect()
    }

    /// Watches an event.
    pub fn watch(&mut self, event: &Event, view: &View<'_>) {
        match &event.what {
            What::Called { call, fault, .. } => match (call.site, fault) {
                (Site::Commit, Fault::ErrorAfter) => self.count("a commit in doubt had happened"),
                (Site::Commit, Fault::ErrorBefore) => {
                    self.count("a commit in doubt had not happened");
                }
                (Site::Launch, Fault::ErrorAfter | Fault::CrashAfter) => {
                    self.count("a launch in doubt had happened");
                }
                _ => {}
            },
            What::Performed { call, failure: None, .. } if call.site == Site::Adopt => {
                if let windlass_fakes::faulty::About::Execution(id) = call.about
                    && view.kernel.starts_of(id).any(|(_, start)| !start.living.is_empty())
                {
                    self.count("a live process was adopted");
                }
            }
            What::Performed { call, failure: Some(why), .. } => {
                if call.site == Site::Commit && why.contains("superseded") {
                    self.count("an older host was refused");
                }
            }
            What::Committed { writes, .. } => self.committed(writes, view),
            What::Answered { request, answer, .. } => {
                use super::plan::Verb;
                match (&request.verb, answer) {
                    (Verb::Remove { .. }, Answer::Done) => self.count("a worktree was removed"),
                    (Verb::Remove { .. }, Answer::Refused { .. }) => {
                        self.count("a removal was refused");
                    }
                    (Verb::Restore { .. }, Answer::Done) => self.count("a worktree was made again"),
                    (_, Answer::Unknown(_)) => self.count("a request was repeated"),
                    _ => {}
                }
            }
            What::HostGone { why, .. } => self.count(match why {
                Gone::Killed => "a host was killed",
                Gone::KilledInRecovery => "a host was killed while it took over",
                Gone::Left => "a host left in good order",
                Gone::Failed => "a host could not take over",
            }),
            What::HostSays { queued, .. } if *queued > 0 => {
                self.count("an execution waited for a slot");
            }
            What::Happened(happened) => self.happened(happened),
            What::Performed { .. }
            | What::Returned { .. }
            | What::Acquired { .. }
            | What::Asked { .. }
            | What::Read { .. }
            | What::HostComes { .. }
            | What::HostServes { .. }
            | What::HostSays { .. }
            | What::Healed
            | What::Settled => {}
        }
    }

    fn committed(&mut self, writes: &[windlass_core::process_store::Write], view: &View<'_>) {
        use windlass_core::process_store::{Kind, Write};
        for write in writes {
            let Write::Put { record, .. } = write else { continue };
            let key = record.key;
            match key.kind {
                Kind::FollowUp => self.message(key, view),
                Kind::Attempt => self.attempt(key, view),
                _ => {}
            }
            if key.kind != Kind::Execution {
                continue;
            }
            let first = view.store.get(key).is_some_and(|kept| kept.before.is_none());
            let id = windlass_core::id::ExecutionId(key.id);
            let Some(record) = view.store.execution(id) else { continue };
            let follows = || {
                let mut others = view.store.executions_of(record.attempt);
                others.any(|other| other.followed_by == Some(id))
            };
            match record.action.run_reason {
                RunReason::Agent if first && follows() => {
                    self.count("a setup was followed by its command");
                }
                RunReason::Cleanup if first && follows() => {
                    self.count("a command was followed by its cleanup");
                }
                _ => {}
            }
            let was = view.store.get(key).and_then(|kept| kept.before.clone());
            let is_new = |was: &Option<Value>| !matches!(was, Some(Value::Execution(was)) if was.superseded_by.is_some());
            if record.superseded_by.is_some() && is_new(&was) {
                self.count("an execution was tried again");
            }
            match (record.phase, record.outcome) {
                (Phase::Ended, Some(Outcome::Lost { .. })) => self.count("an execution was lost"),
                (Phase::Ended, Some(Outcome::TimedOut { .. })) => self.count("a deadline fired"),
                (Phase::Final, _) if record.repository_lock.is_some() => {
                    self.count("a commit was made by a git step");
                }
                _ => {}
            }
        }
    }

    fn message(&mut self, key: RecordKey, view: &View<'_>) {
        let Some(kept) = view.store.get(key) else { return };
        let Value::FollowUp(now) = &kept.value else { return };
        let was = match &kept.before {
            Some(Value::FollowUp(before)) => Some(before.state),
            _ => None,
        };
        match (was, now.state) {
            (was, FollowUpState::Consumed) if was != Some(FollowUpState::Consumed) => {
                self.count("a message started an execution");
            }
            (Some(FollowUpState::Consumed), FollowUpState::Held) => {
                self.count("a message was given back");
            }
            (was, FollowUpState::Held) if was != Some(FollowUpState::Held) => {
                self.count("a message was held");
            }
            _ => {}
        }
    }

    fn attempt(&mut self, key: RecordKey, view: &View<'_>) {
        let Some(kept) = view.store.get(key) else { return };
        let (Value::Attempt(now), Some(Value::Attempt(before))) = (&kept.value, &kept.before)
        else {
            return;
        };
        if before.resetting.is_some() && now.resetting.is_none() {
            self.count("a worktree was put back");
        }
        let open = before.chain.and_then(|id| view.store.execution(id));
        if now.chain.is_none() && open.is_some_and(|record| record.action.next.is_some()) {
            self.count("a chain was finalised in the middle");
        }
    }

    fn happened(&mut self, happened: &Happened) {
        match happened {
            Happened::Signalled { signal: 9, by: Signaller::Shim(_), .. } => {
                self.count("KILL followed TERM");
            }
            Happened::PidReused { .. } => self.count("a number was given to another process"),
            Happened::PowerLost { .. } => self.count("the power was lost"),
            Happened::ShimGone { killed: true, .. } => self.count("a shim was killed"),
            _ => {}
        }
    }
}
