//! How an attempt goes on: messages that start its command again, one after the other, and another try.

use windlass_core::attempt::FollowUpChange;
use windlass_core::id::{AttemptId, FollowUpId};
use windlass_core::process_store::{Kind, ProcessStoreExt as _, Query, Revision};
use windlass_core::record::{FollowUpRecord, FollowUpState, Recorded as _};

use super::Handle;
use crate::error::EngineError;
use crate::host::changes::Change;
use crate::host::command::Command;
use crate::host::records::{read, read_attempt, store_error, visible};
use crate::request::{Accepted, Caller, RetryRequest, SendOptions};

/// The most bytes of a message.
const TEXT_BYTES: usize = 64 << 10;

/// A message with the number of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowUp {
    /// What is recorded of it.
    pub record: FollowUpRecord,
    /// Its version.
    pub version: Revision,
}

impl Handle {
    /// Queues a message for an attempt. When its chain is over and nothing speaks against it, the attempt's command is run
    /// again with the message on its standard input, then its cleanup; setup is not. A removed worktree is made again first.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where nothing has run yet, its worktree cannot be made again, its task is closed, or too
    /// many wait.
    pub async fn send(
        &self,
        caller: Caller,
        attempt: AttemptId,
        text: String,
    ) -> Result<FollowUp, EngineError> {
        self.send_with(caller, attempt, text, SendOptions::default()).await
    }

    /// Does the same with what comes with the message. Files are copied before it is queued, and are in the worktree before
    /// anything starts there; names of theirs that the text links to become paths. With a reset, what is in the worktree and
    /// not committed is saved in a snapshot and undone before the message is run; where it cannot be, the message is held.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`EngineError::Refused`] with
    /// [`CannotAttach`](crate::error::RefusalCode::CannotAttach) for what is no plain file, or too large.
    pub async fn send_with(
        &self,
        caller: Caller,
        attempt: AttemptId,
        text: String,
        with: SendOptions,
    ) -> Result<FollowUp, EngineError> {
        check_text(&text)?;
        super::check_attached(&with.attach)?;
        let who = caller.clone();
        let id = self.ask(|answer| Command::Send { caller, attempt, text, with, answer }).await?;
        self.follow_up(&who, id).await
    }

    /// Changes a message that waits, if it is at a version; returns it as it is then.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] with
    /// [`NoFollowUp`](crate::error::RefusalCode::NoFollowUp) for one that does not wait any more and with
    /// [`Conflict`](crate::error::RefusalCode::Conflict) for another version.
    pub async fn change_follow_up(
        &self,
        caller: Caller,
        id: FollowUpId,
        version: Option<Revision>,
        change: FollowUpChange,
    ) -> Result<FollowUp, EngineError> {
        if let FollowUpChange::Replace(text) = &change {
            check_text(text)?;
        }
        let FollowUp { record, .. } = self.follow_up(&caller, id).await?;
        let change = Change::FollowUp { follow_up: id, version, change };
        self.change(caller.clone(), record.attempt, change).await?;
        self.follow_up(&caller, id).await
    }

    /// Holds the queue of an attempt: nothing of it starts, also after the end of its chain. Or lets it flow again.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] if its task is closed.
    pub async fn hold_queue(
        &self,
        caller: Caller,
        attempt: AttemptId,
        held: bool,
    ) -> Result<(), EngineError> {
        self.change(caller, attempt, Change::HoldQueue { held }).await
    }

    /// Tries again: what was done in an attempt since an execution of its chain is saved and undone, and that is run again,
    /// with what follows it. What ran since stays in the history, as superseded. The answer names an execution that is
    /// recorded once the worktree is put back; [`at_rest`](Self::at_rest) tells if nothing came of it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] while anything runs in the attempt, in a directory of the user's, or where the execution never
    /// began.
    pub async fn retry(
        &self,
        caller: Caller,
        request: RetryRequest,
    ) -> Result<Accepted, EngineError> {
        if let Some(text) = &request.text {
            check_text(text)?;
        }
        self.ask(|answer| Command::Retry { caller, request, answer }).await
    }

    /// Reads one message.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn follow_up(
        &self,
        caller: &Caller,
        id: FollowUpId,
    ) -> Result<FollowUp, EngineError> {
        let found = read::<FollowUpRecord>(&self.ports, id.0).await?;
        let seen = found.filter(|(record, _)| visible(caller.owner.as_deref(), &record.owner));
        let missing = || EngineError::NotFound { what: format!("message {}", id.short()) };
        let (record, stored) = seen.ok_or_else(missing)?;
        Ok(FollowUp { record, version: stored.revision })
    }

    /// Lists the messages of an attempt in the order of their positions: those that wait, or `all`.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn follow_ups(
        &self,
        caller: &Caller,
        attempt: AttemptId,
        all: bool,
    ) -> Result<Vec<FollowUp>, EngineError> {
        let of = read_attempt(&self.ports, caller.owner.as_deref(), attempt).await?;
        if of.follow_ups == 0 {
            return Ok(Vec::new());
        }
        let mut query = Query::newest(Kind::FollowUp, Query::MAX_LIMIT);
        query.parent = Some(attempt.0);
        let wanted = FollowUpState::ALL.into_iter().filter(|state| all || state.waits());
        query.states = wanted.map(|state| state.as_str().to_owned()).collect();
        let mut found = Vec::new();
        for stored in self.ports.store.list_all(query).await.map_err(store_error)? {
            // What a newer version wrote cannot be shown by this one; `check` reports it.
            if let Ok(record) = FollowUpRecord::decode(&stored.record) {
                found.push(FollowUp { record, version: stored.revision });
            }
        }
        found.sort_by_key(|message| message.record.position);
        Ok(found)
    }
}

fn check_text(text: &str) -> Result<(), EngineError> {
    if text.trim().is_empty() {
        let reason = "the message is empty".to_owned();
        return Err(EngineError::Invalid { reason });
    }
    if text.len() > TEXT_BYTES {
        let reason = format!("a message has at most {} KiB", TEXT_BYTES >> 10);
        return Err(EngineError::Invalid { reason });
    }
    Ok(())
}
