//! Follow-ups: what must be found out before a message is queued, and how it reaches its command.

use std::sync::Arc;

use uuid::Uuid;
use windlass_core::action::{RunReason, SecretSource};
use windlass_core::attachments::with_paths;
use windlass_core::attempt::{Fact, Input, Request, State, digest};
use windlass_core::driver::Ports;
use windlass_core::id::{AttemptId, ExecutionId, FollowUpId};
use windlass_core::locator::OsBytes;
use windlass_core::process_store::{Kind, Query};
use windlass_core::record::{
    ExecutionRecord, FollowUpRecord, FollowUpState, Recorded as _, request_id,
};
use windlass_core::time::Timestamp;

use super::Host;
use super::attachments;
use super::command::{Answer, Pending};
use super::prelude::{Loaded, Prelude, on_attempt, refuse_closed_task_of};
use super::records::{read, store_error};
use crate::config::AttachmentLimits;
use crate::error::{EngineError, RefusalCode};
use crate::request::{Caller, InputRequest, SendOptions};
use crate::runtime::Runtime;

/// How many executions are read at once to find the last agent.
const PAGE: u32 = 32;

/// A message that may be queued, or that was.
pub(super) enum Sent {
    /// It was queued before.
    Repeated(FollowUpId),
    /// It is new.
    New { loaded: Box<Loaded>, message: Box<FollowUpRecord> },
}

/// What is asked for: a text for an attempt, as a message of this id at this time.
pub(super) struct Message {
    pub(super) caller: Caller,
    pub(super) attempt: AttemptId,
    pub(super) text: String,
    pub(super) with: SendOptions,
    pub(super) limits: AttachmentLimits,
    pub(super) id: FollowUpId,
    pub(super) at: Timestamp,
}

/// Returns the id of the message that a caller sends under a key: the same key gives the same message.
pub(super) fn id_of(caller: &Caller) -> Option<FollowUpId> {
    let request = request_id(caller.owner.as_deref(), caller.key.as_deref()?);
    Some(FollowUpId(Uuid::new_v5(&request, b"follow-up")))
}

/// Makes what an execution gets to read that a message has started. Its key makes repeating it harmless.
pub(super) fn message(execution: ExecutionId, text: String) -> InputRequest {
    let mut text = text;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let key = Uuid::new_v5(&execution.0, b"follow-up");
    InputRequest { execution, key, bytes: OsBytes(text.into_bytes()), secret: false, close: true }
}

/// Prepares a message: whether it was sent before, its attempt, and what it will start.
pub(super) async fn prepare(ports: &Ports, message: Message) -> Result<Sent, EngineError> {
    let Message { caller, attempt, text, with, limits, id, at } = message;
    let mut asked = [attempt.0.as_bytes(), text.as_bytes()].concat();
    if with != SendOptions::default() {
        // Requests have string keys and serialize without fail.
        asked.extend(serde_json::to_vec(&with).unwrap_or_default());
    }
    let digest = digest(&asked);
    if caller.key.is_some()
        && let Some((before, _)) = read::<FollowUpRecord>(ports, id.0).await?
    {
        if before.digest == digest {
            return Ok(Sent::Repeated(id));
        }
        let key = caller.key.unwrap_or_default();
        let reason = format!("the key {key:?} was used for another request");
        return Err(EngineError::refused(RefusalCode::KeyReused, reason));
    }
    let loaded = on_attempt(ports, &caller, attempt).await?;
    refuse_closed_task_of(ports, &loaded).await?;
    let Some(agent) = last_agent(ports, attempt, |_| true).await? else {
        let reason = format!("nothing of {} has run that could be gone on with", attempt.short());
        return Err(EngineError::refused(RefusalCode::WrongState, reason));
    };
    refuse_bare_secrets(&agent)?;
    let attachments = match loaded.state.as_ref().map(State::attempt) {
        Some(of) => {
            let there = &of.attachments;
            if with.reset && of.workspace.worktree().is_none() {
                let reason = "the attempt runs in a directory of yours, which is never put back";
                return Err(EngineError::refused(RefusalCode::NotAWorktree, reason));
            }
            let attach = &with.attach;
            attachments::keep(ports, limits, attempt, &of.workspace, attach, there).await?
        }
        None => Vec::new(),
    };
    let owner = loaded.state.as_ref().and_then(|state| state.attempt().owner.clone());
    // Where it is now: the data directory may have been moved since.
    let workspace = loaded.state.as_ref().map(|state| state.attempt().workspace.path().clone());
    let message = Box::new(FollowUpRecord {
        id,
        attempt,
        owner,
        client_key: caller.key,
        digest,
        text,
        position: 0,
        state: FollowUpState::Queued,
        action: agent.action,
        options: agent.options,
        cwd: workspace.unwrap_or(agent.cwd),
        attachments,
        reset: with.reset,
        execution: None,
        created_at: at,
    });
    Ok(Sent::New { loaded: Box::new(loaded), message })
}

/// Refuses to run something again that needs a secret whose value was given for one run, and which nobody could give again.
pub(super) fn refuse_bare_secrets(record: &ExecutionRecord) -> Result<(), EngineError> {
    let bare = |(_, source): &(&String, &SecretSource)| **source == SecretSource::Memory;
    let Some((name, _)) = record.options.secrets.iter().find(bare) else { return Ok(()) };
    let reason = format!(
        "{} needs the secret {name}, whose value was given for that run alone and is kept nowhere: start another run, with a \
         source for it (--secret {name}=env:…, file:… or cmd:…) if it is to be gone on with",
        record.id.short()
    );
    Err(EngineError::refused(RefusalCode::WrongState, reason))
}

/// Finds what an attempt ran last as its agent.
pub(super) async fn last_agent(
    ports: &Ports,
    attempt: AttemptId,
    wanted: impl Fn(&ExecutionRecord) -> bool,
) -> Result<Option<ExecutionRecord>, EngineError> {
    let mut query = Query::newest(Kind::Execution, PAGE);
    query.parent = Some(attempt.0);
    loop {
        let page = ports.store.list(query.clone()).await.map_err(store_error)?;
        for stored in page.records {
            if let Ok(record) = ExecutionRecord::decode(&stored.record)
                && record.action.run_reason == RunReason::Agent
                && record.superseded_by.is_none()
                && wanted(&record)
            {
                return Ok(Some(record));
            }
        }
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(None),
        }
    }
}

impl<R: Runtime> Host<R> {
    pub(super) fn prelude_of_send(
        &mut self,
        caller: Caller,
        attempt: AttemptId,
        text: String,
        with: SendOptions,
        answer: Answer<FollowUpId>,
    ) {
        if self.parts.input.is_none() {
            let reason = "this engine's backend writes to no standard input";
            let _gone = answer.send(Err(EngineError::refused(RefusalCode::NoInput, reason)));
            return;
        }
        let at = self.parts.runtime.now();
        let id = id_of(&caller).unwrap_or_else(|| FollowUpId::new(at, self.ids.ten()));
        self.hold(attempt);
        let ports = self.parts.ports.clone();
        let limits = self.parts.config.attachments;
        let message = Message { caller, attempt, text, with, limits, id, at };
        self.preludes.push(Box::pin(async move {
            let result = prepare(&ports, message).await;
            Prelude::Send { answer, attempt, result }
        }));
    }

    pub(super) fn on_send(
        &mut self,
        attempt: AttemptId,
        answer: Answer<FollowUpId>,
        result: Result<Sent, EngineError>,
    ) {
        match result {
            Ok(Sent::Repeated(id)) => drop(answer.send(Ok(id))),
            Ok(Sent::New { loaded, message }) => {
                let id = message.id;
                self.insert(*loaded);
                self.ask(attempt, Request::Send { message }, Pending::Sent(answer, id));
            }
            Err(error) => drop(answer.send(Err(error))),
        }
        self.release_hold(attempt);
    }

    /// Writes the message of an execution to its standard input, and closes that.
    pub(super) fn feed_input(&mut self, attempt: AttemptId, execution: ExecutionId) {
        let Some(state) = self.machines.get(&attempt) else { return };
        let record = state.executions().find(|it| it.id == execution);
        let Some(mut text) = record.and_then(|it| it.text.clone()) else { return };
        // Its own before those of others.
        let own = record.iter().flat_map(|it| &it.attachments);
        let attached: Vec<_> = state.attempt().attachments.iter().chain(own).cloned().collect();
        if let (Some(worktree), Some(port)) =
            (state.attempt().workspace.worktree(), &self.parts.ports.attachments)
        {
            let path =
                |name: &str| String::from_utf8_lossy(&port.path(worktree, name).0).into_owned();
            text = with_paths(&text, &attached, path);
        }
        let (ports, input) = (self.parts.ports.clone(), self.parts.input.clone());
        let epoch = Arc::clone(&self.parts.epoch);
        let request = message(execution, text);
        self.preludes.push(Box::pin(async move {
            let operator = Caller::default();
            let sent = crate::input::send(&ports, input.as_deref(), &epoch, &operator, request);
            Prelude::Fed { attempt, execution, result: sent.await }
        }));
    }

    pub(super) fn on_fed(
        &mut self,
        attempt: AttemptId,
        execution: ExecutionId,
        result: Result<(), EngineError>,
    ) {
        match result {
            // Whoever has closed it, or ended, wants no more.
            Ok(()) | Err(EngineError::Refused { .. } | EngineError::Superseded) => {}
            Err(error) => {
                let fact = Fact::InDoubt { execution, message: error.to_string() };
                self.feed(attempt, Input::Fact(fact));
            }
        }
    }
}
