//! Clients: what they ask for, when they ask again, and what they hear.

use std::sync::Arc;

use uuid::Uuid;
use windlass::EngineError;
use windlass::request::{
    Caller, ExecRequest, InputRequest, LaunchRequest, RemoveOptions, RetryRequest, RunRequest,
    WhenFull, WorkspaceRequest,
};
use windlass::steps::{self, Begun, Retried, Sent};
use windlass_core::action::{ActionKind, Leftovers, RunReason, Stdin};
use windlass_core::attempt::{RefusalCode, Reply, Request as MachineRequest, State};
use windlass_core::container_service::StopCause;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::log_store::{From, LogKey, LogStore as _, ReadOptions, Seq};
use windlass_core::outcome::{CompletedBy, StoppedBy};
use windlass_core::record::{CommitPolicy, request_id};
use windlass_core::snapshot::SnapshotNumber;

use super::super::event::{Answer, Ask, Life, What};
use super::super::plan::{Launch, Plan, Request, Verb};
use super::super::play::clients::{change, scripts};
use super::conductor::Begun as BegunCalls;
use super::job::{Done, Job, Prelude};
use super::life::{Asker, CLEANUP};
use super::{Due, HostIds, Steps};

/// How long a client waits before it asks again, in milliseconds.
const AGAIN_MS: u64 = 250;
/// How often a client asks at most.
const MOST_ASKS: u32 = 400;

/// One client with one request.
#[derive(Clone, Debug)]
struct Client {
    request: Arc<Request>,
    caller: Caller,
    /// The question that is under way, and which host was asked.
    asked: Option<(Ask, Life)>,
    asks: u32,
    done: bool,
    /// Up to where a log was read.
    read: Seq,
}

/// What a request is about.
enum Target {
    /// It is known.
    Known(AttemptId, ExecutionId),
    /// It is not known yet.
    Open,
    /// It will never be.
    Never,
}

/// All clients.
#[derive(Debug, Default)]
pub(super) struct Clients {
    all: Vec<Client>,
    /// Who waits for a pass of cleanup.
    cleaning: Vec<usize>,
    /// Who waits for a host, or for what it asks about.
    waiting: Vec<usize>,
}

impl Clients {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut clients = Self::default();
        for request in &plan.requests {
            clients.add(request.clone());
        }
        clients
    }

    pub(super) fn add(&mut self, request: Request) -> usize {
        let key = request.verb.has_key().then(|| request.name.clone());
        let caller = Caller { owner: request.owner.clone(), key };
        let request = Arc::new(request);
        let read = Seq(0);
        self.all.push(Client { request, caller, asked: None, asks: 0, done: false, read });
        self.all.len() - 1
    }

    pub(super) fn caller_of(&self, job: &Job) -> Caller {
        match job {
            Job::Prelude { asker, .. } => {
                self.all.get(*asker).map(|client| client.caller.clone()).unwrap_or_default()
            }
            _ => Caller::default(),
        }
    }
}

fn launch(launch: &Launch) -> LaunchRequest {
    LaunchRequest {
        timeout_ms: launch.timeout_ms,
        idle_timeout_ms: launch.idle_timeout_ms,
        leftovers: if launch.leave { Leftovers::Leave } else { Leftovers::Stop },
        stdin: if launch.stdin { Stdin::Messages } else { Stdin::Null },
        when_full: if launch.refuse_when_full { WhenFull::Refuse } else { WhenFull::Queue },
        ..LaunchRequest::new(ActionKind::Command {
            argv: launch.argv.iter().map(|word| word.as_str().into()).collect(),
        })
    }
}

fn answer_of(error: &EngineError) -> Answer {
    match error {
        EngineError::Refused { code, reason } => {
            Answer::Refused { code: *code, reason: reason.clone() }
        }
        EngineError::NotFound { .. } | EngineError::Invalid { .. } => {
            Answer::Wrong(error.to_string())
        }
        EngineError::Closing | EngineError::Superseded | EngineError::Backend(_) => {
            Answer::Unknown(error.to_string())
        }
    }
}

impl Steps {
    /// A client asks the newest host that serves.
    pub(super) fn on_ask(&mut self, client: usize) {
        let Some(found) = self.clients.all.get_mut(client).filter(|found| !found.done) else {
            return;
        };
        if found.asks == 0 {
            found.asks = 1;
            self.stage.open(&found.request.name);
        }
        let serving = self.hosts.iter().rev();
        let life = serving
            .filter(|(_, host)| host.life.alive && host.life.serves && !host.life.closing)
            .map(|(life, _)| *life)
            .next();
        let request = Arc::clone(&found.request);
        let Some(life) = life else {
            self.clients.waiting.push(client);
            return;
        };
        let about = match request.verb.of().map(|of| self.target(of)) {
            None => None,
            Some(Target::Known(attempt, execution)) => Some((attempt, execution)),
            Some(Target::Open) => {
                self.clients.waiting.push(client);
                return;
            }
            Some(Target::Never) => {
                self.clients.all[client].done = true;
                self.stage.close(&request.name);
                return;
            }
        };
        if self.clients.all[client].asked.is_none() {
            let ask = self.stage.next_ask();
            self.clients.all[client].asked = Some((ask, life));
            self.stage.note(What::Asked { ask, life, request: Arc::clone(&request) });
        }
        self.put(client, life, &request, about);
    }

    /// Finds what a request is about: what the client was told, and in the end what is there.
    fn target(&self, of: &str) -> Target {
        let (accepted, refused) =
            self.stage.names(|names| (names.accepted(of), names.is_refused(of)));
        match (accepted, self.stage.attempt_named(of)) {
            (Some((attempt, execution)), _) => Target::Known(attempt, execution),
            (None, Some(attempt)) if self.stage.is_ending() => {
                Target::Known(attempt, ExecutionId(Uuid::nil()))
            }
            (None, _) if refused || self.stage.is_ending() => Target::Never,
            (None, _) => Target::Open,
        }
    }

    /// Puts a request to a host.
    fn put(
        &mut self,
        client: usize,
        life: Life,
        request: &Request,
        about: Option<(AttemptId, ExecutionId)>,
    ) {
        let (attempt, execution) =
            about.unwrap_or((AttemptId(Uuid::nil()), ExecutionId(Uuid::nil())));
        let new = HostIds { stage: &self.stage, life };
        let fresh = |ids: &HostIds<'_>| ExecutionId::new(self.now, ids.ten());
        let prelude = match &request.verb {
            Verb::Run { .. } => match self.run_of(request) {
                Some(run) => {
                    let attempt = AttemptId::new(self.now, new.ten());
                    Prelude::Run { request: Box::new(run), attempt, execution: fresh(&new) }
                }
                None => return,
            },
            Verb::Exec { dev_server, launch: how, .. } => {
                let run_reason =
                    if *dev_server { RunReason::DevServer } else { RunReason::Background };
                let exec = ExecRequest { attempt, run_reason, launch: launch(how), replace: false };
                Prelude::Exec { request: Box::new(exec), execution: fresh(&new) }
            }
            Verb::Stop { .. }
            | Verb::StopAttempt { .. }
            | Verb::Complete { .. }
            | Verb::Commit { .. } => Prelude::Load { attempt },
            Verb::Remove { force, branch, .. } => {
                let options =
                    RemoveOptions { force: *force, discard_unsaved: false, delete_branch: *branch };
                Prelude::Change { attempt, verb: steps::Verb::Remove(options) }
            }
            Verb::Restore { snapshot, .. } => Prelude::Change {
                attempt,
                verb: steps::Verb::Restore(snapshot.map(SnapshotNumber)),
            },
            Verb::RemoveSnapshot { number, force, .. } => Prelude::Change {
                attempt,
                verb: steps::Verb::RemoveSnapshot {
                    number: SnapshotNumber(*number),
                    force: *force,
                },
            },
            Verb::Keep { keep, .. } => {
                Prelude::Change { attempt, verb: steps::Verb::SetKeep(*keep) }
            }
            Verb::Input { text, close, .. } => {
                let key = request_id(request.owner.as_deref(), &request.name);
                let (bytes, close) = (text.as_str().into(), *close);
                let request = InputRequest { execution, key, bytes, secret: false, close };
                Prelude::Input { request }
            }
            Verb::Send { .. } | Verb::Change { .. } | Verb::Hold { .. } | Verb::Retry { .. } => {
                match go_on(request, attempt, || fresh(&new)) {
                    Some(prelude) => prelude,
                    None => return,
                }
            }
            Verb::Gc { dry_run } => return self.on_gc(client, life, *dry_run),
            Verb::Follow { .. } => return self.follow_log(client, execution),
            // They change nothing, and nothing is asked of the machines for them.
            Verb::Wait { .. } | Verb::Diff { .. } => return self.answer(client, Answer::Done),
        };
        let generation = self.generation(life);
        let Some(host) = self.hosts.get_mut(&life) else { return };
        if matches!(request.verb, Verb::Run { .. } | Verb::Exec { .. } | Verb::Retry { .. }) {
            let key = request_id(request.owner.as_deref(), &request.name);
            if !host.life.take_key(client, key) {
                return;
            }
        }
        host.life.begin_prelude(prelude.attempt());
        let job = Job::Prelude { asker: client, prelude };
        self.after(0, Due::Perform { life, generation, job, begun: BegunCalls::default() });
    }

    /// Returns the run that is asked for.
    fn run_of(&self, request: &Request) -> Option<RunRequest> {
        let Verb::Run { worktree, commit, setup, cleanup, launch: how } = &request.verb else {
            return None;
        };
        let workspace = if *worktree {
            let repo = self.place.repository.clone();
            WorkspaceRequest::Worktree { repo, base: None, branch: None, copy: Vec::new() }
        } else {
            WorkspaceRequest::Directory { path: self.place.directory.clone() }
        };
        let commit = if *commit { CommitPolicy::Commit } else { CommitPolicy::Keep };
        let title = Some(request.name.clone());
        let (scripts, launch) = (scripts(setup, cleanup), launch(how));
        Some(RunRequest { workspace, title, commit, scripts, launch })
    }

    fn on_gc(&mut self, client: usize, life: Life, dry_run: bool) {
        if dry_run {
            return self.answer(client, Answer::Done);
        }
        let period = self.config.cleanup_period_ms.unwrap_or(30 * 60_000);
        self.clients.cleaning.push(client);
        self.drive(life, |host, at, _, out| {
            if !host.cleans {
                host.begin_pass(at, period, out);
            }
        });
    }

    pub(super) fn on_cleaned(&mut self, life: Life) {
        for client in std::mem::take(&mut self.clients.cleaning) {
            if matches!(self.clients.all[client].asked, Some((_, of)) if of == life) {
                self.answer(client, Answer::Cleaned(Vec::new()));
            } else {
                self.clients.cleaning.push(client);
            }
        }
    }

    /// Reads what a log has grown by; comes again until its end.
    fn follow_log(&mut self, client: usize, execution: ExecutionId) {
        let place = self.stage.look(|view| view.store.execution(execution)?.place.clone());
        let after = self.clients.all[client].read;
        let mut ended = self.stage.is_healed() && place.is_none();
        if let Some(place) = place {
            let log = LogKey { execution, place };
            let options =
                ReadOptions { from: From::After(after), max_items: 3, max_bytes: 1 << 20 };
            let read = self.place.scene.logs.read(&log, options);
            if let Some(Ok(page)) = super::job::at_once(read)
                && let Some((follower, _)) = self.clients.all[client].asked
            {
                self.clients.all[client].read = page.next;
                ended = page.end;
                self.stage.note(What::Read { execution, follower, after, page });
            }
        }
        let found = &mut self.clients.all[client];
        found.asks += 1;
        if ended || found.asks > MOST_ASKS {
            self.answer(client, Answer::Done);
        } else {
            self.after(4 * AGAIN_MS, Due::Ask(client));
        }
    }

    pub(super) fn answer(&mut self, client: usize, answer: Answer) {
        let Some(found) = self.clients.all.get_mut(client) else { return };
        let Some((ask, _)) = found.asked.take() else { return };
        found.done = answer.is_definite();
        let request = Arc::clone(&found.request);
        let again = !found.done;
        found.asks += 1;
        self.stage.answered(ask, &request, answer);
        if again {
            self.after(AGAIN_MS, Due::Ask(client));
        } else {
            self.stage.close(&request.name);
            self.wake_clients();
        }
    }

    /// Lets those ask who wait for a host, or for what they ask about.
    pub(super) fn wake_clients(&mut self) {
        for client in std::mem::take(&mut self.clients.waiting) {
            self.after(0, Due::Ask(client));
        }
    }

    /// Nobody knows what became of what a host was asked: the clients ask again.
    pub(super) fn forget_asked(&mut self, life: Life, why: &str) {
        let all = 0..self.clients.all.len();
        let asked =
            |client: &usize| matches!(self.clients.all[*client].asked, Some((_, of)) if of == life);
        let asked: Vec<_> = all.filter(asked).collect();
        self.clients.cleaning.retain(|client| !asked.contains(client));
        for client in asked {
            self.answer(client, Answer::Unknown(why.to_owned()));
        }
    }

    pub(super) fn on_full(&mut self, _life: super::Life, client: usize) {
        let code = windlass::error::RefusalCode::LimitExecutions;
        self.answer(client, Answer::Refused { code, reason: "all slots are taken".to_owned() });
    }

    pub(super) fn on_told(&mut self, client: usize, result: Result<(), EngineError>) {
        let answer = result.map_or_else(|error| answer_of(&error), |()| Answer::Done);
        self.answer(client, answer);
    }

    pub(super) fn on_reply(&mut self, _life: super::Life, asker: Asker, reply: Reply) {
        let (client, accepted): (usize, Option<Answer>) = match asker {
            Asker::Client(client) => (client, None),
            Asker::Starter(client, accepted) => (client, Some(Answer::Accepted(accepted))),
            Asker::Retrier(client, accepted) => (client, Some(Answer::Trying(accepted))),
            Asker::Cleanup => return,
        };
        let answer = match (reply, accepted) {
            (Reply::Refused(refusal), _) => {
                Answer::Refused { code: code(refusal.code), reason: refusal.message }
            }
            (_, Some(accepted)) => accepted,
            (Reply::Committing(id), None) => Answer::Committing(id),
            (Reply::Clean, None) => Answer::Clean,
            (
                Reply::Accepted | Reply::Removed | Reply::Restored | Reply::Integrated { .. },
                None,
            ) => Answer::Done,
        };
        self.answer(client, answer);
    }

    /// Answers those whose prelude says it all.
    pub(super) fn hear(&mut self, _life: Life, done: &Done) {
        let (client, answer) = match done {
            Done::Begun { asker, result: Ok(Begun::Repeated(accepted)), .. } => {
                (*asker, Answer::Accepted(accepted.clone()))
            }
            Done::Sent { asker, result: Ok(Sent::Repeated), .. } => (*asker, Answer::Done),
            Done::Retried { asker, result: Ok(Retried::Repeated(accepted)), .. } => {
                (*asker, Answer::Trying(accepted.clone()))
            }
            Done::Begun { asker, result: Err(error), .. }
            | Done::Sent { asker, result: Err(error), .. }
            | Done::Retried { asker, result: Err(error), .. }
            | Done::Loaded { asker, result: Err(error), .. }
            | Done::Asked { asker, result: Err(error), .. } => (*asker, answer_of(error)),
            Done::Looked(Err(error)) => {
                let answer = answer_of(error);
                for client in std::mem::take(&mut self.clients.cleaning) {
                    self.answer(client, answer.clone());
                }
                return;
            }
            _ => return,
        };
        if client != CLEANUP {
            self.answer(client, answer);
        }
    }

    /// Returns what the machine of an attempt is asked now that its records are read.
    pub(super) fn machine_request(
        &mut self,
        done: &Done,
    ) -> Option<(usize, AttemptId, Option<State>, MachineRequest)> {
        let Done::Loaded { asker, attempt, result: Ok(state) } = done else { return None };
        let client = self.clients.all.get(*asker)?;
        let of = client.request.verb.of()?;
        let execution = self.stage.names(|names| names.accepted(of)).map(|(_, id)| id);
        let user = StopCause::Stop { by: StoppedBy::User };
        let request = match &client.request.verb {
            Verb::Stop { grace_ms, .. } => {
                MachineRequest::Stop { execution, cause: user, grace_ms: *grace_ms }
            }
            Verb::StopAttempt { .. } => {
                MachineRequest::Stop { execution: None, cause: user, grace_ms: None }
            }
            Verb::Complete { .. } => {
                let cause = StopCause::Complete { by: CompletedBy::Program };
                MachineRequest::Stop { execution, cause, grace_ms: None }
            }
            Verb::Commit { .. } => MachineRequest::Commit { message: client.request.name.clone() },
            _ => return None,
        };
        Some((*asker, *attempt, state.clone(), request))
    }
}

/// Returns what must be found out before an attempt goes on.
fn go_on(
    request: &Request,
    attempt: AttemptId,
    fresh: impl FnOnce() -> ExecutionId,
) -> Option<Prelude> {
    Some(match &request.verb {
        Verb::Send { text, .. } => Prelude::Send { attempt, text: text.clone() },
        Verb::Change { message, text, .. } => {
            let (owner, key) = (request.owner.clone(), Some(message.clone()));
            let id = steps::message_id(&Caller { owner, key })?;
            let change = change(text.as_deref());
            Prelude::Change { attempt, verb: steps::Verb::FollowUp { id, change } }
        }
        Verb::Hold { held, .. } => Prelude::Change { attempt, verb: steps::Verb::HoldQueue(*held) },
        Verb::Retry { .. } => {
            let request = RetryRequest { attempt, from: None, text: None };
            Prelude::Retry { request, execution: fresh() }
        }
        _ => return None,
    })
}

fn code(code: RefusalCode) -> windlass::error::RefusalCode {
    use windlass::error::RefusalCode as To;
    match code {
        RefusalCode::Busy => To::Busy,
        RefusalCode::DevServerRuns => To::DevServerRuns,
        RefusalCode::WorkspaceGone => To::WorkspaceGone,
        RefusalCode::WorkspaceMismatch => To::WorkspaceMismatch,
        RefusalCode::Unsaved => To::Unsaved,
        RefusalCode::Unfinished => To::Unfinished,
        RefusalCode::NotAWorktree => To::NotAWorktree,
        RefusalCode::RepositoryBusy => To::RepositoryBusy,
        RefusalCode::RepositoryGone => To::RepositoryGone,
        RefusalCode::WrongState | RefusalCode::NoExecution => To::WrongState,
        RefusalCode::SnapshotQuota => To::SnapshotQuota,
        RefusalCode::NoSnapshot => To::NoSnapshot,
        RefusalCode::DamagedSnapshot => To::DamagedSnapshot,
        RefusalCode::NoFollowUp => To::NoFollowUp,
        RefusalCode::Conflict => To::Conflict,
        RefusalCode::QueueFull => To::QueueFull,
        RefusalCode::Full => To::Full,
        RefusalCode::Dirty => To::Dirty,
        RefusalCode::MergeConflict => To::MergeConflict,
        RefusalCode::NoTarget => To::NoTarget,
        RefusalCode::NothingToDo => To::NothingToDo,
        RefusalCode::Unsupported => To::Unsupported,
        RefusalCode::Failed => To::Git,
    }
}
