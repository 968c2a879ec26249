//! Clients: they ask a host, and ask again if nobody tells them what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::channel::oneshot;
use windlass::error::EngineError;
use windlass::handle::{Commit, Handle};
use windlass::request::{
    Caller, ExecRequest, GcOptions, InputRequest, LaunchRequest, RemoveOptions, RetryRequest,
    RunRequest, Scripts, StopTarget, WhenFull, WorkspaceRequest,
};
use windlass::steps::message_id;
use windlass_core::action::{Leftovers, RunReason, Stdin};
use windlass_core::attempt::FollowUpChange;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::locator::OsBytes;
use windlass_core::log_store::{From as ReadFrom, ReadOptions, Seq};
use windlass_core::record::CommitPolicy;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::DiffDetail;

use super::super::event::{Answer, Ask, Life, What};
use super::super::plan::{Class, Launch, Request, Verb};
use super::super::stage::Stage;
use super::Play;

/// Makes the scripts of a run of their words; empty ones are none.
pub(in super::super) fn scripts(setup: &str, cleanup: &str) -> Scripts {
    let script = |words: &str| (!words.is_empty()).then(|| words.to_owned());
    Scripts { setup: script(setup), cleanup: script(cleanup) }
}

/// Makes the change of a message that says something else, or is taken back.
pub(in super::super) fn change(text: Option<&str>) -> FollowUpChange {
    text.map_or(FollowUpChange::Cancel, |text| FollowUpChange::Replace(text.to_owned()))
}

/// How long a client waits before it asks again, in milliseconds.
const AGAIN_MS: u64 = 100;

/// What a request is about, by id.
#[derive(Clone, Copy, Debug)]
enum Target {
    Nothing,
    Known(AttemptId, ExecutionId),
    /// What it would be about was refused.
    Never,
}

impl Play {
    /// Asks until somebody tells what became of it.
    pub(super) async fn client(self: Arc<Self>, request: Arc<Request>) {
        let cursor = Arc::new(AtomicU64::new(0));
        loop {
            let target = self.stage.when(|stage| target(stage, &request)).await;
            let (attempt, execution) = match target {
                Target::Nothing => (AttemptId(uuid::Uuid::nil()), ExecutionId(uuid::Uuid::nil())),
                Target::Known(attempt, execution) => (attempt, execution),
                Target::Never => {
                    self.stage.close(&request.name);
                    return;
                }
            };
            let (life, handle) = self.stage.when(|stage| host(stage, &request)).await;
            let ask = self.stage.next_ask();
            self.stage.note(What::Asked { ask, life, request: Arc::clone(&request) });
            let (answered, hears) = oneshot::channel();
            let asked = Asked {
                play: Arc::clone(&self),
                ask,
                request: Arc::clone(&request),
                attempt,
                execution,
                cursor: Arc::clone(&cursor),
            };
            let served = async move {
                let answer = asked.serve(&handle).await;
                let definite = answer.is_definite();
                asked.play.stage.answered(asked.ask, &asked.request, answer);
                let _gone = answered.send(definite);
            };
            self.ground.spawn(Some(life), Box::pin(served));
            match hears.await {
                Ok(true) => {
                    self.stage.close(&request.name);
                    return;
                }
                Ok(false) => {}
                Err(oneshot::Canceled) => {
                    let gone = Answer::Unknown("the host is gone".to_owned());
                    self.stage.answered(ask, &request, gone);
                }
            }
            self.ground.time_reached(self.ground.now().plus_ms(AGAIN_MS)).await;
        }
    }
}

/// Finds what a request is about: what the client was told, and in the end what is there.
fn target(stage: &Stage, request: &Request) -> Option<Target> {
    let Some(of) = request.verb.of() else { return Some(Target::Nothing) };
    let (accepted, refused) = stage.names(|names| (names.accepted(of), names.is_refused(of)));
    if let Some((attempt, execution)) = accepted {
        return Some(Target::Known(attempt, execution));
    }
    if let (true, Some(attempt)) = (stage.is_ending(), stage.attempt_named(of)) {
        return Some(Target::Known(attempt, ExecutionId(uuid::Uuid::nil())));
    }
    (refused || stage.is_ending()).then_some(Target::Never)
}

/// Chooses a host that serves, the newest unless the swarm says otherwise.
fn host(stage: &Stage, request: &Request) -> Option<(Life, Handle)> {
    let mut serving = stage.serving();
    let count = serving.len() as u64;
    if count == 0 {
        return None;
    }
    let index = stage.choose(Class::SecondHost, "host", &request.name, count);
    let index = usize::try_from(index).unwrap_or_default().min(serving.len() - 1);
    Some(serving.swap_remove(index))
}

/// One request to one host.
struct Asked {
    play: Arc<Play>,
    ask: Ask,
    request: Arc<Request>,
    attempt: AttemptId,
    execution: ExecutionId,
    /// Up to where a log was read.
    cursor: Arc<AtomicU64>,
}

impl Asked {
    fn caller(&self) -> Caller {
        let Request { owner, name, .. } = &*self.request;
        Caller { owner: owner.clone(), key: Some(name.clone()) }
    }

    async fn serve(&self, handle: &Handle) -> Answer {
        match self.ask_for(handle).await {
            Ok(answer) => answer,
            Err(EngineError::Refused { code, reason }) => Answer::Refused { code, reason },
            Err(error @ (EngineError::NotFound { .. } | EngineError::Invalid { .. })) => {
                Answer::Wrong(error.to_string())
            }
            Err(
                error @ (EngineError::Closing | EngineError::Superseded | EngineError::Backend(_)),
            ) => Answer::Unknown(error.to_string()),
        }
    }

    async fn ask_for(&self, handle: &Handle) -> Result<Answer, EngineError> {
        let (caller, attempt, execution) = (self.caller(), self.attempt, self.execution);
        let done = |()| Answer::Done;
        match &self.request.verb {
            Verb::Run { worktree, commit, setup, cleanup, launch } => {
                let scripts = scripts(setup, cleanup);
                let request = self.run(*worktree, *commit, scripts, launch);
                handle.run(caller, request).await.map(Answer::Accepted)
            }
            Verb::Exec { dev_server, launch, .. } => {
                let run_reason =
                    if *dev_server { RunReason::DevServer } else { RunReason::Background };
                let request = ExecRequest {
                    attempt,
                    run_reason,
                    launch: self.launch(launch),
                    replace: false,
                };
                handle.exec(caller, request).await.map(Answer::Accepted)
            }
            Verb::Stop { grace_ms, .. } => {
                let grace = grace_ms.map(Duration::from_millis);
                handle.stop(caller, StopTarget::Execution(execution), grace).await.map(done)
            }
            Verb::StopAttempt { .. } => {
                handle.stop(caller, StopTarget::Attempt(attempt), None).await.map(done)
            }
            Verb::Complete { .. } => handle.complete(caller, execution).await.map(done),
            Verb::Commit { .. } => Ok(match handle.commit(caller, attempt, None).await? {
                Commit::Clean => Answer::Clean,
                Commit::Started(execution) => Answer::Committing(execution),
            }),
            Verb::Remove { force, branch, .. } => {
                let (force, delete_branch) = (*force, *branch);
                let options = RemoveOptions { force, discard_unsaved: false, delete_branch };
                handle.remove(caller, attempt, options).await.map(done)
            }
            Verb::Restore { snapshot, .. } => {
                handle.restore(caller, attempt, snapshot.map(SnapshotNumber)).await.map(done)
            }
            Verb::RemoveSnapshot { number, force, .. } => {
                let number = SnapshotNumber(*number);
                handle.remove_snapshot(caller, attempt, number, *force).await.map(done)
            }
            Verb::Keep { keep, .. } => handle.keep(caller, attempt, *keep).await.map(done),
            Verb::Gc { dry_run } => {
                handle.gc(GcOptions { dry_run: *dry_run }).await.map(Answer::Cleaned)
            }
            Verb::Input { text, close, .. } => {
                let request = InputRequest {
                    execution,
                    key: uuid::Uuid::new_v5(&execution.0, self.request.name.as_bytes()),
                    bytes: OsBytes::from(text.as_str()),
                    secret: false,
                    close: *close,
                };
                handle.input(caller, request).await.map(done)
            }
            Verb::Send { .. } | Verb::Change { .. } | Verb::Hold { .. } | Verb::Retry { .. } => {
                self.go_on(handle).await
            }
            Verb::Wait { .. } => handle.settled(&caller, execution).await.map(|_| Answer::Done),
            Verb::Follow { .. } => self.follow(handle, &caller).await.map(done),
            Verb::Diff { .. } => {
                handle.diff(&caller, attempt, DiffDetail::Files).await.map(|_| Answer::Done)
            }
        }
    }

    /// What goes on with an attempt.
    async fn go_on(&self, handle: &Handle) -> Result<Answer, EngineError> {
        let (caller, attempt) = (self.caller(), self.attempt);
        let done = |()| Answer::Done;
        match &self.request.verb {
            Verb::Send { text, .. } => {
                handle.send(caller, attempt, text.clone()).await.map(|_| Answer::Done)
            }
            Verb::Change { message, text, .. } => {
                let owner = self.request.owner.clone();
                let sender = Caller { owner, key: Some(message.clone()) };
                let id = message_id(&sender).ok_or_else(|| EngineError::Invalid {
                    reason: "a message has a key".to_owned(),
                })?;
                let change = change(text.as_deref());
                handle.change_follow_up(caller, id, None, change).await.map(|_| Answer::Done)
            }
            Verb::Hold { held, .. } => handle.hold_queue(caller, attempt, *held).await.map(done),
            Verb::Retry { .. } => {
                let request = RetryRequest { attempt, from: None, text: None };
                handle.retry(caller, request).await.map(Answer::Trying)
            }
            _ => Ok(Answer::Done),
        }
    }

    async fn follow(&self, handle: &Handle, caller: &Caller) -> Result<(), EngineError> {
        let execution = self.execution;
        loop {
            let after = Seq(self.cursor.load(Ordering::Relaxed));
            let from = ReadFrom::After(after);
            let options = ReadOptions { from, max_items: 64, max_bytes: 1 << 20 };
            let page = handle.log_page(caller, execution, options).await?;
            let (next, end) = (page.next, page.end);
            let follower = self.ask;
            self.play.stage.note(What::Read { execution, follower, after, page });
            self.cursor.store(next.0, Ordering::Relaxed);
            if end {
                return Ok(());
            }
            if next == after {
                handle.log_grown(caller, execution, after).await?;
            }
        }
    }

    fn run(&self, worktree: bool, commit: bool, scripts: Scripts, launch: &Launch) -> RunRequest {
        let place = &self.play.place;
        let workspace = if worktree {
            WorkspaceRequest::Worktree {
                repo: place.repository.clone(),
                base: None,
                branch: None,
                copy: Vec::new(),
            }
        } else {
            WorkspaceRequest::Directory { path: place.directory.clone() }
        };
        RunRequest {
            workspace,
            title: Some(self.request.name.clone()),
            commit: if commit { CommitPolicy::Commit } else { CommitPolicy::Keep },
            scripts,
            launch: self.launch(launch),
        }
    }

    fn launch(&self, launch: &Launch) -> LaunchRequest {
        let mut request = LaunchRequest::command(launch.argv.iter().map(String::as_str));
        request.timeout_ms = launch.timeout_ms;
        request.idle_timeout_ms = launch.idle_timeout_ms;
        if launch.leave {
            request.leftovers = Leftovers::Leave;
        }
        if launch.stdin {
            request.stdin = Stdin::Messages;
        }
        if launch.refuse_when_full {
            request.when_full = WhenFull::Refuse;
        }
        request
    }
}
