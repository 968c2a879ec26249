//! Chains: setup, agent and cleanup, row by row, stopped and taken over at each place.

use super::*;
use crate::action::Next;
use crate::snapshot::SnapshotRecord;
use crate::vcs_worktree::{BranchFate, CHANGED_SINCE_SAVED, GitWork, SaveRequest, Unsavable};

fn script(run_reason: RunReason, next: Option<(Action, &RunOptions)>) -> Action {
    let kind = ActionKind::Script { shell: "/bin/sh".into(), script: "true".into() };
    let next = next.map(|(action, options)| Box::new(Next::new(action, options)));
    Action { kind, run_reason, next }
}

/// The first execution of a chain of these scripts around an agent.
fn first(setup: bool, cleanup: bool) -> ExecutionRecord {
    let mut record = execution(X, RunReason::Agent);
    record.options.env.insert("A".into(), "1".into());
    record.options.limits.total_ms = Some(77);
    let around = RunOptions {
        limits: TimeLimits { total_ms: None, ..record.options.limits },
        ..record.options.clone()
    };
    if cleanup {
        let cleanup = script(RunReason::Cleanup, None);
        record.action.next = Some(Box::new(Next::new(cleanup, &around)));
    }
    if setup {
        let agent = record.action;
        record.action = script(RunReason::Setup, Some((agent, &record.options)));
        record.options = around;
    }
    record
}

/// A chain that is played, one input per millisecond.
#[derive(Clone)]
pub(super) struct Play {
    pub(super) state: State,
    now: u64,
    fresh: u128,
    pub(super) effects: Vec<Effect>,
}

impl Play {
    pub(super) fn of(attempt: AttemptRecord, setup: bool, cleanup: bool) -> Self {
        let mut play =
            Self { state: State::new(attempt), now: 10, fresh: 0x100, effects: Vec::new() };
        let execution = Box::new(first(setup, cleanup));
        play.feed(ask(Request::Run { execution, key: key(X), admitted: true }));
        play
    }

    pub(super) fn new(setup: bool, cleanup: bool) -> Self {
        let attempt = attempt(Workspace::Worktree(worktree()), AttemptStatus::Ready);
        Self::of(attempt, setup, cleanup)
    }

    pub(super) fn feed(&mut self, input: Input) {
        self.now += 1;
        let step = self.state.clone().step(&config(), Timestamp(self.now), input);
        (self.state, self.effects) = (step.state, step.effects);
    }

    fn fresh(&mut self) -> u128 {
        self.fresh += 1;
        self.fresh
    }

    pub(super) fn current(&self) -> ExecutionId {
        self.state.attempt.chain.unwrap()
    }

    fn reason(&self) -> RunReason {
        self.state.executions[&self.current()].record.action.run_reason
    }

    pub(super) fn prepared(&mut self, head: &str) {
        let (execution, n) = (self.current(), self.fresh());
        self.feed(fact(Fact::Prepared { execution, place: place(n), head: Some(oid(head)) }));
    }

    pub(super) fn runs(&mut self, head: &str) {
        self.prepared(head);
        self.feed(launched(self.current()));
    }

    fn exits(&mut self, outcome: Outcome) {
        self.feed(exited(self.current(), outcome));
    }

    pub(super) fn ends(&mut self, outcome: Outcome, head: &str) {
        self.exits(outcome);
        self.feed(finished(self.current(), outcome, head));
    }

    /// The current execution runs from one commit to another.
    pub(super) fn goes(&mut self, outcome: Outcome, from: &str, to: &str) {
        self.runs(from);
        self.ends(outcome, to);
    }

    pub(super) fn planned(&mut self) {
        let id = ExecutionId(Uuid::from_u128(self.fresh()));
        let step = GitStep {
            argv: vec!["git".into()],
            base_env: Vec::new(),
            env: Vec::new(),
            cwd: Locator::new("/w"),
            repository_lock: Locator::new("/r/.git"),
        };
        self.feed(fact(Fact::StepPlanned { nothing: None, step: Some((id, step)) }));
    }

    pub(super) fn nothing(&mut self, head: &str) {
        self.feed(fact(Fact::StepPlanned { nothing: Some(oid(head)), step: None }));
    }

    /// The git step that is due runs from one commit to another.
    pub(super) fn git(&mut self, outcome: Outcome, from: &str, to: &str) {
        self.planned();
        self.goes(outcome, from, to);
    }

    /// What is there is saved; HEAD is where it was.
    pub(super) fn saved(&mut self, number: Option<u32>) {
        let head = self.state.attempt.head.clone().unwrap_or_else(|| oid("5"));
        self.feed(saved_at(number, &head.0));
    }

    pub(super) fn recovered(&self) -> Self {
        let (state, effects) = recover(&self.state);
        Self { state, effects, ..self.clone() }
    }

    pub(super) fn words(&self) -> Vec<String> {
        words(&self.effects)
    }

    #[track_caller]
    fn over(&self, status: AttemptStatus, reason: Option<&Reason>) -> AttemptRecord {
        assert_eq!(self.words(), ["+", "ReleaseSlot"]);
        let attempt = written_attempt(&self.effects);
        assert_eq!((attempt.status, attempt.reason.as_ref()), (status, reason));
        assert_eq!((attempt.chain, &attempt.chain_before), (None, &Vec::new()));
        assert_eq!((&attempt.ending, &attempt.resetting), (&None, &None));
        assert!(self.state.is_idle() && attempt.finalised_at.is_some() && !attempt.slot);
        attempt
    }

    /// A chain whose agent has just made the commit `1`.
    fn cleaning() -> Self {
        let mut play = Self::new(false, true);
        play.goes(WELL, "0", "0");
        play.git(WELL, "0", "1");
        play
    }

    /// The reset that is being planned.
    #[track_caller]
    fn reset_to(&self) -> Oid {
        match self.effects.last() {
            Some(Effect::Begin(Operation::PlanStep { work: GitWork::Reset { to }, .. })) => {
                to.clone()
            }
            _ => panic!("{:?}", self.effects),
        }
    }

    /// The save that is under way.
    #[track_caller]
    fn save(&self) -> SaveRequest {
        match self.effects.last() {
            Some(Effect::Begin(Operation::Save { request, .. })) => request.clone(),
            _ => panic!("{:?}", self.effects),
        }
    }
}

#[test]
fn a_setup_that_ended_well_starts_the_agent_in_the_same_batch() {
    let mut play = Play::new(true, true);
    play.goes(WELL, "0", "0");
    assert_eq!(play.words(), ["+", "Prepare"]);
    let attempt = written_attempt(&play.effects);
    let agent = X.following(Timestamp(play.now));
    assert_eq!((attempt.chain, &attempt.chain_before), (Some(agent), &vec![X]));
    assert_eq!((attempt.status, attempt.slot), (AttemptStatus::Running, true));
    let (setup, record) = (written(&play.effects, X), written(&play.effects, agent));
    assert_eq!((setup.phase, setup.followed_by), (Phase::Final, Some(agent)));
    assert_eq!((record.phase, record.action.run_reason), (Phase::Queued, RunReason::Agent));
    assert_eq!(record.options.limits.total_ms, Some(77), "how it runs is its own");
    assert_eq!((&record.options.env, setup.options.limits.total_ms), (&setup.options.env, None));
    assert_eq!((record.client_key, record.cwd), (setup.client_key, setup.cwd));
    assert_eq!(attempt.finalised_at, None);
}

#[test]
fn a_setup_that_ended_otherwise_is_all_that_runs() {
    let lost = Outcome::Lost { reason: Lost::SupervisorDied };
    for outcome in [BADLY, Outcome::Signaled { signal: 9 }, lost] {
        let mut play = Play::new(true, true);
        play.goes(outcome, "0", "0");
        play.over(AttemptStatus::Held, Some(&Reason::EndedBadly { execution: X }));
    }
}

#[test]
fn cleanup_follows_the_commit_of_the_agents_work() {
    let mut play = Play::cleaning();
    assert_eq!(play.words(), ["+", "Prepare"]);
    assert_eq!(play.reason(), RunReason::Cleanup);
    let agent = written(&play.effects, X);
    assert_eq!((agent.committed, agent.followed_by), (Some(oid("1")), Some(play.current())));
    play.goes(WELL, "1", "1");
    assert_eq!(play.words(), ["+", "PlanStep"]);
    play.git(WELL, "1", "2");
    let attempt = play.over(AttemptStatus::Finished, None);
    assert_eq!(attempt.head, Some(oid("2")));
}

#[test]
fn the_agents_own_commits_count() {
    let mut play = Play::new(false, true);
    play.goes(WELL, "0", "1");
    play.nothing("1");
    assert_eq!(
        (play.words(), play.reason()),
        (vec!["+".into(), "Prepare".into()], RunReason::Cleanup)
    );
}

#[test]
fn cleanup_is_skipped_where_the_agent_changed_nothing() {
    let mut play = Play::new(true, true);
    play.goes(WELL, "0", "7");
    // What the setup committed is not the agent's.
    play.goes(WELL, "7", "7");
    play.nothing("7");
    play.over(AttemptStatus::Finished, None);
}

#[test]
fn nothing_follows_an_agent_that_did_not_end_well_or_whose_work_is_not_committed() {
    let mut play = Play::new(false, true);
    play.goes(BADLY, "0", "1");
    assert_eq!(play.words(), ["+", "Save"]);
    play.saved(None);
    play.over(AttemptStatus::Held, Some(&Reason::EndedBadly { execution: X }));
    let mut play = Play::new(false, true);
    play.goes(WELL, "0", "0");
    play.git(BADLY, "0", "0");
    play.saved(Some(1));
    let git = ExecutionId(Uuid::from_u128(play.fresh - 1));
    let failed = Reason::CommitFailed { output: "out".into(), execution: Some(git) };
    play.over(AttemptStatus::Held, Some(&failed));
}

#[test]
fn what_a_bad_cleanup_did_is_saved_and_undone_and_holds_nothing() {
    let mut play = Play::cleaning();
    let cleanup = play.current();
    // It has made a commit of its own.
    play.goes(BADLY, "1", "9");
    assert_eq!(play.words(), ["+", "Save"]);
    let request = play.save();
    assert_eq!((request.unsavable, request.branch), (Unsavable::Refuse, BranchFate::Goes));
    play.saved(Some(1));
    assert_eq!(play.words(), ["+", "PlanStep"]);
    assert_eq!(play.reset_to(), oid("1"));
    let record = writes(&play.effects).into_iter().find_map(|r| SnapshotRecord::decode(&r).ok());
    assert_eq!(record.unwrap().cause, SnapshotCause::Reset);
    play.git(WELL, "9", "1");
    let failed = Reason::CleanupFailed { execution: cleanup };
    let attempt = play.over(AttemptStatus::Finished, Some(&failed));
    assert_eq!(attempt.head, Some(oid("1")));
}

#[test]
fn a_bad_cleanup_that_left_nothing_needs_no_step_and_one_that_never_ran_no_save() {
    let mut play = Play::cleaning();
    let failed = Reason::CleanupFailed { execution: play.current() };
    play.goes(BADLY, "1", "1");
    assert_eq!(play.save().branch, BranchFate::Stays);
    play.saved(None);
    play.nothing("1");
    play.over(AttemptStatus::Finished, Some(&failed));
    let mut play = Play::cleaning();
    let failed = Reason::CleanupFailed { execution: play.current() };
    play.prepared("1");
    let reason = NotStarted::ProgramNotFound;
    let launched = Launched::NotStarted { reason, message: "no shell".into() };
    play.feed(fact(Fact::Launched { execution: play.current(), launched }));
    play.over(AttemptStatus::Finished, Some(&failed));
}

#[test]
fn what_cannot_be_saved_or_put_back_is_not_undone_and_holds_the_attempt() {
    let mut play = Play::cleaning();
    play.goes(BADLY, "1", "1");
    play.feed(fact(Fact::SaveRefused { refusal: failed("a socket") }));
    let output = "what was to be undone cannot be saved: a socket".to_owned();
    let reason = Reason::ResetFailed { output, execution: None };
    let attempt = play.over(AttemptStatus::Held, Some(&reason));
    assert_eq!(attempt.not_saved.as_deref(), Some("a socket"));
    let mut play = Play::cleaning();
    play.goes(BADLY, "1", "1");
    play.saved(Some(1));
    play.feed(fact(Fact::StepRefused { message: "a rebase".into() }));
    let reason = Reason::ResetFailed { output: "a rebase".into(), execution: None };
    play.over(AttemptStatus::Held, Some(&reason));
    let mut play = Play::cleaning();
    play.goes(BADLY, "1", "1");
    play.saved(Some(1));
    play.planned();
    let git = play.current();
    play.goes(BADLY, "1", "1");
    let reason = Reason::ResetFailed { output: "out".into(), execution: Some(git) };
    play.over(AttemptStatus::Held, Some(&reason));
}

#[test]
fn a_lost_reset_is_tried_once_more() {
    let mut play = Play::cleaning();
    let failed = Reason::CleanupFailed { execution: play.current() };
    play.goes(BADLY, "1", "1");
    play.saved(Some(1));
    let lost = Outcome::Lost { reason: Lost::SupervisorDied };
    play.git(lost, "1", "1");
    assert_eq!(play.save().unsavable, Unsavable::Refuse, "somebody may have worked in it");
    play.saved(Some(2));
    assert_eq!(play.reset_to(), oid("1"));
    let mut again = play.clone();
    again.git(WELL, "1", "1");
    again.over(AttemptStatus::Finished, Some(&failed));
    play.git(lost, "1", "1");
    assert_eq!(written_attempt(&play.effects).status, AttemptStatus::Held);
}

#[test]
fn the_snapshot_of_what_is_being_undone_stays() {
    let mut play = Play::cleaning();
    play.goes(BADLY, "1", "1");
    play.saved(Some(1));
    let remove = || {
        let number = SnapshotNumber(1);
        ask(Request::RemoveSnapshot { number, force: true })
    };
    play.feed(remove());
    let refused = |effect: &Effect| matches!(effect, Effect::Reply { reply: Reply::Refused(refusal), .. } if refusal.code == RefusalCode::Busy);
    assert!(play.effects.iter().any(refused), "{:?}", play.effects);
    play.git(WELL, "1", "1");
    play.feed(remove());
    assert!(!play.effects.iter().any(refused), "{:?}", play.effects);
}

#[test]
fn what_changed_since_it_was_saved_is_saved_before_it_is_undone() {
    let mut play = Play::cleaning();
    play.goes(BADLY, "1", "1");
    let changed = Outcome::Exited { code: CHANGED_SINCE_SAVED };
    for n in 1..5 {
        play.saved(Some(n));
        assert_eq!(play.reset_to(), oid("1"));
        play.git(changed, "1", "1");
        assert_eq!(play.save().number, SnapshotNumber(n + 1));
    }
    let mut quiet = play.clone();
    play.saved(Some(5));
    play.planned();
    let git = play.current();
    play.goes(changed, "1", "1");
    let reason = Reason::ResetFailed { output: "out".into(), execution: Some(git) };
    play.over(AttemptStatus::Held, Some(&reason));
    quiet.saved(Some(5));
    quiet.git(WELL, "1", "1");
    assert_eq!(quiet.state.attempt().status, AttemptStatus::Finished);
}

#[test]
fn the_next_host_saves_once_more_before_it_undoes_anything() {
    let mut play = Play::cleaning();
    play.goes(BADLY, "1", "1");
    play.saved(Some(1));
    let mut play = play.recovered();
    assert_eq!(play.save().number, SnapshotNumber(2));
    play.saved(Some(2));
    assert_eq!(play.reset_to(), oid("1"));
}

#[test]
fn where_nothing_is_committed_nothing_is_undone() {
    let mut record = attempt(Workspace::Worktree(worktree()), AttemptStatus::Ready);
    record.commit = CommitPolicy::Keep;
    let mut play = Play::of(record, false, true);
    play.goes(WELL, "0", "1");
    assert_eq!(play.reason(), RunReason::Cleanup, "its own commits count");
    let failed = Reason::CleanupFailed { execution: play.current() };
    play.goes(BADLY, "1", "1");
    assert_eq!(play.save().unsavable, Unsavable::Discard);
    play.saved(None);
    play.over(AttemptStatus::Finished, Some(&failed));
}

#[test]
fn a_chain_in_a_directory_neither_commits_nor_undoes() {
    let directory = Workspace::Directory { path: Locator::new("/d") };
    let mut play = Play::of(attempt(directory, AttemptStatus::Ready), true, true);
    play.goes(WELL, "0", "0");
    play.goes(WELL, "0", "0");
    assert_eq!(play.reason(), RunReason::Cleanup);
    let failed = Reason::CleanupFailed { execution: play.current() };
    play.goes(BADLY, "0", "0");
    play.over(AttemptStatus::Finished, Some(&failed));
}

/// Every place in a chain at which something is under way.
fn places() -> Vec<(&'static str, Play)> {
    let mut places = Vec::new();
    let mut play = Play::new(true, true);
    places.push(("setup queued", play.clone()));
    play.prepared("0");
    places.push(("setup starting", play.clone()));
    play.feed(launched(X));
    places.push(("setup running", play.clone()));
    play.exits(WELL);
    places.push(("setup ended", play.clone()));
    play.feed(finished(X, WELL, "0"));
    places.push(("agent queued", play.clone()));
    play.runs("0");
    places.push(("agent running", play.clone()));
    play.exits(WELL);
    places.push(("agent ended", play.clone()));
    play.feed(finished(play.current(), WELL, "0"));
    places.push(("commit planned", play.clone()));
    play.planned();
    places.push(("commit queued", play.clone()));
    play.runs("0");
    places.push(("commit running", play.clone()));
    play.ends(WELL, "1");
    places.push(("cleanup queued", play.clone()));
    play.runs("1");
    places.push(("cleanup running", play.clone()));
    let mut badly = play.clone();
    badly.ends(BADLY, "1");
    places.push(("cleanup saved", badly.clone()));
    badly.saved(Some(1));
    places.push(("reset planned", badly.clone()));
    badly.planned();
    places.push(("reset queued", badly.clone()));
    badly.runs("1");
    places.push(("reset running", badly));
    play.exits(WELL);
    places.push(("cleanup ended", play.clone()));
    play.feed(finished(play.current(), WELL, "1"));
    places.push(("last commit planned", play));
    places
}

/// Lets everything that is under way end, however it was begun: what was stopped is stopped, all else ends well.
pub(super) fn to_the_end(play: &mut Play, mut begun: impl FnMut(&ExecutionRecord)) {
    for _ in 0..200 {
        if play.state.is_idle() {
            return;
        }
        match play.state.workspace_step {
            WorkspaceStep::Saving => play.saved(None),
            WorkspaceStep::Planning => play.planned(),
            _ => {
                let tracked = play.state.executions.values();
                let active = tracked.filter(|tracked| tracked.record.phase < Phase::Final);
                let Some(tracked) = active.max_by_key(|tracked| tracked.record.id) else {
                    panic!("{:?}", play.state);
                };
                let (id, stopped) = (tracked.record.id, tracked.record.stop.is_some());
                let head = play.state.attempt.head.clone();
                let head = head.map_or("0".to_owned(), |head| head.0);
                let end = if stopped { Outcome::Stopped { by: StoppedBy::User } } else { WELL };
                match tracked.step {
                    ExecutionStep::Preparing => {
                        begun(&tracked.record);
                        play.prepared(&head);
                    }
                    ExecutionStep::Launching => play.feed(launched(id)),
                    ExecutionStep::Adopting => {
                        let running = Some(Running { pid: 42, since: Timestamp(5) });
                        let adoption = Adoption::Running { running, exited: None };
                        play.feed(fact(Fact::Adopted { execution: id, adoption }));
                    }
                    ExecutionStep::Watching => play.feed(exited(id, end)),
                    ExecutionStep::Finishing => play.feed(finished(id, end, &head)),
                    ExecutionStep::Waiting => play.feed(fact(Fact::Admitted(Slot::Chain(A)))),
                    step => panic!("{step:?}"),
                }
            }
        }
    }
    panic!("it does not end: {:?}", play.state);
}

#[test]
fn a_stop_at_each_place_binds_the_chain_whichever_of_its_executions_is_named() {
    for (name, play) in places() {
        for restarted in [false, true] {
            for named in [None, Some(X), play.state.attempt.chain] {
                let mut play = play.clone();
                play.feed(stop(named, None));
                assert!(words(&play.effects).contains(&"Accepted".to_owned()), "{name}");
                if restarted {
                    play = play.recovered();
                }
                to_the_end(&mut play, |record| {
                    // What a bad end has to undo is undone, and no more.
                    let undoes = name.starts_with("reset") || name.starts_with("cleanup");
                    let goes_on = record.action.run_reason == RunReason::Git && undoes;
                    assert!(goes_on, "{name}: {record:?} begins after a stop of {named:?}");
                });
                let attempt = play.state.attempt();
                let undone = matches!(attempt.reason, Some(Reason::CleanupFailed { .. }));
                let late = name.starts_with("reset") || name == "cleanup saved";
                assert!(
                    attempt.status == AttemptStatus::Held || (undone && late),
                    "{name} {attempt:?}"
                );
                assert_eq!(attempt.chain, None, "{name}");
            }
        }
    }
}

#[test]
fn a_new_host_goes_on_at_each_place() {
    for (name, play) in places() {
        let badly = name == "cleanup saved" || name.starts_with("reset");
        let mut play = play.recovered();
        let mut begun = Vec::new();
        to_the_end(&mut play, |record| begun.push(record.action.run_reason));
        let attempt = play.state.attempt();
        assert_eq!(attempt.status, AttemptStatus::Finished, "{name}: {attempt:?}");
        assert!(attempt.finalised_at.is_some(), "{name}");
        assert_eq!(attempt.reason.is_some(), badly, "{name}: {attempt:?}");
        assert!(begun.iter().filter(|reason| **reason == RunReason::Agent).count() <= 1, "{name}");
    }
}

#[test]
fn what_follows_runs_in_the_slot_that_the_next_host_counts() {
    let mut play = Play::new(true, false);
    play.goes(WELL, "0", "0");
    assert!(play.state.attempt.slot);
    assert_eq!(play.recovered().words(), ["Prepare"]);
}

#[test]
fn a_forced_removal_at_each_place_starts_nothing_and_saves_once_more() {
    for (name, play) in places() {
        let mut play = play;
        play.feed(remove(true));
        for _ in 0..20 {
            match play.state.workspace_step {
                WorkspaceStep::Removing => play.feed(fact(Fact::WorktreeRemoved)),
                _ if play.state.is_idle() => break,
                _ => to_one_end(&mut play),
            }
        }
        assert_eq!(play.state.attempt().status, AttemptStatus::Removed, "{name}");
        assert_eq!(play.state.attempt().resetting, None, "{name}");
    }
}

/// Lets one thing that is under way end.
fn to_one_end(play: &mut Play) {
    match play.state.workspace_step {
        WorkspaceStep::Saving => play.saved(None),
        WorkspaceStep::Planning => play.planned(),
        _ => {
            let active = |tracked: &&Tracked| tracked.record.phase < Phase::Final;
            let tracked = play.state.executions.values().find(active).unwrap();
            let (id, end) = (tracked.record.id, Outcome::Stopped { by: StoppedBy::Host });
            match tracked.step {
                ExecutionStep::Launching => play.feed(launched(id)),
                ExecutionStep::Watching => play.feed(exited(id, end)),
                ExecutionStep::Finishing => play.feed(finished(id, end, "0")),
                step => panic!("{step:?} begins under a claim"),
            }
        }
    }
}

proptest! {
    /// Whatever happens in whatever order, hosts that die included: never two executions of a chain at once, each follows
    /// the one before in the batch of its end, nothing of the chain begins after a stop, it is finalised once, and it
    /// always comes to an end.
    #[test]
    fn a_chain_is_one_after_the_other_and_ends_once(
        setup in any::<bool>(),
        cleanup in any::<bool>(),
        events in proptest::collection::vec((0..12_u8, any::<bool>()), 1..60),
    ) {
        let mut play = Play::new(setup, cleanup);
        let (mut stopped, mut finalised, mut seen) = (false, 0, BTreeSet::new());
        let mut last_finalised = None;
        for (event, well) in events {
            let current = play.state.attempt.chain;
            let outcome = if well { WELL } else { BADLY };
            let head = if well { "1" } else { "2" };
            match (event, current) {
                (0, _) => play = play.recovered(),
                (1, _) if well => {
                    play.feed(stop(None, None));
                    stopped = true;
                }
                (1, _) => {
                    let was_active = play.state.chain_is_active();
                    play.feed(stop(Some(X), None));
                    stopped |= was_active;
                }
                (2 | 3, Some(_)) => play.prepared(head),
                (4 | 5, Some(id)) => play.feed(launched(id)),
                (6 | 7, Some(_)) => play.exits(outcome),
                (8, Some(id)) => play.feed(finished(id, outcome, head)),
                (9, _) if well => play.planned(),
                (9, _) => play.nothing("1"),
                (10, _) => play.saved(well.then_some(play.state.attempt.last_snapshot + 1)),
                (11, Some(execution)) => {
                    let running = Some(Running { pid: 42, since: Timestamp(5) });
                    let adoption = Adoption::Running { running, exited: None };
                    play.feed(fact(Fact::Adopted { execution, adoption }));
                }
                _ => play.feed(fact(Fact::Woke)),
            }
            let living = play.state.executions().filter(|r| r.phase < Phase::Final).count();
            prop_assert!(living <= 1, "two executions of a chain at once");
            for record in writes(&play.effects) {
                if let Ok(record) = ExecutionRecord::decode(&record) {
                    let is_new = seen.insert(record.id);
                    let undoes = record.action.run_reason == RunReason::Git && play.state.resets();
                    prop_assert!(!is_new || !stopped || undoes || record.id == X, "{:?}", record);
                }
                if let Ok(attempt) = AttemptRecord::decode(&record)
                    && attempt.finalised_at != last_finalised
                {
                    last_finalised = attempt.finalised_at;
                    finalised += 1;
                }
            }
        }
        to_the_end(&mut play, |record| {
            let undoes = record.action.run_reason == RunReason::Git;
            assert!(!stopped || undoes || record.phase > Phase::Queued, "{record:?}");
        });
        prop_assert!(finalised <= 1);
        prop_assert_eq!(play.state.attempt().chain, None);
    }
}

#[test]
fn commits_that_came_meanwhile_are_saved_before_they_are_undone() {
    let mut play = Play::cleaning();
    play.goes(BADLY, "1", "1");
    assert_eq!(play.save().branch, BranchFate::Stays);
    play.feed(saved_at(None, "7"));
    assert_eq!(
        (play.words(), play.save().branch),
        (vec!["+".into(), "Save".into()], BranchFate::Goes)
    );
    play.feed(saved_at(Some(1), "7"));
    assert_eq!(play.reset_to(), oid("1"));
}

#[test]
fn a_reset_that_has_not_begun_is_begun_by_no_other_host() {
    let mut play = Play::cleaning();
    let failed = Reason::CleanupFailed { execution: play.current() };
    play.goes(BADLY, "1", "1");
    play.saved(Some(1));
    play.planned();
    let git = play.current();
    // Recorded only, and recorded with a place in which nothing ever ran.
    let mut placed = play.clone();
    placed.prepared("1");
    let mut placed = placed.recovered();
    placed.feed(fact(Fact::Adopted { execution: git, adoption: Adoption::NeverRan }));
    for mut again in [play.recovered(), placed] {
        assert_eq!(written(&again.effects, git).phase, Phase::Final);
        assert_eq!(again.save().unsavable, Unsavable::Refuse, "{:?}", again.words());
        again.saved(Some(2));
        assert_eq!(again.reset_to(), oid("1"));
        again.git(WELL, "1", "1");
        again.over(AttemptStatus::Finished, Some(&failed));
    }
    // A stop ends it, and what is there stays.
    play.feed(stop(None, None));
    assert_eq!(written_attempt(&play.effects).status, AttemptStatus::Held);
}

#[test]
fn nothing_starts_in_a_worktree_that_is_being_put_back() {
    let mut play = Play::cleaning();
    play.goes(BADLY, "1", "1");
    let execution = Box::new(execution(Y, RunReason::Background));
    play.feed(ask(Request::Start { execution, key: key(Y), admitted: true }));
    assert_eq!(play.words(), ["ReleaseSlot", "Refused"]);
}
