//! The end of a run: nothing goes wrong any more, and everything is asked to end. What does not is a violation.

use std::sync::Arc;

use futures::future::{Either, select};
use windlass_core::record::{AttemptStatus, ExecutionRecord, Phase};

use super::super::event::{Gone, What};
use super::super::oracle::Violation;
use super::super::plan::{Request, Verb};
use super::super::stage::Stage;
use super::Play;

/// How long what runs may go on by itself once nothing goes wrong, in milliseconds.
const LINGER_MS: u64 = 60_000;

/// How long everything takes at most to end once it was asked to, in milliseconds: grace, KILL, survivors that are waited
/// for, what was slow when nothing went wrong yet, and another look at what did not answer.
const END_MS: u64 = 180_000;

/// The name of what asks for the end.
const LAST: &str = "the end";

impl Play {
    /// Ends everything, and says what does not end.
    pub(super) async fn end(self: &Arc<Self>) {
        if !self.within(END_MS, |stage| stage.unanswered_starts().is_empty()).await {
            let left = self.stage.unanswered_starts().join(", ");
            self.violate(format!("these starts were never answered: {left}"));
            return;
        }
        self.within(LINGER_MS, |stage| unfinished(stage).is_empty()).await;
        self.compare_slots().await;
        self.stage.begin_ending();
        let attempts = self.stage.look(|view| {
            view.store.attempts().map(|attempt| attempt.title.clone()).collect::<Vec<_>>()
        });
        for of in &attempts {
            self.ask_last(Verb::StopAttempt { of: of.clone() });
        }
        if !self.within(END_MS, |stage| unfinished(stage).is_empty()).await {
            let left = unfinished(&self.stage).join(", ");
            self.violate(format!("everything was stopped, and this has not ended: {left}"));
            return;
        }
        if !self.within(END_MS, |stage| stage.unanswered().is_empty()).await {
            let left = self.stage.unanswered().join(", ");
            self.violate(format!("these requests were never answered: {left}"));
            return;
        }
        if self.plan.seed.is_multiple_of(2) && !self.remove_and_restore().await {
            return;
        }
        self.restart().await;
    }

    /// Removes every worktree, and makes it again.
    async fn remove_and_restore(self: &Arc<Self>) -> bool {
        for of in self.worktrees(|status| status != AttemptStatus::Removed) {
            self.ask_last(Verb::Remove { of, force: true, branch: false });
        }
        if !self.within(END_MS, |stage| stage.unanswered().is_empty()).await {
            let left = self.stage.unanswered().join(", ");
            self.violate(format!("these removals were never answered: {left}"));
            return false;
        }
        for of in self.worktrees(|status| status == AttemptStatus::Removed) {
            self.ask_last(Verb::Restore { of, snapshot: None });
        }
        if !self.within(END_MS, |stage| stage.unanswered().is_empty()).await {
            let left = self.stage.unanswered().join(", ");
            self.violate(format!("these restorations were never answered: {left}"));
            return false;
        }
        true
    }

    fn worktrees(&self, wanted: impl Fn(AttemptStatus) -> bool) -> Vec<String> {
        self.stage.look(|view| {
            let attempts = view.store.attempts();
            let with = attempts.filter(|attempt| attempt.workspace.worktree().is_some());
            let wanted = with.filter(|attempt| wanted(attempt.status));
            wanted.map(|attempt| attempt.title.clone()).collect()
        })
    }

    /// Replaces the host a last time: what the next one makes of the records must be what was there.
    async fn restart(self: &Arc<Self>) {
        for life in self.stage.living() {
            self.kill(life);
        }
        if !self.within(END_MS, |stage| !stage.serving().is_empty()).await {
            self.violate("a host that nothing disturbs did not take over".to_owned());
            return;
        }
        if !self.within(END_MS, |stage| unfinished(stage).is_empty()).await {
            let left = unfinished(&self.stage).join(", ");
            self.violate(format!("the last host does not come to rest: {left}"));
            return;
        }
        self.compare_slots().await;
        self.stage.note(What::Settled);
        for life in self.stage.living() {
            self.stage.host_gone(life, Gone::Killed);
            self.ground.kill(life);
        }
    }

    /// Lets the newest host say how many slots are taken.
    async fn compare_slots(&self) {
        let Some((life, handle)) = self.stage.serving().into_iter().next() else { return };
        let stage = Arc::clone(&self.stage);
        let (told, hears) = futures::channel::oneshot::channel();
        let asks = async move {
            if let Ok(status) = handle.status().await {
                let (running, queued) = (status.running, status.queued);
                stage.note(What::HostSays { life, running, queued });
            }
            let _gone = told.send(());
        };
        self.ground.spawn(Some(life), Box::pin(asks));
        let _answered = hears.await;
    }

    fn ask_last(self: &Arc<Self>, verb: Verb) {
        let name = format!("{LAST}: {}", verb.of().unwrap_or_default());
        self.ask(Arc::new(Request { at_ms: 0, name, owner: None, verb }));
    }

    /// Waits until something is so, at most so long; says whether it is.
    async fn within(&self, ms: u64, so: impl Fn(&Stage) -> bool + Send + Sync) -> bool {
        let late = self.ground.time_reached(self.ground.now().plus_ms(ms));
        let becomes = Box::pin(self.stage.when(|stage| so(stage).then_some(())));
        matches!(select(becomes, late).await, Either::Left(_))
    }

    fn violate(&self, what: String) {
        self.stage.violate(Violation::new("liveness", what));
    }
}

/// Names what has not ended.
fn unfinished(stage: &Stage) -> Vec<String> {
    stage.look(|view| {
        let open = |record: &ExecutionRecord| record.phase != Phase::Final;
        let mut left: Vec<_> = view
            .store
            .executions()
            .filter(|record| open(record))
            .map(|record| {
                let name = record.client_key.as_deref().unwrap_or("a git step");
                format!("execution {name} is {}", record.phase.as_str())
            })
            .collect();
        let busy = [AttemptStatus::Creating, AttemptStatus::Committing, AttemptStatus::Removing];
        left.extend(
            view.store
                .attempts()
                .filter(|attempt| busy.contains(&attempt.status))
                .map(|attempt| format!("attempt {} is {}", attempt.title, attempt.status.as_str())),
        );
        left
    })
}
