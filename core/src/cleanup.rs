//! Cleanup: what is to be done about what lies where worktrees are made, and about snapshots.
//!
//! Pure and total: facts in, decisions out. It looks at nothing, removes nothing and reads no clock: graces are counted by
//! the time that hosts have been watching, never by a wall clock that may jump.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{AttemptId, NodeId};
use crate::locator::Locator;
use crate::process_store::{Kind, Revision};
use crate::record::{AttemptRecord, AttemptStatus, Reason, Recorded};
use crate::snapshot::{SnapshotNumber, SnapshotRecord};
use crate::time::Timestamp;
use crate::vcs_worktree::{Found, FoundState};
use crate::workspace::Worktree;

/// After which time something is removed by itself; `None` never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A worktree in which nothing happens, in milliseconds.
    pub idle_ms: Option<u64>,
    /// A worktree of ours without a record, in milliseconds.
    pub orphan_ms: Option<u64>,
    /// A snapshot of an attempt whose worktree was removed, in milliseconds.
    pub snapshot_ms: Option<u64>,
}

/// How long hosts have been watching a data directory, and how often they have looked: what graces are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Milliseconds.
    pub ms: u64,
    /// Passes.
    pub passes: u64,
}

impl Watched {
    /// Returns the same after one more pass, `ms` after the one before.
    #[must_use]
    pub fn and_looked_again(self, ms: u64) -> Self {
        Self { ms: self.ms.saturating_add(ms), passes: self.passes.saturating_add(1) }
    }
}

/// What an observation is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Observed {
    /// How long hosts have been watching, and how often.
    Clock,
    /// That nothing happens in an attempt's worktree.
    Idle {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// A worktree without a record.
    Orphan {
        /// The attempt that it was made for.
        attempt: AttemptId,
        /// Where it is.
        path: Locator,
    },
    /// A snapshot of an attempt whose worktree was removed.
    Snapshot {
        /// Which attempt.
        attempt: AttemptId,
        /// The snapshot's number.
        number: SnapshotNumber,
    },
}

impl Observed {
    /// Returns the id of its record.
    #[must_use]
    pub fn id(&self) -> Uuid {
        let word = self.word().as_bytes();
        match self {
            Self::Clock => Uuid::new_v5(&Uuid::NAMESPACE_OID, word),
            Self::Idle { attempt } => Uuid::new_v5(&attempt.0, word),
            Self::Orphan { attempt, path } => {
                Uuid::new_v5(&attempt.0, &[word, path.as_bytes()].concat())
            }
            Self::Snapshot { attempt, number } => {
                Uuid::new_v5(&attempt.0, &[word, &number.0.to_be_bytes()].concat())
            }
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Idle { .. } => "idle",
            Self::Orphan { .. } => "orphan",
            Self::Snapshot { .. } => "snapshot",
        }
    }
}

/// What was observed, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Of what.
    pub what: Observed,
    /// What it was like: once this is another, the time begins anew.
    pub mark: Uuid,
    /// When it was first so; of the clock, what it shows.
    pub since: Watched,
    /// When it was recorded.
    pub at: Timestamp,
}

impl Recorded for Observation {
    const KIND: Kind = Kind::Observation;

    fn fields(&self) -> (Uuid, Option<Uuid>, Option<&str>, &'static str, Timestamp) {
        let parent = match &self.what {
            Observed::Clock => None,
            Observed::Idle { attempt }
            | Observed::Orphan { attempt, .. }
            | Observed::Snapshot { attempt, .. } => Some(attempt.0),
        };
        (self.what.id(), parent, None, self.what.word(), self.at)
    }
}

/// An attempt as cleanup sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its record.
    pub record: AttemptRecord,
    /// The record's revision.
    pub revision: Revision,
    /// One of its executions has not ended.
    pub busy: bool,
    /// Changes whenever something happens in the attempt.
    pub mark: Uuid,
    /// All of its work is known to be in its target.
    pub landed: bool,
}

/// What a pass has found out. Worktrees are surveyed before attempts are read: what is found has a record by then, if it
/// ever had one.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The machine whose worktrees these are.
    pub node: NodeId,
    /// How long hosts have been watching, this pass included.
    pub watched: Watched,
    /// When this pass is, for new observations.
    pub at: Timestamp,
    /// After which time what is removed.
    pub policy: Policy,
    /// What lies where worktrees are made.
    pub found: Vec<Found>,
    /// The attempts with a worktree, and those that something was found of.
    pub attempts: BTreeMap<AttemptId, Subject>,
    /// Attempts that something was found of and whose records cannot be read.
    pub unreadable: BTreeSet<AttemptId>,
    /// Records were set aside and nobody knows which: what has no record may have had one.
    pub records_are_damaged: bool,
    /// The snapshots.
    pub snapshots: Vec<SnapshotRecord>,
    /// What was observed before.
    pub observed: BTreeMap<Uuid, Observation>,
}

impl Facts {
    /// Lists the attempts that should have a worktree and in which nothing goes on, by where it should be.
    fn recorded(&self) -> BTreeMap<&Locator, &Subject> {
        let at_rest = self.attempts.values().filter(|one| resting(one, self.node).is_ok());
        at_rest.filter_map(|one| Some((&one.record.workspace.worktree()?.path, one))).collect()
    }
}

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thing {
    /// A worktree, or what is left of one.
    Worktree,
    /// A snapshot.
    Snapshot,
}

/// What is done about something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    Keep,
    /// It is noted that somebody deleted the worktree.
    MarkMissing,
    /// It is noted that the worktree is there again.
    MarkFound,
    /// The worktree is saved and removed: nothing happens in it.
    RemoveIdle,
    /// The worktree is saved and removed: no record speaks of it.
    RemoveOrphan,
    /// The snapshot is removed: its time is over.
    ExpireSnapshot,
    /// A removal that was interrupted after the worktree counted as removed is gone on with.
    EndRemoval,
}

/// What the host must do about something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Note whether the worktree is gone.
    SetMissing,
    /// Save and remove the worktree, unless something has happened since this revision.
    RemoveIdle(Revision),
    /// Make a record of the worktree, save it and remove it.
    RemoveOrphan(Box<Worktree>),
    /// Remove the snapshot.
    RemoveSnapshot(SnapshotNumber),
    /// Go on with the removal of the worktree: its attempt's record says that it was removed.
    EndRemoval(Box<Worktree>),
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What it is about.
    pub thing: Thing,
    /// Where that is.
    pub path: Locator,
    /// The attempt that it belongs to.
    pub attempt: Option<AttemptId>,
    /// What is done.
    pub action: Action,
    /// Why, for people.
    pub reason: String,
    /// How, if anything is done: an attempt is named then.
    pub act: Option<Act>,
}

/// What a pass leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// About everything that was found: worktrees in the order of the survey, then snapshots.
    pub decisions: Vec<Decision>,
    /// Observations to record, new or anew.
    pub observe: Vec<Observation>,
    /// Observations to forget.
    pub forget: Vec<Uuid>,
}

/// Decides about everything that was found.
#[must_use]
pub fn decide(facts: &Facts) -> Plan {
    let mut pass = Pass { facts, plan: Plan::default(), current: BTreeSet::new() };
    pass.current.insert(Observed::Clock.id());
    let recorded = facts.recorded();
    let mut there: BTreeSet<_> = facts.found.iter().filter_map(|found| found.attempt).collect();
    for found in &facts.found {
        let (attempt, verdict) = match (found.attempt, recorded.get(&found.path)) {
            (Some(attempt), _) => (Some(attempt), pass.about_ours(attempt, found)),
            (None, Some(subject)) => {
                there.insert(subject.record.id);
                (Some(subject.record.id), in_its_place(subject, &found.state))
            }
            (None, None) => (None, Verdict::keep(stranger(&found.state))),
        };
        pass.conclude(Thing::Worktree, found.path.clone(), attempt, verdict);
    }
    for (path, subject) in &recorded {
        if !there.contains(&subject.record.id) {
            let verdict = missing(subject);
            pass.conclude(Thing::Worktree, (*path).clone(), Some(subject.record.id), verdict);
        }
    }
    for record in &facts.snapshots {
        let verdict = pass.about_snapshot(record);
        let path = record.snapshot.archive.clone();
        pass.conclude(Thing::Snapshot, path, Some(record.attempt), verdict);
    }
    let old = facts.observed.keys().filter(|id| !pass.current.contains(*id)).copied();
    pass.plan.forget = old.collect();
    pass.plan
}

struct Verdict {
    action: Action,
    reason: String,
    act: Option<Act>,
}

impl Verdict {
    fn keep(reason: impl Into<String>) -> Self {
        Self { action: Action::Keep, reason: reason.into(), act: None }
    }
}

struct Pass<'a> {
    facts: &'a Facts,
    plan: Plan,
    /// The observations that still apply.
    current: BTreeSet<Uuid>,
}

impl Pass<'_> {
    fn conclude(
        &mut self,
        thing: Thing,
        path: Locator,
        attempt: Option<AttemptId>,
        verdict: Verdict,
    ) {
        let Verdict { action, reason, act } = verdict;
        self.plan.decisions.push(Decision { thing, path, attempt, action, reason, act });
    }

    /// Returns for how long something has been as it is; `None` while it has been seen so in one pass only.
    fn watched(&mut self, what: Observed, mark: Uuid) -> Option<u64> {
        let id = what.id();
        self.current.insert(id);
        let now = self.facts.watched;
        match self.facts.observed.get(&id) {
            Some(before) if before.mark == mark => {
                let again = now.passes > before.since.passes;
                again.then(|| now.ms.saturating_sub(before.since.ms))
            }
            Some(_) | None => {
                let observation = Observation { what, mark, since: now, at: self.facts.at };
                self.plan.observe.push(observation);
                None
            }
        }
    }

    /// Says whether a grace is over, or how much of it is left, in words.
    fn is_over(&mut self, what: Observed, mark: Uuid, grace_ms: u64) -> Result<String, String> {
        match self.watched(what, mark) {
            Some(ms) if ms >= grace_ms => Ok(words(ms)),
            Some(ms) => Err(words(grace_ms - ms)),
            None => Err(words(grace_ms)),
        }
    }

    fn about_ours(&mut self, attempt: AttemptId, found: &Found) -> Verdict {
        match &found.state {
            FoundState::Leftover { .. } => return Verdict::keep(stranger(&found.state)),
            FoundState::Foreign { detail } => return Verdict::keep(detail.clone()),
            FoundState::Whole
            | FoundState::Missing
            | FoundState::Creating
            | FoundState::Removing => {}
        }
        if self.facts.unreadable.contains(&attempt) {
            return Verdict::keep("its attempt's record is damaged: `windlass doctor` tells more");
        }
        match self.facts.attempts.get(&attempt) {
            Some(subject) => self.about_recorded(subject, found),
            None => self.about_orphan(attempt, found),
        }
    }

    fn about_recorded(&mut self, subject: &Subject, found: &Found) -> Verdict {
        let record = &subject.record;
        if let (AttemptStatus::Removed, FoundState::Removing, Some(worktree)) =
            (record.status, &found.state, record.workspace.worktree())
            && record.node == self.facts.node
        {
            return Verdict {
                action: Action::EndRemoval,
                reason: why_not_ended(record),
                act: Some(Act::EndRemoval(Box::new(worktree.clone()))),
            };
        }
        if let Err(reason) = resting(subject, self.facts.node) {
            return Verdict::keep(reason);
        }
        let recorded = record.workspace.worktree().map(|worktree| &worktree.path);
        match found.state {
            FoundState::Missing => missing(subject),
            FoundState::Creating | FoundState::Removing => {
                Verdict::keep("a step of it was interrupted; removing or restoring it goes on")
            }
            FoundState::Whole if recorded != Some(&found.path) => {
                Verdict::keep("it is not where its attempt's record says")
            }
            FoundState::Whole if record.missing => Verdict {
                action: Action::MarkFound,
                reason: "it is there again".to_owned(),
                act: Some(Act::SetMissing),
            },
            FoundState::Whole | FoundState::Leftover { .. } | FoundState::Foreign { .. } => {
                self.about_idle(subject)
            }
        }
    }

    fn about_idle(&mut self, subject: &Subject) -> Verdict {
        let attempt = subject.record.id;
        let Some(grace_ms) = self.facts.policy.idle_ms else {
            return Verdict::keep("idle worktrees are kept: their removal is switched off");
        };
        if subject.record.keep {
            return Verdict::keep("it is kept however long nothing happens in it");
        }
        let landed = if subject.landed { "its work is merged; " } else { "" };
        match self.is_over(Observed::Idle { attempt }, subject.mark, grace_ms) {
            Ok(idle) => Verdict {
                action: Action::RemoveIdle,
                reason: format!("{landed}nothing has happened in it for {idle}"),
                act: Some(Act::RemoveIdle(subject.revision)),
            },
            Err(left) => Verdict::keep(format!(
                "{landed}it is removed after {left} more in which a host watches and nothing happens in it"
            )),
        }
    }

    fn about_orphan(&mut self, attempt: AttemptId, found: &Found) -> Verdict {
        let Some(grace_ms) = self.facts.policy.orphan_ms else {
            return Verdict::keep(
                "no record speaks of it; orphans are kept: their removal is switched off",
            );
        };
        let Some(worktree) = &found.worktree else {
            return Verdict::keep(
                "no record speaks of it, and its marker does not say enough to save it",
            );
        };
        let path = found.path.clone();
        let over = self.is_over(Observed::Orphan { attempt, path }, attempt.0, grace_ms);
        if self.facts.records_are_damaged {
            return Verdict::keep(
                "no record speaks of it, but records are damaged and it may have had one: \
                 `windlass doctor` tells more",
            );
        }
        match over {
            Ok(_) => Verdict {
                action: Action::RemoveOrphan,
                reason: "no record speaks of it".to_owned(),
                act: Some(Act::RemoveOrphan(Box::new(worktree.clone()))),
            },
            Err(left) => Verdict::keep(format!(
                "no record speaks of it; it is saved and removed after {left} more in which a \
                 host watches"
            )),
        }
    }

    fn about_snapshot(&mut self, record: &SnapshotRecord) -> Verdict {
        let (attempt, number) = (record.attempt, record.snapshot.number);
        let Some(grace_ms) = self.facts.policy.snapshot_ms else {
            return Verdict::keep("snapshots are kept: their removal is switched off");
        };
        let Some(subject) = self.facts.attempts.get(&attempt) else {
            return Verdict::keep("its attempt's record cannot be read");
        };
        if subject.record.half_removed.is_some() {
            return Verdict::keep("the removal of its worktree has not ended");
        }
        let made_from = subject.record.removed.as_ref().and_then(|removed| removed.snapshot);
        if made_from == Some(number) && subject.record.merged_at.is_none() {
            return Verdict::keep("its worktree is made again from it, and its work is not merged");
        }
        let removed_at = match (subject.record.status, subject.record.removed_at) {
            (AttemptStatus::Removed, Some(at)) => at,
            (_, _) => return Verdict::keep("its attempt has a worktree"),
        };
        let mark = Uuid::new_v5(&attempt.0, &removed_at.0.to_be_bytes());
        match self.is_over(Observed::Snapshot { attempt, number }, mark, grace_ms) {
            Ok(kept) => Verdict {
                action: Action::ExpireSnapshot,
                reason: format!("the worktree was removed {kept} ago"),
                act: Some(Act::RemoveSnapshot(number)),
            },
            Err(left) => {
                Verdict::keep(format!("it is kept for {left} more in which a host watches"))
            }
        }
    }
}

/// Says why nothing can be done about an attempt's worktree now, if that is so.
fn resting(subject: &Subject, node: NodeId) -> Result<(), &'static str> {
    let record = &subject.record;
    if record.node != node {
        return Err("its attempt is another machine's");
    }
    let reason = match record.status {
        AttemptStatus::Creating => "it is being made",
        AttemptStatus::Running => "its attempt runs",
        AttemptStatus::Committing => "its work is being committed",
        AttemptStatus::Parked => "its attempt waits for a time",
        AttemptStatus::Removing => "it is being removed",
        AttemptStatus::Removed => "its attempt says that it was removed; restoring it takes it up",
        AttemptStatus::Ready
        | AttemptStatus::Held
        | AttemptStatus::Finished
        | AttemptStatus::Failed => {
            return if subject.busy { Err("an execution in it has not ended") } else { Ok(()) };
        }
    };
    Err(reason)
}

/// Says why parts of a worktree are left that counts as removed.
fn why_not_ended(record: &AttemptRecord) -> String {
    match (&record.half_removed, &record.reason) {
        (Some(_), Some(Reason::RemoveFailed { message })) => {
            format!("its removal failed: {message}")
        }
        (Some(_), _) => "its removal failed".to_owned(),
        (None, _) => "its removal was interrupted".to_owned(),
    }
}

/// Decides about a recorded worktree whose directory is gone. One that was never made is nowhere.
fn missing(subject: &Subject) -> Verdict {
    if subject.record.status == AttemptStatus::Failed {
        return Verdict::keep("it was never made");
    }
    if subject.record.missing {
        return Verdict::keep("somebody deleted it; removing or restoring its attempt tidies up");
    }
    Verdict {
        action: Action::MarkMissing,
        reason: "somebody deleted it".to_owned(),
        act: Some(Act::SetMissing),
    }
}

/// Decides about something else that is where an attempt's worktree should be.
fn in_its_place(subject: &Subject, state: &FoundState) -> Verdict {
    match state {
        FoundState::Foreign { detail } if subject.record.status != AttemptStatus::Failed => {
            Verdict::keep(format!("it is not the recorded worktree: {detail}"))
        }
        FoundState::Whole
        | FoundState::Missing
        | FoundState::Creating
        | FoundState::Removing
        | FoundState::Leftover { .. }
        | FoundState::Foreign { .. } => Verdict::keep(stranger(state)),
    }
}

fn stranger(state: &FoundState) -> String {
    match state {
        FoundState::Foreign { detail } => format!("it is not ours: {detail}"),
        FoundState::Leftover { detail } => format!("a removal had to leave it: {detail}"),
        FoundState::Whole | FoundState::Missing | FoundState::Creating | FoundState::Removing => {
            "it does not say whose it is".to_owned()
        }
    }
}

/// Prints a span of time for people, to the minute.
fn words(ms: u64) -> String {
    let minutes = ms.div_ceil(60_000);
    let (days, hours, minutes) = (minutes / 1_440, minutes / 60 % 24, minutes % 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "min")];
    let shown: Vec<_> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if shown.is_empty() { "0 min".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests;
