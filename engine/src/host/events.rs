//! What the loop does with what the driver tells.

use windlass_core::admission;
use windlass_core::attempt::{self, Fact, Input, Reply, RequestId, Slot};
use windlass_core::driver::Event;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::process_store::{ChangeNumber, Kind, Record, Write};
use windlass_core::record::{AttemptStatus, ExecutionRecord, Phase, Recorded as _};

use super::command::{Pending, Subject};
use super::{End, Host};
use crate::error::{EngineError, RefusalCode};
use crate::handle::{Commit, Integrated};
use crate::runtime::Runtime;

impl<R: Runtime> Host<R> {
    pub(super) fn on_event(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Fact { attempt, fact } => self.feed(attempt, Input::Fact(fact)),
            Event::Persisted { attempt, number, writes } => {
                self.on_persisted(number, writes);
                self.drop_if_idle(attempt);
            }
            Event::WakeAt { attempt, at } => {
                self.wakes.insert((at, attempt));
            }
            Event::Reply { request, reply } => self.on_reply(request, reply),
            Event::TakeSlot { slot, owner, adopted, attempt } => {
                self.slot_waiters.insert(slot, attempt);
                self.admit(if adopted {
                    admission::Input::Adopt { slot, owner }
                } else {
                    admission::Input::Wait { slot, owner }
                });
            }
            Event::ReleaseSlot(slot) => {
                self.slot_waiters.remove(&slot);
                self.admit(admission::Input::Release(slot));
            }
            Event::Feed { attempt, execution } => self.feed_input(attempt, execution),
            Event::Trouble { attempt: _, error } => return Some(End::Trouble(error)),
        }
        None
    }

    /// Feeds admission and tells the attempts that were admitted.
    pub(super) fn admit(&mut self, input: admission::Input) {
        let full =
            std::mem::replace(&mut self.admission, admission::State::new(self.parts.config.limits));
        let step = full.step(input);
        self.admission = step.state;
        for effect in step.effects {
            match effect {
                admission::Effect::Admit(slot) => {
                    if let Some(attempt) = self.slot_waiters.get(&slot).copied() {
                        self.feed(attempt, Input::Fact(Fact::Admitted(slot)));
                    }
                }
                // Only a request can be queued by name or refused; it looks at the effects itself.
                admission::Effect::Queue { .. } | admission::Effect::Refuse { .. } => {}
            }
        }
    }

    fn on_persisted(&mut self, number: ChangeNumber, writes: Vec<Write>) {
        self.tell_change(number);
        // The attempt is written first, and tells whether its chain is over.
        for write in writes.into_iter().rev() {
            let Write::Put { record, .. } = write else { continue };
            self.pump(&record);
            self.parts.port_blocks.note(&record);
            self.keep_or_forget_secrets(&record);
            if let Some(watchers) = self.watchers.get_mut(&record.key) {
                watchers.retain(|watcher| watcher.unbounded_send(record.clone()).is_ok());
                if watchers.is_empty() {
                    self.watchers.remove(&record.key);
                }
            }
        }
    }

    /// Forgets the bare secrets of what is final, unless something of its chain may follow and need them.
    fn keep_or_forget_secrets(&self, record: &Record) {
        let secrets = &self.parts.secrets;
        let id = ExecutionId(record.key.id);
        if record.key.kind == Kind::Attempt {
            let active = [AttemptStatus::Running, AttemptStatus::Committing];
            if active.iter().all(|status| record.state != status.as_str()) {
                secrets.chain_is_over(AttemptId(record.key.id));
            }
        } else if record.key.kind == Kind::Execution
            && record.state == Phase::Final.as_str()
            && secrets.has(id)
        {
            match ExecutionRecord::decode(record) {
                Ok(ExecutionRecord { followed_by: Some(next), .. }) => secrets.hand_on(id, next),
                Ok(record) if record.action.next.is_some() => {
                    secrets.keep_for_chain(record.attempt, id);
                }
                Ok(_) | Err(_) => secrets.forget(id),
            }
        }
    }

    /// Notes that a batch is durable, and tells those who wait for changes.
    pub(super) fn tell_change(&mut self, number: ChangeNumber) {
        self.has_persisted = true;
        self.last_change = self.last_change.max(number);
        let last = self.last_change;
        for (_, waiter) in self.change_waiters.extract_if(.., |(after, _)| *after < last) {
            let _gone = waiter.send(());
        }
    }

    fn on_reply(&mut self, request: RequestId, reply: Reply) {
        let Some(pending) = self.pending.remove(&request) else { return };
        match (pending, reply) {
            (pending, Reply::Refused(refusal)) => {
                if let Pending::Accepted { accepted, key, .. } = &pending {
                    self.parts.secrets.forget(accepted.execution);
                    self.key_is_done(*key);
                }
                let subject = match &pending {
                    Pending::Done(_, subject) => *subject,
                    Pending::Accepted { .. }
                    | Pending::Commit(_)
                    | Pending::Integrate(_)
                    | Pending::Sent(..) => Subject::Attempt,
                };
                pending.fail(refused(refusal, subject));
            }
            (Pending::Accepted { accepted, key, answer }, _) => {
                let _gone = answer.send(Ok(accepted));
                self.key_is_done(key);
            }
            (Pending::Done(answer, _), _) => drop(answer.send(Ok(()))),
            (Pending::Integrate(answer), Reply::Integrated { execution, conclusion }) => {
                let _gone = answer.send(Ok(Integrated { execution, conclusion }));
            }
            // Nothing else is answered to it; whoever asks again is told what came of it.
            (Pending::Integrate(answer), _) => drop(answer.send(Err(EngineError::Closing))),
            (Pending::Sent(answer, id), _) => drop(answer.send(Ok(id))),
            (Pending::Commit(answer), Reply::Committing(id)) => {
                let _gone = answer.send(Ok(Commit::Started(id)));
            }
            (
                Pending::Commit(answer),
                Reply::Clean
                | Reply::Accepted
                | Reply::Removed
                | Reply::Restored
                | Reply::Integrated { .. },
            ) => {
                let _gone = answer.send(Ok(Commit::Clean));
            }
        }
    }

    /// Lets the requests that waited for one with the same key go on: they find its record.
    pub(super) fn key_is_done(&mut self, key: uuid::Uuid) {
        for command in self.keys.remove(&key).unwrap_or_default() {
            self.on_command(command);
        }
        self.start_is_done(key);
    }

    pub(super) fn slot_of_attempt(&mut self, slot: Slot, attempt: AttemptId) {
        self.slot_waiters.insert(slot, attempt);
    }
}

fn refused(refusal: attempt::Refusal, subject: Subject) -> EngineError {
    let code = match refusal.code {
        attempt::RefusalCode::Busy => RefusalCode::Busy,
        attempt::RefusalCode::DevServerRuns => RefusalCode::DevServerRuns,
        attempt::RefusalCode::WorkspaceGone => RefusalCode::WorkspaceGone,
        attempt::RefusalCode::WorkspaceMismatch => RefusalCode::WorkspaceMismatch,
        attempt::RefusalCode::Unsaved => RefusalCode::Unsaved,
        attempt::RefusalCode::Unfinished => RefusalCode::Unfinished,
        attempt::RefusalCode::NotAWorktree => RefusalCode::NotAWorktree,
        attempt::RefusalCode::RepositoryBusy => RefusalCode::RepositoryBusy,
        attempt::RefusalCode::RepositoryGone => RefusalCode::RepositoryGone,
        attempt::RefusalCode::WrongState => RefusalCode::WrongState,
        attempt::RefusalCode::SnapshotQuota => RefusalCode::SnapshotQuota,
        attempt::RefusalCode::NoSnapshot => RefusalCode::NoSnapshot,
        attempt::RefusalCode::DamagedSnapshot => RefusalCode::DamagedSnapshot,
        attempt::RefusalCode::NoFollowUp => RefusalCode::NoFollowUp,
        attempt::RefusalCode::Conflict => RefusalCode::Conflict,
        attempt::RefusalCode::QueueFull => RefusalCode::QueueFull,
        attempt::RefusalCode::Full => RefusalCode::Full,
        attempt::RefusalCode::Dirty => RefusalCode::Dirty,
        attempt::RefusalCode::MergeConflict => RefusalCode::MergeConflict,
        attempt::RefusalCode::NoTarget => RefusalCode::NoTarget,
        attempt::RefusalCode::NothingToDo => RefusalCode::NothingToDo,
        attempt::RefusalCode::Unsupported => RefusalCode::Unsupported,
        attempt::RefusalCode::Failed => RefusalCode::Git,
        attempt::RefusalCode::NoExecution => {
            return match subject {
                Subject::Execution(id) => EngineError::no_execution(id),
                Subject::Attempt => EngineError::NotFound { what: "execution".to_owned() },
            };
        }
    };
    EngineError::refused(code, refusal.message)
}
