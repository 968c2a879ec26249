//! Follow-ups: messages that wait for an attempt, and the chain that each of them starts.

use uuid::Uuid;

use super::{RefusalCode, Reply, RequestId, State, Tracked, Turn, WorkspaceStep};
use crate::action::Stdin;
use crate::attachments::{Attachment, name_for};
use crate::id::{ExecutionId, FollowUpId};
use crate::process_store::Revision;
use crate::record::{
    AttemptStatus, ExecutionRecord, FollowUpRecord, FollowUpState, Hold, NewExecution, Reason,
};

/// How many messages may wait for one attempt.
const QUEUE_LENGTH: u32 = 100;

/// A message as the machine knows it: it waits, or the active chain is about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) record: FollowUpRecord,
    /// 0: not stored yet.
    pub(super) revision: Revision,
}

/// What is to be changed of a message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowUpChange {
    /// It says something else.
    Replace(String),
    /// It is taken back.
    Cancel,
}

impl State {
    /// The same with the messages that wait, and the one that the active chain is about.
    #[must_use]
    pub fn with_queue(self, messages: Vec<(FollowUpRecord, Revision)>) -> Self {
        let message = |(record, revision)| Message { record, revision };
        let mut queue: Vec<_> = messages.into_iter().map(message).collect();
        queue.sort_by_key(|message| message.record.position);
        Self { queue, ..self }
    }

    /// Says whether nothing of the queue starts.
    pub(super) fn holds(&self) -> bool {
        self.attempt.queue_held.is_some()
    }

    pub(super) fn on_send(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        mut record: FollowUpRecord,
    ) {
        if self.queue.iter().any(|message| message.record.id == record.id) {
            // The same request once more, before the first one was heard of.
            turn.reply(request, Reply::Accepted);
            return;
        }
        if self.attempt.queue >= QUEUE_LENGTH {
            let message = format!("{QUEUE_LENGTH} messages wait for it already");
            turn.refuse(request, RefusalCode::QueueFull, message);
            return;
        }
        if self.attempt.queue == 0 && self.attempt.queue_held != Some(Hold::Asked) {
            // Whoever sends it knows how the chain before ended.
            self.attempt.queue_held = None;
        }
        self.restore_for_queue(turn);
        if let Some(message) = self.workspace_gone() {
            turn.refuse(request, RefusalCode::WorkspaceGone, message);
            return;
        }
        // Names are given out by whoever keeps the files, and may have been given to another message meanwhile.
        for new in &mut record.attachments {
            let is_same = |it: &&Attachment| it.called == new.called && it.sha256 == new.sha256;
            match self.attempt.attachments.iter().find(is_same) {
                Some(known) => new.name.clone_from(&known.name),
                None => {
                    new.name = name_for(&new.called, &self.attempt.attachments);
                    self.attempt.attachments.push(new.clone());
                }
            }
        }
        self.attempt.follow_ups += 1;
        self.attempt.queue += 1;
        turn.attempt_changed = true;
        record.position = self.attempt.follow_ups;
        record.state = if self.holds() { FollowUpState::Held } else { FollowUpState::Queued };
        turn.tell(record.id);
        self.queue.push(Message { record, revision: Revision(0) });
        turn.reply(request, Reply::Accepted);
        self.take_follow_up(turn);
    }

    /// Begins to make a removed worktree again if its queue flows.
    fn restore_for_queue(&mut self, turn: &mut Turn<'_>) {
        if self.attempt.status == AttemptStatus::Removed && !self.holds() && self.can_be_restored()
        {
            self.begin_restore(turn, None);
        }
    }

    pub(super) fn on_change_follow_up(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        id: FollowUpId,
        version: Option<Revision>,
        change: FollowUpChange,
    ) {
        let waits =
            |message: &&mut Message| message.record.id == id && message.record.state.waits();
        let Some(message) = self.queue.iter_mut().find(waits) else {
            let message = format!("{} does not wait any more", id.short());
            turn.refuse(request, RefusalCode::NoFollowUp, message);
            return;
        };
        if let Some(version) = version.filter(|version| *version != message.revision) {
            let (now, was) = (message.revision.0, version.0);
            let message =
                format!("{} is at version {now}, not {was}: it was changed meanwhile", id.short());
            turn.refuse(request, RefusalCode::Conflict, message);
            return;
        }
        match change {
            FollowUpChange::Replace(text) => message.record.text = text,
            FollowUpChange::Cancel => {
                message.record.state = FollowUpState::Cancelled;
                self.attempt.queue -= 1;
                if self.attempt.queue == 0 && self.attempt.queue_held != Some(Hold::Asked) {
                    self.attempt.queue_held = None;
                }
                turn.attempt_changed = true;
            }
        }
        turn.tell(id);
        turn.reply(request, Reply::Accepted);
    }

    pub(super) fn on_hold_queue(&mut self, turn: &mut Turn<'_>, request: RequestId, held: bool) {
        if held {
            self.hold_queue(turn, Hold::Asked);
        } else if self.holds() {
            self.attempt.queue_held = None;
            turn.attempt_changed = true;
            self.mark(turn, FollowUpState::Held, FollowUpState::Queued);
            if self.attempt.queue > 0 {
                self.restore_for_queue(turn);
            }
        }
        if !held {
            self.take_follow_up(turn);
        }
        turn.reply(request, Reply::Accepted);
    }

    pub(super) fn hold_queue(&mut self, turn: &mut Turn<'_>, hold: Hold) {
        self.attempt.queue_held = Some(hold);
        turn.attempt_changed = true;
        self.mark(turn, FollowUpState::Queued, FollowUpState::Held);
    }

    fn mark(&mut self, turn: &mut Turn<'_>, from: FollowUpState, to: FollowUpState) {
        for message in self.queue.iter_mut().filter(|message| message.record.state == from) {
            message.record.state = to;
            turn.tell(message.record.id);
        }
    }

    /// Starts the first message that waits, if nothing speaks against it: in one batch it is consumed by an execution, and
    /// that is recorded.
    pub(super) fn take_follow_up(&mut self, turn: &mut Turn<'_>) {
        let at_rest = match self.attempt.status {
            AttemptStatus::Ready
            | AttemptStatus::Held
            | AttemptStatus::Parked
            | AttemptStatus::Finished => true,
            AttemptStatus::Creating
            | AttemptStatus::Running
            | AttemptStatus::Committing
            | AttemptStatus::Removing
            | AttemptStatus::Removed
            | AttemptStatus::Failed => false,
        };
        let free = at_rest
            && self.attempt.claim.is_none()
            && self.attempt.chain.is_none()
            && self.workspace_step == WorkspaceStep::Idle;
        if !free || self.holds() {
            return;
        }
        let queued = |message: &&mut Message| message.record.state == FollowUpState::Queued;
        let Some(message) = self.queue.iter_mut().find(queued) else { return };
        let follow_up = &mut message.record;
        // One that was given back starts another execution.
        let named = Uuid::new_v5(&follow_up.id.0, &message.revision.0.to_be_bytes());
        let mut random = [0; 10];
        random.copy_from_slice(&named.as_bytes()[..10]);
        let id = ExecutionId::new(turn.at, random);
        follow_up.state = FollowUpState::Consumed;
        follow_up.execution = Some(id);
        let mut record = ExecutionRecord::queued(NewExecution {
            id,
            attempt: self.attempt.id,
            owner: follow_up.owner.clone(),
            client_key: follow_up.client_key.clone(),
            action: follow_up.action.clone(),
            options: follow_up.options.clone(),
            repository_lock: None,
            cwd: follow_up.cwd.clone(),
            at: turn.at,
        });
        record.options.stdin = Stdin::Messages;
        record.text = Some(follow_up.text.clone());
        record.attachments.clone_from(&follow_up.attachments);
        let resets = follow_up.reset && self.attempt.workspace.worktree().is_some();
        turn.tell(follow_up.id);
        self.attempt.follow_up = Some(follow_up.id);
        self.attempt.queue -= 1;
        if resets {
            self.begin_with_reset(turn, record);
            return;
        }
        self.attempt.chain = Some(id);
        self.attempt.status = AttemptStatus::Running;
        self.attempt.reason = None;
        turn.attempt_changed = true;
        self.executions.insert(id, Tracked::new(record, Revision(0), false));
        turn.touch(id);
        self.take_slot(turn, id, false);
    }

    /// Gives back the message that the active chain is about: nothing of its execution ran.
    pub(super) fn give_back(&mut self, turn: &mut Turn<'_>) {
        let Some(id) = self.attempt.follow_up.take() else { return };
        let Some(message) = self.queue.iter_mut().find(|message| message.record.id == id) else {
            return;
        };
        message.record.state = FollowUpState::Held;
        message.record.execution = None;
        turn.tell(id);
        self.attempt.queue += 1;
        turn.attempt_changed = true;
        let hold = if self.attempt.chain_stopped { Hold::Stopped } else { Hold::NotStarted };
        self.hold_queue(turn, hold);
    }

    /// Goes on with the queue after a chain has ended, or holds it. A stop that came too late for the chain is in time for
    /// what would follow.
    pub(super) fn queue_after_chain(&mut self, turn: &mut Turn<'_>, stopped: bool) {
        self.attempt.follow_up = None;
        let because = match &self.attempt.reason {
            Some(Reason::Stopped) => Some(Hold::Stopped),
            Some(Reason::EndedBadly { .. }) => Some(Hold::EndedBadly),
            Some(Reason::CommitFailed { .. }) => Some(Hold::CommitFailed),
            Some(Reason::ResetFailed { .. }) => Some(Hold::ResetFailed),
            Some(Reason::WorkspaceFailed { .. }) => Some(Hold::NotStarted),
            Some(Reason::CleanupFailed { .. } | Reason::RemoveFailed { .. }) | None => None,
        };
        match if stopped { Some(Hold::Stopped) } else { because } {
            Some(hold) if self.attempt.queue > 0 && !self.holds() => self.hold_queue(turn, hold),
            Some(_) => {}
            None => self.take_follow_up(turn),
        }
    }

    /// Holds the queue of a worktree that could not be made again.
    pub(super) fn hold_what_cannot_start(&mut self, turn: &mut Turn<'_>) {
        if self.attempt.queue > 0 && !self.holds() {
            self.hold_queue(turn, Hold::NotStarted);
        }
    }
}
