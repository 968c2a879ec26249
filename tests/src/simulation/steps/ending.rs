//! The end of a run: nothing goes wrong any more, and everything is asked to end. What does not is a violation.

use windlass_core::record::{AttemptStatus, ExecutionRecord, Phase};
use windlass_core::time::Timestamp;

use super::super::event::{Gone, What};
use super::super::oracle::Violation;
use super::super::plan::{Request, Verb};
use super::super::stage::Stage;
use super::{Due, Steps};

/// How long what runs may go on by itself once nothing goes wrong, in milliseconds.
const LINGER_MS: u64 = 60_000;

/// How long everything takes at most to end once it was asked to, in milliseconds.
const END_MS: u64 = 180_000;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phases {
    /// What asks for a start is answered.
    Starts,
    /// What runs may end by itself.
    Lingers,
    /// Everything was stopped.
    Stops,
    /// What was asked is answered.
    Answers,
    /// Worktrees are removed.
    Removes,
    /// They are made again.
    Restores,
    /// A last host takes over.
    Restarts,
}

/// The end of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    phase: Phases,
    until: Timestamp,
}

impl Steps {
    /// Begins to end the run.
    pub(super) fn begin_ending(&mut self) {
        self.enter(Phases::Starts, END_MS);
    }

    fn enter(&mut self, phase: Phases, ms: u64) {
        let until = self.now.plus_ms(ms);
        self.ending = Some(Ending { phase, until });
        self.schedule(until, Due::Nothing);
    }

    /// Goes on with the end if what is waited for is so, or late.
    pub(super) fn go_on_ending(&mut self) {
        while let Some(Ending { phase, until }) = self.ending {
            self.look_at_phase(phase, until);
            if self.settled || self.ending.is_some_and(|ending| ending.phase == phase) {
                return;
            }
        }
    }

    fn look_at_phase(&mut self, phase: Phases, until: Timestamp) {
        let late = self.now >= until;
        match phase {
            Phases::Starts => {
                self.expect(late, &self.stage.unanswered_starts(), Phases::Lingers, |left| {
                    format!("these requests were never answered: {left}")
                });
            }
            Phases::Lingers => {
                if late || (unfinished(&self.stage).is_empty() && !self.is_busy()) {
                    if !self.is_busy() {
                        self.say_slots();
                    }
                    self.stage.begin_ending();
                    self.wake_clients();
                    for of in self.titles(|_| true) {
                        self.ask_last(Verb::StopAttempt { of });
                    }
                    self.enter(Phases::Stops, END_MS);
                }
            }
            Phases::Stops => self.expect(late, &unfinished(&self.stage), Phases::Answers, |left| {
                format!("everything was stopped, and this has not ended: {left}")
            }),
            Phases::Answers => {
                let next = if self.plan.seed.is_multiple_of(2) {
                    Phases::Removes
                } else {
                    Phases::Restarts
                };
                self.expect(late, &self.stage.unanswered(), next, |left| {
                    format!("these requests were never answered: {left}")
                });
            }
            Phases::Removes => {
                self.expect(late, &self.stage.unanswered(), Phases::Restores, |left| {
                    format!("these removals were never answered: {left}")
                });
            }
            Phases::Restores => {
                self.expect(late, &self.stage.unanswered(), Phases::Restarts, |left| {
                    format!("these restorations were never answered: {left}")
                });
            }
            Phases::Restarts => self.await_the_last_host(late),
        }
    }

    /// Goes on to the next phase if nothing is left of what is waited for.
    fn expect(
        &mut self,
        late: bool,
        left: &[String],
        next: Phases,
        say: impl FnOnce(String) -> String,
    ) {
        if left.is_empty() {
            self.begin_phase(next);
        } else if late {
            self.stage.violate(Violation::new("liveness", say(left.join(", "))));
        }
    }

    fn begin_phase(&mut self, phase: Phases) {
        let mut asked = Vec::new();
        match phase {
            Phases::Removes => {
                for of in self.titles(|status| status != AttemptStatus::Removed) {
                    asked.push(Verb::Remove { of, force: true, branch: false });
                }
            }
            Phases::Restores => {
                for of in self.titles(|status| status == AttemptStatus::Removed) {
                    asked.push(Verb::Restore { of, snapshot: None });
                }
            }
            Phases::Restarts => {
                for life in self.stage.living() {
                    self.host_gone(life, Gone::Killed);
                }
            }
            Phases::Starts | Phases::Lingers | Phases::Stops | Phases::Answers => {}
        }
        for verb in asked {
            self.ask_last(verb);
        }
        self.enter(phase, if phase == Phases::Lingers { LINGER_MS } else { END_MS });
    }

    fn await_the_last_host(&mut self, late: bool) {
        let serves = self.hosts.iter().rev().find(|(_, host)| host.life.alive && host.life.serves);
        if serves.is_some() && !self.is_busy() {
            self.say_slots();
            self.stage.note(What::Settled);
            self.settled = true;
        } else if late && serves.is_none() {
            let what = "a host that nothing disturbs did not take over";
            self.stage.violate(Violation::new("liveness", what));
        }
    }

    /// Says whether a host does something, or is about to hear of it.
    fn is_busy(&self) -> bool {
        let busy = |due: &Due| matches!(due, Due::Perform { .. } | Due::Answer { .. });
        self.due.values().any(busy)
    }

    /// Lets the newest host say how many slots are taken.
    fn say_slots(&self) {
        let serves = self.hosts.iter().rev().find(|(_, host)| host.life.alive && host.life.serves);
        if let Some((life, host)) = serves {
            let (running, queued) = host.life.counts();
            self.stage.note(What::HostSays { life: *life, running, queued });
            let nobody_is_named = self.plan.requests.iter().all(|request| request.owner.is_none());
            if queued > 0 && nobody_is_named && running < self.plan.settings.per_host {
                let what = format!("{queued} wait for a slot and {running} run");
                self.stage.violate(Violation::new("liveness", what));
            }
        }
    }

    /// Returns the titles of attempts by their status; of those with a worktree where it matters.
    fn titles(&self, wanted: impl Fn(AttemptStatus) -> bool) -> Vec<String> {
        let any = wanted(AttemptStatus::Removed) && wanted(AttemptStatus::Ready);
        self.stage.look(|view| {
            let attempts = view.store.attempts();
            let with = attempts.filter(|one| any || one.workspace.worktree().is_some());
            with.filter(|one| wanted(one.status)).map(|one| one.title.clone()).collect()
        })
    }

    fn ask_last(&mut self, verb: Verb) {
        let name = format!("the end: {}", verb.of().unwrap_or_default());
        let client = self.clients.add(Request { at_ms: 0, name, owner: None, verb });
        self.schedule(self.now, Due::Ask(client));
    }
}

/// Names what has not ended.
fn unfinished(stage: &Stage) -> Vec<String> {
    stage.look(|view| {
        let open = |record: &ExecutionRecord| record.phase != Phase::Final;
        let executions = view.store.executions().filter(|record| open(record)).map(|record| {
            let name = record.client_key.as_deref().unwrap_or("a git step");
            format!("execution {name} is {}", record.phase.as_str())
        });
        let busy = [AttemptStatus::Creating, AttemptStatus::Committing, AttemptStatus::Removing];
        let attempts = view.store.attempts().filter(|attempt| busy.contains(&attempt.status));
        let attempts =
            attempts.map(|one| format!("attempt {} is {}", one.title, one.status.as_str()));
        executions.chain(attempts).collect()
    })
}
