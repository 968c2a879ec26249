//! [`Sometimes`]: what must happen now and then, or the attack is none.

use std::collections::BTreeMap;

use windlass_core::outcome::Outcome;
use windlass_core::record::Phase;
use windlass_fakes::faulty::{Fault, Site};
use windlass_fakes::world::{Happened, Signaller};

use super::event::{Answer, Event, Gone, What};
use super::view::View;

/// How often things happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sometimes {
    counts: BTreeMap<&'static str, u64>,
}

/// What must happen in a run of thousands of seeds.
pub const MUST: [&str; 22] = [
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
            if record.key.kind != Kind::Execution {
                continue;
            }
            let id = windlass_core::id::ExecutionId(record.key.id);
            let Some(record) = view.store.execution(id) else { continue };
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
