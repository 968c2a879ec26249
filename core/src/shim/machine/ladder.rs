//! The stop ladder: interrupt if asked, TERM, grace, KILL; then survivors are named.
//!
//! It ends whatever lives of the tree, be it the whole execution or what a natural exit left. Every rung watches the
//! tree, not the leader.

use super::{Effect, KILL_WAIT_MS, Now, Phase, Signal, State};
use crate::execution::{EndCause, SurvivorReason};
use crate::shim::journal::{Record, Stopping};

/// The first pause between two passes of killing, in milliseconds; it doubles.
const FIRST_PASS_MS: u64 = 10;
/// The longest such pause, in milliseconds.
const LONGEST_PASS_MS: u64 = 640;

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ladder {
    grace_ms: u64,
    interrupt_ms: u64,
    rung: Rung,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    /// Whether there is anything left to signal is being looked at.
    Foot,
    /// The interrupt is out.
    Interrupt { until_ms: u64 },
    /// TERM is out.
    Term { until_ms: u64, rest_told: bool },
    /// KILL is out, and goes out again.
    Kill { until_ms: u64, pass_at_ms: u64, pause_ms: u64 },
}

impl Ladder {
    pub(super) fn new(grace_ms: u64, interrupt_ms: u64) -> Self {
        Self { grace_ms, interrupt_ms, rung: Rung::Foot }
    }

    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        match self.rung {
            Rung::Foot => None,
            Rung::Interrupt { until_ms } | Rung::Term { until_ms, .. } => Some(until_ms),
            Rung::Kill { until_ms, pass_at_ms, .. } => Some(until_ms.min(pass_at_ms)),
        }
    }

    /// Lets the shorter grace count, from now on.
    fn hurry(&mut self, now: Now, grace_ms: u64) {
        self.grace_ms = self.grace_ms.min(grace_ms);
        let latest = now.boot_ms.saturating_add(grace_ms);
        match &mut self.rung {
            Rung::Interrupt { until_ms } | Rung::Term { until_ms, .. } => {
                *until_ms = latest.min(*until_ms);
            }
            Rung::Foot | Rung::Kill { .. } => {}
        }
    }
}

impl State {
    /// Begins to end a running execution, durably before the first signal.
    pub(super) fn begin_stop(
        &mut self,
        now: Now,
        cause: EndCause,
        grace_ms: u64,
        interrupt_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        self.stopping = Some(cause);
        self.stop_grace_ms = Some(grace_ms);
        self.phase = Phase::Ending(Ladder::new(grace_ms, interrupt_ms));
        let stopping = Stopping { cause, epoch: self.epoch, at: now.wall };
        out.push(Effect::Persist(vec![Record::Stopping(stopping)]));
        out.push(Effect::Look);
    }

    /// Lets a further stop shorten the one that is going on.
    pub(super) fn hurry_stop(&mut self, now: Now, grace_ms: u64, out: &mut Vec<Effect>) {
        self.stop_grace_ms = Some(self.stop_grace_ms.map_or(grace_ms, |ms| ms.min(grace_ms)));
        if let Phase::Ending(ladder) = &mut self.phase {
            ladder.hurry(now, grace_ms);
            self.climb(now, false, out);
        }
    }

    /// Ends what a natural exit left, because somebody asked for it.
    pub(super) fn stop_leftovers(&mut self, now: Now, grace_ms: u64, out: &mut Vec<Effect>) {
        self.stop_grace_ms = Some(grace_ms);
        self.phase = Phase::Ending(Ladder::new(grace_ms, 0));
        self.climb(now, false, out);
    }

    /// Goes on with the stop after a look at the children, or as time passed.
    pub(super) fn climb(&mut self, now: Now, leader_just_exited: bool, out: &mut Vec<Effect>) {
        let Phase::Ending(mut ladder) = self.phase.clone() else { return };
        if self.tree_is_dead() {
            self.conclude(out);
            return;
        }
        match ladder.rung {
            Rung::Foot if ladder.interrupt_ms > 0 => {
                let until_ms = now.boot_ms.saturating_add(ladder.interrupt_ms);
                ladder.rung = Rung::Interrupt { until_ms };
                self.signal(Signal::Interrupt, out);
            }
            Rung::Foot => self.terminate(now, &mut ladder, out),
            Rung::Interrupt { until_ms } if now.boot_ms >= until_ms => {
                self.terminate(now, &mut ladder, out);
            }
            Rung::Term { until_ms, .. } if now.boot_ms >= until_ms => {
                self.kill(now, &mut ladder, out);
            }
            // The group was told; what left it hears of it when the leader did not pass it on.
            Rung::Term { until_ms, rest_told: false } if leader_just_exited => {
                ladder.rung = Rung::Term { until_ms, rest_told: true };
                out.push(Effect::SignalRest(Signal::Terminate));
            }
            Rung::Kill { until_ms, .. } if now.boot_ms >= until_ms => {
                self.phase = Phase::Naming;
                out.push(Effect::NameSurvivors { reason: SurvivorReason::Unkillable });
                return;
            }
            Rung::Kill { until_ms, pass_at_ms, pause_ms } => {
                if now.boot_ms >= pass_at_ms {
                    let pass_at_ms = now.boot_ms.saturating_add(pause_ms);
                    let pause_ms = pause_ms.saturating_mul(2).min(LONGEST_PASS_MS);
                    ladder.rung = Rung::Kill { until_ms, pass_at_ms, pause_ms };
                }
                out.push(Effect::KillTree);
            }
            Rung::Interrupt { .. } | Rung::Term { .. } => {}
        }
        self.phase = Phase::Ending(ladder);
    }

    fn terminate(&mut self, now: Now, ladder: &mut Ladder, out: &mut Vec<Effect>) {
        if ladder.grace_ms == 0 || planted!(KilledWithoutTerm) {
            self.kill(now, ladder, out);
            return;
        }
        let until_ms = now.boot_ms.saturating_add(ladder.grace_ms);
        let rest_told = self.leader.is_some();
        ladder.rung = Rung::Term { until_ms, rest_told };
        self.signal(Signal::Terminate, out);
        if rest_told {
            out.push(Effect::SignalRest(Signal::Terminate));
        }
    }

    fn signal(&mut self, signal: Signal, out: &mut Vec<Effect>) {
        self.after_our_signal |= self.leader.is_none();
        out.push(Effect::SignalGroup(signal));
    }

    fn kill(&mut self, now: Now, ladder: &mut Ladder, out: &mut Vec<Effect>) {
        self.after_our_signal |= self.leader.is_none();
        ladder.rung = Rung::Kill {
            until_ms: now.boot_ms.saturating_add(KILL_WAIT_MS),
            pass_at_ms: now.boot_ms.saturating_add(FIRST_PASS_MS),
            pause_ms: FIRST_PASS_MS * 2,
        };
        out.push(Effect::KillTree);
    }
}
