//! What the loop does with commands: a prelude first, then an input for a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::channel::mpsc;
use uuid::Uuid;
use windlass_core::action::RunReason;
use windlass_core::admission::{self, Full};
use windlass_core::attempt::{Fact, Input, Request, RequestId, Slot, State};
use windlass_core::container_service::StopCause;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::locator::Locator;
use windlass_core::outcome::StoppedBy;
use windlass_core::process_store::{ChangeNumber, Record, RecordKey};
use windlass_core::record::{ExecutionRecord, Phase};
use windlass_core::time::Timestamp;

use super::attachments;
use super::changes;
use super::command::{Answer, Command, Pending, Subject};
use super::edits::Resolved;
use super::new_records::{self, NewRecord, title};
use super::prelude::{self, Found, Loaded, PlannedRun, Prelude, Start, Stop};
use super::{End, Host};
use crate::error::{EngineError, RefusalCode};
use crate::handle::HostStatus;
use crate::request::{
    Accepted, Caller, ExecRequest, LaunchRequest, RunRequest, StopTarget, TaskRun, WhenFull,
};
use crate::runtime::Runtime;

impl<R: Runtime> Host<R> {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Watch { key, watcher, armed } => {
                self.on_watch(key, watcher);
                let _gone = armed.send(Ok(()));
                return;
            }
            Command::AwaitChange { after, answer } => {
                self.on_await_change(after, answer);
                return;
            }
            Command::Status { answer } => {
                let _gone = answer.send(Ok(self.status()));
                return;
            }
            Command::Queue { slots, answer } => {
                let _gone = answer.send(Ok(self.admission.waiting_before(&slots)));
                return;
            }
            Command::ShutDown { answer } => {
                self.closing.get_or_insert_default().push(answer);
                return;
            }
            command if self.closing.is_some() => {
                command.fail(EngineError::Closing);
                return;
            }
            Command::Run { .. }
            | Command::Exec { .. }
            | Command::Stop { .. }
            | Command::Commit { .. }
            | Command::Integrate { .. }
            | Command::Retry { .. }
            | Command::Send { .. }
            | Command::Change { .. }
            | Command::Turn(_)
            | Command::Gc { .. } => {}
        }
        self.begin_prelude(command);
    }

    fn begin_prelude(&mut self, command: Command) {
        match command {
            Command::Run { caller, request, answer } => {
                self.prelude_of_run(caller, request, answer)
            }
            Command::Exec { caller, request, answer } => {
                self.prelude_of_exec(caller, request, answer);
            }
            Command::Stop { caller, target, cause, grace_ms, answer } => {
                let stop = |execution| Stop { execution, cause, grace_ms, answer };
                match target {
                    StopTarget::Attempt(attempt) => {
                        self.prelude_of_stop(caller, attempt, stop(None));
                    }
                    StopTarget::Execution(id) => {
                        let ports = self.parts.ports.clone();
                        let stop = stop(Some(id));
                        self.preludes.push(Box::pin(async move {
                            let result = prelude::attempt_of(&ports, &caller, id).await;
                            Prelude::Locate { caller, stop, result }
                        }));
                    }
                }
            }
            Command::Commit { caller, attempt, message, answer } => {
                let load = self.load(caller, attempt);
                self.preludes.push(Box::pin(async move {
                    Prelude::Commit { message, answer, attempt, result: load.await }
                }));
            }
            Command::Integrate { caller, attempt, work, answer } => {
                let load = self.load(caller, attempt);
                self.preludes.push(Box::pin(async move {
                    Prelude::Integrate { work, answer, attempt, result: load.await }
                }));
            }
            Command::Retry { caller, request, answer } => {
                self.prelude_of_retry(caller, request, answer);
            }
            Command::Send { caller, attempt, text, with, answer } => {
                self.prelude_of_send(caller, attempt, text, with, answer);
            }
            Command::Change { caller, attempt, change, answer } => {
                self.hold(attempt);
                let ports = self.parts.ports.clone();
                self.preludes.push(Box::pin(async move {
                    let result = changes::prepare(&ports, &caller, attempt, change).await;
                    Prelude::Change { answer, attempt, result }
                }));
            }
            Command::Gc { options, answer } => self.on_gc(options, answer),
            Command::Turn(turn) => self.in_turn(turn),
            Command::Watch { .. }
            | Command::AwaitChange { .. }
            | Command::Status { .. }
            | Command::Queue { .. }
            | Command::ShutDown { .. } => {}
        }
    }

    fn prelude_of_run(
        &mut self,
        caller: Caller,
        request: Box<RunRequest>,
        answer: Answer<Accepted>,
    ) {
        let attempt = AttemptId::new(self.parts.runtime.now(), self.ids.ten());
        let mut canonical = request.clone();
        canonical.launch.keep_what_is_asked();
        let found = self.name(&caller, attempt, &canonical);
        if let Some(waiting) = self.keys.get_mut(&found.key) {
            waiting.push(Command::Run { caller, request, answer });
            return;
        }
        self.keys.insert(found.key, Vec::new());
        let (title, limits) = (title(&request), self.parts.config.attachments);
        let (ports, blocks) = (self.parts.ports.clone(), Arc::clone(&self.parts.port_blocks));
        self.preludes.push(Box::pin(async move {
            let result = async {
                blocks.load(&ports).await?;
                let mut start = prelude::run(&ports, &caller, &request, &found, title).await?;
                if let Start::New(planned) = &mut start {
                    let (of, attach) = (&planned.workspace, &request.launch.attach);
                    planned.attachments =
                        attachments::keep(&ports, limits, attempt, of, attach, &[]).await?;
                }
                Ok(start)
            };
            let result = result.await;
            Prelude::Run { caller, request, answer, found, result }
        }));
    }

    fn prelude_of_exec(
        &mut self,
        caller: Caller,
        request: Box<ExecRequest>,
        answer: Answer<Accepted>,
    ) {
        let mut canonical = request.clone();
        canonical.launch.keep_what_is_asked();
        let found = self.name(&caller, request.attempt, &canonical);
        if let Some(waiting) = self.keys.get_mut(&found.key) {
            waiting.push(Command::Exec { caller, request, answer });
            return;
        }
        self.keys.insert(found.key, Vec::new());
        self.hold(request.attempt);
        let ports = self.parts.ports.clone();
        self.preludes.push(Box::pin(async move {
            let result = prelude::exec(&ports, &caller, &found).await;
            Prelude::Exec { caller, request, answer, found, result }
        }));
    }

    fn prelude_of_stop(&mut self, caller: Caller, attempt: AttemptId, stop: Stop) {
        let load = self.load(caller, attempt);
        self.preludes
            .push(Box::pin(async move { Prelude::Stop { stop, attempt, result: load.await } }));
    }

    /// Reads the records of an attempt, whose machine stays in memory meanwhile.
    fn load(
        &mut self,
        caller: Caller,
        attempt: AttemptId,
    ) -> impl Future<Output = Result<Loaded, EngineError>> + Send + use<R> {
        self.hold(attempt);
        let ports = self.parts.ports.clone();
        async move { prelude::on_attempt(&ports, &caller, attempt).await }
    }

    pub(super) fn name<T: serde::Serialize>(
        &self,
        caller: &Caller,
        attempt: AttemptId,
        request: &T,
    ) -> Found {
        new_records::name(caller, attempt, request, || self.parts.runtime.bytes())
    }

    pub(super) fn on_prelude(&mut self, prelude: Prelude) -> Option<End> {
        match prelude {
            Prelude::TaskRun { caller, request, answer, found, result } => {
                self.begin_task_run(caller, *request, answer, found, result);
            }
            Prelude::Edit { answer, key, result } => return self.on_edited(answer, key, result),
            Prelude::Run { caller, request, answer, found, result } => match result {
                Ok(Start::New(planned)) => self.begin_run(caller, *request, answer, found, planned),
                Ok(Start::Repeated(accepted)) => {
                    self.repeat(accepted, request.launch.secret_values, answer, found.key);
                }
                Err(error) => self.fail_start(answer, found.key, error),
            },
            Prelude::Exec { caller, request, answer, found, result } => {
                self.on_exec(caller, *request, answer, found, result);
            }
            Prelude::Locate { caller, stop, result } => match result {
                Ok(attempt) => self.prelude_of_stop(caller, attempt, stop),
                Err(error) => drop(stop.answer.send(Err(error))),
            },
            Prelude::Stop { stop, attempt, result } => {
                let Stop { execution, cause, grace_ms, answer } = stop;
                match result {
                    Ok(loaded) => {
                        let subject = execution.map_or(Subject::Attempt, Subject::Execution);
                        self.insert(loaded);
                        let request = Request::Stop { execution, cause, grace_ms };
                        self.ask(attempt, request, Pending::Done(answer, subject));
                    }
                    Err(error) => drop(answer.send(Err(error))),
                }
                self.release_hold(attempt);
            }
            Prelude::Commit { message, answer, attempt, result } => {
                match result {
                    Ok(loaded) => {
                        self.insert(loaded);
                        let title = self.title_of(attempt);
                        let message = message.unwrap_or(title);
                        self.ask(attempt, Request::Commit { message }, Pending::Commit(answer));
                    }
                    Err(error) => drop(answer.send(Err(error))),
                }
                self.release_hold(attempt);
            }
            Prelude::Integrate { work, answer, attempt, result } => {
                match result {
                    Ok(loaded) => {
                        self.insert(loaded);
                        let request = Request::Integrate { work };
                        self.ask(attempt, request, Pending::Integrate(answer));
                    }
                    Err(error) => drop(answer.send(Err(error))),
                }
                self.release_hold(attempt);
            }
            Prelude::Retry { caller, answer, found, result } => {
                self.on_retry(caller, answer, found, result);
            }
            Prelude::Send { answer, attempt, result } => self.on_send(attempt, answer, result),
            Prelude::Fed { attempt, execution, result } => self.on_fed(attempt, execution, result),
            Prelude::Change { answer, attempt, result } => {
                match result {
                    Ok(changed) => self.begin_change(attempt, changed, answer),
                    Err(error) => drop(answer.send(Err(error))),
                }
                self.release_hold(attempt);
            }
            Prelude::Gc { answer, result } => drop(answer.send(result)),
        }
        None
    }

    fn on_exec(
        &mut self,
        caller: Caller,
        request: ExecRequest,
        answer: Answer<Accepted>,
        found: Found,
        result: Result<Start<Loaded>, EngineError>,
    ) {
        match result {
            Ok(Start::New(loaded)) => {
                self.insert(loaded);
                self.begin_exec(caller, request, answer, found.clone());
            }
            Ok(Start::Repeated(accepted)) => {
                self.repeat(accepted, request.launch.secret_values, answer, found.key);
            }
            Err(error) => self.fail_start(answer, found.key, error),
        }
        self.release_hold(found.attempt);
    }

    fn begin_task_run(
        &mut self,
        caller: Caller,
        request: TaskRun,
        answer: Answer<Accepted>,
        found: Found,
        result: Result<Start<Resolved>, EngineError>,
    ) {
        match result {
            Ok(Start::New(resolved)) => {
                let (request, planned) = resolved.into_run(request);
                self.begin_run(caller, request, answer, found, planned);
            }
            Ok(Start::Repeated(accepted)) => {
                self.repeat(accepted, request.launch.secret_values, answer, found.key);
            }
            Err(error) => self.fail_start(answer, found.key, error),
        }
    }

    /// Answers a repeated request with what it led to, and takes the secrets that it brought along.
    pub(super) fn repeat(
        &mut self,
        accepted: Accepted,
        values: BTreeMap<String, windlass_core::locator::OsBytes>,
        answer: Answer<Accepted>,
        key: Uuid,
    ) {
        // Without values too: a secret that is read from elsewhere may be there by now.
        if let Some(execution) = self.waiting_of(&accepted) {
            self.parts.secrets.keep(execution, values);
            self.feed(accepted.attempt, Input::Fact(Fact::SecretsGiven { execution }));
        }
        let _gone = answer.send(Ok(accepted));
        self.key_is_done(key);
    }

    /// Says whether an execution has not ended.
    pub(super) fn waits_for(&self, attempt: AttemptId, execution: ExecutionId) -> bool {
        let waits =
            |record: &ExecutionRecord| record.id == execution && record.phase < Phase::Ended;
        self.machines.get(&attempt).is_some_and(|state| state.executions().any(waits))
    }

    /// Finds what a request led to and has not ended: the execution that it began with, or where its chain is by now.
    fn waiting_of(&self, accepted: &Accepted) -> Option<ExecutionId> {
        let Accepted { attempt, execution, .. } = *accepted;
        let machine = self.machines.get(&attempt)?.attempt();
        let is_passed = machine.chain_before.contains(&execution);
        let now = machine.chain.filter(|_| is_passed).unwrap_or(execution);
        self.waits_for(attempt, now).then_some(now)
    }

    pub(super) fn fail_start(&mut self, answer: Answer<Accepted>, key: Uuid, error: EngineError) {
        let _gone = answer.send(Err(error));
        self.key_is_done(key);
    }

    fn begin_run(
        &mut self,
        caller: Caller,
        request: RunRequest,
        answer: Answer<Accepted>,
        found: Found,
        mut planned: PlannedRun,
    ) {
        let at = self.parts.runtime.now();
        let source_is_dirty = planned.source_is_dirty;
        let unmatched = std::mem::take(&mut planned.unmatched);
        let new = NewRecord { lease: self.lease, caller: &caller, found: &found, at };
        let mut attempt = new.attempt(&request, planned);
        let slot = Slot::Chain(attempt.id);
        let admitted = match self.ask_for_slot(slot, attempt.id, &caller, &request.launch) {
            Ok(admitted) => admitted,
            Err(error) => return self.fail_start(answer, found.key, error),
        };
        attempt.port_base = self.parts.port_blocks.take(attempt.id);
        let cwd = attempt.workspace.path().clone();
        let (scripts, mut launch) = (request.scripts, request.launch);
        let id = ExecutionId::new(at, self.ids.ten());
        self.parts.secrets.keep(id, std::mem::take(&mut launch.secret_values));
        let execution = new.chain(&self.parts.config, id, scripts, launch, cwd);
        let key = new.request(execution.id);
        let accepted =
            Accepted { attempt: attempt.id, execution: execution.id, source_is_dirty, unmatched };
        let id = attempt.id;
        self.machines.insert(id, State::new(attempt));
        let request = Request::Run { execution: Box::new(execution), key, admitted };
        self.ask(id, request, Pending::Accepted { accepted, key: found.key, answer });
    }

    fn begin_exec(
        &mut self,
        caller: Caller,
        request: ExecRequest,
        answer: Answer<Accepted>,
        found: Found,
    ) {
        let at = self.parts.runtime.now();
        let Some(state) = self.machines.get(&found.attempt) else {
            let error = EngineError::no_attempt(found.attempt);
            return self.fail_start(answer, found.key, error);
        };
        let cwd = state.attempt().workspace.path().clone();
        let reason = request.run_reason;
        let execution = self.execution(&caller, &found, reason, request.launch.clone(), cwd, at);
        let slot = Slot::of(&execution);
        let admitted = match self.ask_for_slot(slot, found.attempt, &caller, &request.launch) {
            Ok(admitted) => admitted,
            Err(error) => {
                self.parts.secrets.forget(execution.id);
                return self.fail_start(answer, found.key, error);
            }
        };
        if request.replace {
            self.stop_server(found.attempt);
        }
        let new = NewRecord { lease: self.lease, caller: &caller, found: &found, at };
        let key = new.request(execution.id);
        let accepted = Accepted {
            attempt: found.attempt,
            execution: execution.id,
            source_is_dirty: false,
            unmatched: Vec::new(),
        };
        let request = Request::Start { execution: Box::new(execution), key, admitted };
        self.ask(found.attempt, request, Pending::Accepted { accepted, key: found.key, answer });
    }

    /// Stops the dev server that an attempt has: another one takes its place.
    fn stop_server(&mut self, attempt: AttemptId) {
        let server = self.machines.get(&attempt).and_then(State::dev_server);
        if let Some(execution) = server {
            let cause = StopCause::Stop { by: StoppedBy::User };
            let request = Request::Stop { execution: Some(execution), cause, grace_ms: None };
            self.next_request += 1;
            let id = RequestId(self.next_request);
            self.feed(attempt, Input::Request { id, request });
        }
    }

    /// Asks admission before anything is recorded: what is refused leaves nothing that could start later.
    fn ask_for_slot(
        &mut self,
        slot: Slot,
        attempt: AttemptId,
        caller: &Caller,
        launch: &LaunchRequest,
    ) -> Result<bool, EngineError> {
        let refuse_when_full = launch.when_full == WhenFull::Refuse;
        let owner = caller.owner.clone();
        let limits = self.parts.config.limits;
        let state = std::mem::replace(&mut self.admission, admission::State::new(limits));
        let step = state.step(admission::Input::Ask { slot, owner, refuse_when_full });
        self.admission = step.state;
        self.slot_of_attempt(slot, attempt);
        match step.effects.into_iter().next() {
            Some(admission::Effect::Admit(_)) => Ok(true),
            Some(admission::Effect::Queue { .. }) | None => Ok(false),
            Some(admission::Effect::Refuse { why, .. }) => {
                self.slot_waiters.remove(&slot);
                Err(refused(&why))
            }
        }
    }

    fn execution(
        &self,
        caller: &Caller,
        found: &Found,
        run_reason: RunReason,
        mut launch: LaunchRequest,
        cwd: Locator,
        at: Timestamp,
    ) -> ExecutionRecord {
        let id = ExecutionId::new(at, self.ids.ten());
        self.parts.secrets.keep(id, std::mem::take(&mut launch.secret_values));
        let new = NewRecord { lease: self.lease, caller, found, at };
        new.execution(&self.parts.config, id, run_reason, launch, cwd)
    }

    /// Feeds a request to a machine and remembers who waits for the reply.
    pub(super) fn ask(&mut self, attempt: AttemptId, request: Request, pending: Pending) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.pending.insert(id, pending);
        self.feed(attempt, Input::Request { id, request });
    }

    pub(super) fn insert(&mut self, loaded: Loaded) {
        if let (false, Some(state)) = (self.machines.contains_key(&loaded.attempt), loaded.state) {
            self.machines.insert(loaded.attempt, state);
        }
    }

    /// Keeps the machine of an attempt in memory while its records are read for a request.
    pub(super) fn hold(&mut self, attempt: AttemptId) {
        *self.held.entry(attempt).or_insert(0) += 1;
    }

    pub(super) fn release_hold(&mut self, attempt: AttemptId) {
        if let Some(count) = self.held.get_mut(&attempt) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&attempt);
            }
        }
        self.drop_if_idle(attempt);
    }

    fn title_of(&self, attempt: AttemptId) -> String {
        self.machines.get(&attempt).map(|s| s.attempt().title.clone()).unwrap_or_default()
    }

    pub(super) fn on_watch(&mut self, key: RecordKey, watcher: mpsc::UnboundedSender<Record>) {
        // Those who went away are forgotten now and then: the cost is spread over as many new ones.
        if self.watchers.len() >= self.watchers_at_most {
            self.watchers.retain(|_, watchers| {
                watchers.retain(|watcher| !watcher.is_closed());
                !watchers.is_empty()
            });
            self.watchers_at_most = 64.max(2 * self.watchers.len());
        }
        self.watchers.entry(key).or_default().push(watcher);
    }

    pub(super) fn on_await_change(
        &mut self,
        after: ChangeNumber,
        answer: futures::channel::oneshot::Sender<()>,
    ) {
        if self.last_change > after {
            let _gone = answer.send(());
        } else {
            self.change_waiters.retain(|(_, waiter)| !waiter.is_canceled());
            self.change_waiters.push((after, answer));
        }
    }

    pub(super) fn status(&self) -> HostStatus {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        HostStatus {
            pid: self.parts.about.pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.lease.epoch.0,
            running: count(self.admission.running()),
            queued: count(self.admission.queued()),
            since_ms: self.parts.about.since.0,
        }
    }
}

fn refused(why: &Full) -> EngineError {
    match why {
        Full::Slots { own, others } => {
            let names: Vec<_> = own
                .iter()
                .map(|slot| match slot {
                    Slot::Chain(attempt) => attempt.short(),
                    Slot::Execution(id) | Slot::DevServer(id) => id.short(),
                })
                .collect();
            let mut reason = format!("all slots are taken: {}", names.join(", "));
            if *others > 0 {
                reason.push_str(&format!(" and {others} of others"));
            }
            EngineError::refused(RefusalCode::LimitExecutions, reason)
        }
        Full::Queue { length } => EngineError::refused(
            RefusalCode::QueueFull,
            format!("{length} executions wait already"),
        ),
    }
}
