//! Another try: what must be found out before the worktree is put back and an execution is run again.

use windlass_core::action::{RunReason, Stdin};
use windlass_core::attempt::{Request, State};
use windlass_core::driver::Ports;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::process_store::{Kind, ProcessStoreExt as _, Query, Revision};
use windlass_core::record::{AttemptRecord, ExecutionRecord, NewExecution, Phase, Recorded as _};

use super::Host;
use super::command::{Answer, Command, Pending};
use super::follow_ups::{last_agent, refuse_bare_secrets};
use super::new_records::NewRecord;
use super::prelude::{
    Found, Loaded, Prelude, Start, on_attempt, refuse_closed_task_of, repeated, room,
};
use super::records::{read_execution, store_error};
use crate::error::{EngineError, RefusalCode};
use crate::request::{Accepted, Caller, RetryRequest};
use crate::runtime::Runtime;

/// What is run again, and what it is run instead of.
pub(super) struct Again {
    pub(super) loaded: Loaded,
    pub(super) chosen: ExecutionRecord,
    pub(super) superseded: Vec<(ExecutionRecord, Revision)>,
    /// What it is to read in place of what it read.
    pub(super) text: Option<String>,
}

/// Finds out what another try needs.
pub(super) async fn prepare(
    ports: &Ports,
    caller: &Caller,
    request: RetryRequest,
    found: &Found,
) -> Result<Start<Box<Again>>, EngineError> {
    let owner = caller.owner.as_deref();
    if caller.key.is_some()
        && let Some(accepted) = repeated(ports, owner, found).await?
    {
        return Ok(Start::Repeated(accepted));
    }
    room(ports).await?;
    let RetryRequest { attempt, from, text } = request;
    let loaded = on_attempt(ports, caller, attempt).await?;
    refuse_closed_task_of(ports, &loaded).await?;
    let wrong = |reason: String| EngineError::refused(RefusalCode::WrongState, reason);
    let workspace = loaded.state.as_ref().map(|state| &state.attempt().workspace);
    if workspace.is_some_and(|workspace| workspace.worktree().is_none()) {
        let reason = "the attempt runs in a directory of yours, which is never put back";
        return Err(EngineError::refused(RefusalCode::NotAWorktree, reason));
    }
    let chosen = match from {
        Some(id) => read_execution(ports, owner, id).await?,
        None => {
            let began = |record: &ExecutionRecord| record.before_head.is_some();
            last_agent(ports, attempt, began).await?.ok_or_else(|| {
                wrong(format!("nothing of {} has run that could be tried again", attempt.short()))
            })?
        }
    };
    let id = chosen.id.short();
    if chosen.attempt != attempt {
        return Err(wrong(format!("{id} is none of {}", attempt.short())));
    }
    match chosen.action.run_reason {
        RunReason::Setup | RunReason::Agent | RunReason::Cleanup => {}
        RunReason::DevServer | RunReason::Background | RunReason::Git => {
            return Err(wrong(format!("{id} is no part of a chain")));
        }
    }
    if chosen.phase != Phase::Final {
        let reason = format!("{id} has not ended");
        return Err(EngineError::refused(RefusalCode::Busy, reason));
    }
    if text.is_some() && chosen.action.run_reason != RunReason::Agent {
        return Err(wrong(format!("{id} is a script, which reads no message")));
    }
    if chosen.before_head.is_none() {
        return Err(wrong(format!(
            "{id} never began, so that nothing can be put back to before it"
        )));
    }
    refuse_bare_secrets(&chosen)?;
    let superseded = since(ports, attempt, &chosen).await?;
    Ok(Start::New(Box::new(Again { loaded, chosen, superseded, text })))
}

/// Lists what its chain, and those after it, have run since an execution, that included.
async fn since(
    ports: &Ports,
    attempt: AttemptId,
    chosen: &ExecutionRecord,
) -> Result<Vec<(ExecutionRecord, Revision)>, EngineError> {
    let mut query = Query::newest(Kind::Execution, Query::MAX_LIMIT);
    query.parent = Some(attempt.0);
    let mut found = Vec::new();
    for stored in ports.store.list_all(query).await.map_err(store_error)? {
        // What a newer version wrote is left as it is.
        let Ok(record) = ExecutionRecord::decode(&stored.record) else { continue };
        let is_later = (record.created_at, record.id) >= (chosen.created_at, chosen.id);
        if is_later && record.action.run_reason.in_chain() && record.superseded_by.is_none() {
            found.push((record, stored.revision));
        }
    }
    Ok(found)
}

/// What is to be run again was chosen among what had run: that may be more by now.
fn changed_meanwhile(attempt: AttemptId) -> EngineError {
    let reason = format!("{} has gone on while it was looked at: ask again", attempt.short());
    EngineError::refused(RefusalCode::Busy, reason)
}

/// Makes what the machine is asked, and what is told of it, once the attempt is as it is.
pub(super) fn begin(
    new: &NewRecord<'_>,
    id: ExecutionId,
    attempt: Option<&AttemptRecord>,
    (chosen, text): (ExecutionRecord, Option<String>),
    superseded: Vec<(ExecutionRecord, Revision)>,
) -> (Request, Accepted) {
    let owner = attempt.and_then(|attempt| attempt.owner.clone());
    // Where it is now: the data directory may have been moved since.
    let cwd = attempt.map_or(chosen.cwd, |attempt| attempt.workspace.path().clone());
    let mut options = chosen.options;
    if text.is_some() {
        options.stdin = Stdin::Messages;
    } else if chosen.text.is_none() && options.stdin == Stdin::Messages {
        // What was typed then is not typed again, and nobody would end it.
        options.stdin = Stdin::Null;
    }
    let mut execution = ExecutionRecord::queued(NewExecution {
        id,
        attempt: new.found.attempt,
        owner,
        client_key: Some(new.found.client_key.clone()),
        action: chosen.action,
        options,
        repository_lock: None,
        cwd,
        at: new.at,
    });
    execution.before_head = chosen.before_head;
    execution.text = text.or(chosen.text);
    execution.attachments = chosen.attachments;
    let (attempt, unmatched) = (new.found.attempt, Vec::new());
    let accepted = Accepted { attempt, execution: id, source_is_dirty: false, unmatched };
    let key = new.request(id);
    (Request::Retry { execution: Box::new(execution), superseded, key }, accepted)
}

impl<R: Runtime> Host<R> {
    pub(super) fn prelude_of_retry(
        &mut self,
        caller: Caller,
        request: RetryRequest,
        answer: Answer<Accepted>,
    ) {
        if request.text.is_some() && self.parts.input.is_none() {
            let reason = "this engine's backend writes to no standard input";
            let _gone = answer.send(Err(EngineError::refused(RefusalCode::NoInput, reason)));
            return;
        }
        let found = self.name(&caller, request.attempt, &request);
        if let Some(waiting) = self.keys.get_mut(&found.key) {
            waiting.push(Command::Retry { caller, request, answer });
            return;
        }
        self.keys.insert(found.key, Vec::new());
        self.hold(found.attempt);
        let ports = self.parts.ports.clone();
        self.preludes.push(Box::pin(async move {
            let result = prepare(&ports, &caller, request, &found).await;
            Prelude::Retry { caller, answer, found, result }
        }));
    }

    pub(super) fn on_retry(
        &mut self,
        caller: Caller,
        answer: Answer<Accepted>,
        found: Found,
        result: Result<Start<Box<Again>>, EngineError>,
    ) {
        let attempt = found.attempt;
        match result {
            Ok(Start::New(again)) => self.begin_retry(caller, answer, found, *again),
            Ok(Start::Repeated(accepted)) => {
                self.repeat(accepted, Default::default(), answer, found.key);
            }
            Err(error) => self.fail_start(answer, found.key, error),
        }
        self.release_hold(attempt);
    }

    fn begin_retry(
        &mut self,
        caller: Caller,
        answer: Answer<Accepted>,
        found: Found,
        again: Again,
    ) {
        let Again { loaded, chosen, superseded, text } = again;
        let since = loaded.state.as_ref().map(State::revision);
        self.insert(loaded);
        if self.machines.get(&found.attempt).map(State::revision) != since {
            return self.fail_start(answer, found.key, changed_meanwhile(found.attempt));
        }
        let at = self.parts.runtime.now();
        let id = ExecutionId::new(at, self.ids.ten());
        let attempt = self.machines.get(&found.attempt).map(State::attempt);
        let new = NewRecord { lease: self.lease, caller: &caller, found: &found, at };
        let (request, accepted) = begin(&new, id, attempt, (chosen, text), superseded);
        self.ask(found.attempt, request, Pending::Accepted { accepted, key: found.key, answer });
    }
}
