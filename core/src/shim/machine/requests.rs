//! What hosts ask for: epochs, stops, and the order of input messages.

use super::{Conn, Effect, KNOWN_INPUTS, Now, Phase, State, To};
use crate::execution::{EndCause, ExecFailure, ExecStep};
use crate::id::Epoch;
use crate::outcome::{NotStarted, StoppedBy};
use crate::shim::message::{
    Input, InputRefusal, MAX_WAITING_INPUT_BYTES, Notice, PROTOCOL_VERSION, Request, Stop, Welcome,
};

impl State {
    pub(super) fn on_asked(
        &mut self,
        now: Now,
        conn: Conn,
        request: Request,
        out: &mut Vec<Effect>,
    ) {
        let to = To::One(conn);
        match request {
            // The one launch is what made this machine.
            Request::Launch(_) => {
                out.push(Effect::Tell { to, notice: Notice::Unsupported { code: 1 } });
            }
            Request::Hello { version: _, epoch } => {
                let current = self.raise(epoch);
                out.push(Effect::Tell { to, notice: self.welcome() });
                if !current {
                    self.superseded(to, out);
                }
            }
            Request::Status => out.push(Effect::Tell { to, notice: self.welcome() }),
            Request::Stop(stop) => {
                if self.raise(stop.epoch) {
                    self.on_stop(now, stop, out);
                    out.push(Effect::Tell { to, notice: Notice::StopTaken });
                } else {
                    self.superseded(to, out);
                }
            }
            Request::Input(input) => {
                if self.raise(input.epoch) {
                    self.on_input(to, input, out);
                } else {
                    self.superseded(to, out);
                }
            }
        }
    }

    /// Takes note of an epoch; returns whether it is the highest.
    fn raise(&mut self, epoch: Epoch) -> bool {
        self.epoch = self.epoch.max(epoch);
        self.epoch == epoch || planted!(EpochNotCompared)
    }

    fn superseded(&self, to: To, out: &mut Vec<Effect>) {
        out.push(Effect::Tell { to, notice: Notice::Superseded { epoch: self.epoch } });
    }

    fn welcome(&self) -> Notice {
        Notice::Welcome(Box::new(Welcome {
            version: PROTOCOL_VERSION,
            execution: self.config.execution,
            nonce: self.config.nonce,
            epoch: self.epoch,
            shim_pid: self.config.shim_pid,
            started: self.started.as_deref().filter(|_| self.executed).cloned(),
            exec_failed: self.exec_failed.filter(|_| self.finished.is_some()),
            stopping: self.stopping,
            exited: self.exit.clone().filter(|_| self.exit_told),
            finished: self.finished.as_deref().cloned(),
            next_input: self.stdin.next,
        }))
    }

    pub(super) fn on_terminated(&mut self, now: Now, out: &mut Vec<Effect>) {
        let cause = EndCause::Stopped { by: StoppedBy::Host };
        let (epoch, grace_ms) = (self.epoch, self.config.grace_ms);
        self.on_stop(now, Stop { epoch, cause, grace_ms, interrupt_ms: 0 }, out);
    }

    fn on_stop(&mut self, now: Now, stop: Stop, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::New | Phase::Forking => {
                let (step, reason) = (ExecStep::Stopped, NotStarted::Stopped);
                self.never_ran(ExecFailure { step, errno: 0, reason, at: now.wall }, out);
            }
            Phase::Running { .. } => {
                self.begin_stop(now, stop.cause, stop.grace_ms, stop.interrupt_ms, out);
            }
            Phase::Settling { .. } => self.stop_leftovers(now, stop.grace_ms, out),
            Phase::Draining
            | Phase::Ending(_)
            | Phase::Naming
            | Phase::Concluding
            | Phase::Sealing
            | Phase::Gone => self.hurry_stop(now, stop.grace_ms, out),
        }
    }

    fn on_input(&mut self, to: To, input: Input, out: &mut Vec<Effect>) {
        let Input { epoch: _, key, position, secret, close, bytes } = input;
        let len = bytes.len() as u64;
        let next = self.stdin.next;
        let refusal = if self.stdin.known.contains(&key) {
            out.push(Effect::Tell { to, notice: Notice::InputTaken { key, position } });
            return;
        } else if self.stdin.closed {
            InputRefusal::Closed
        } else if position != next {
            InputRefusal::NotNext
        } else if self.stdin.waiting_bytes.saturating_add(len) > MAX_WAITING_INPUT_BYTES {
            InputRefusal::Full
        } else {
            self.stdin.next = next.saturating_add(1);
            self.stdin.waiting_bytes = self.stdin.waiting_bytes.saturating_add(len);
            self.stdin.closed = close;
            self.stdin.known.push_back(key);
            if self.stdin.known.len() > KNOWN_INPUTS {
                self.stdin.known.pop_front();
            }
            out.push(Effect::FeedInput { bytes, secret, close });
            out.push(Effect::Tell { to, notice: Notice::InputTaken { key, position } });
            return;
        };
        let notice = Notice::InputRefused { key, position, reason: refusal, next };
        out.push(Effect::Tell { to, notice });
    }

    pub(super) fn close_stdin(&mut self) {
        self.stdin.closed = true;
        self.stdin.waiting_bytes = 0;
    }
}
