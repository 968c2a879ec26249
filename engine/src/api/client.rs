//! The client of the API. A request whose answer was lost is repeated under its key; a stream goes on at its cursor.

mod dev;
mod follow_ups;
mod history;
mod planned;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::{HeaderValue, Method, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use windlass_core::id::{AttemptId, ExecutionId, TaskId};
use windlass_core::process_store::CheckReport;
use windlass_core::snapshot::SnapshotNumber;

use super::resume::{EventLines, Lines, LogLines, WaitLines};
use super::{
    API_VERSION, CommitBody, EventsQuery, ExecBody, FROZEN_ROUTES, IdsView, InputBody, ItemsView,
    KEY_HEADER, KeepBody, LogQuery, OWNER_HEADER, RestoreBody, StopBody, Until, VERSION_HEADER,
    VersionView, socket, with_query,
};
use crate::request::{
    Accepted, Caller, ExecRequest, GcOptions, InputRequest, RemoveOptions, RunRequest, StopTarget,
};
use crate::view::{
    AttemptView, CommitView, DiffView, ErrorBody, ErrorView, ExecutionView, GcItemView, HostView,
    SearchHitView, SnapshotView,
};

/// How often a request is made before its loss is reported.
const TRIES: u32 = 4;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// There is no host to ask.
    #[error("{}", view.message)]
    NoHost {
        /// What went wrong, and what to do.
        view: ErrorView,
    },
    /// The host refused or failed.
    #[error("{}", view.message)]
    Api {
        /// The HTTP status.
        status: u16,
        /// What went wrong, and what to do.
        view: ErrorView,
    },
    /// The answer was lost, again and again; the request may have been carried out.
    #[error("the host's answer was lost: {reason}")]
    Lost {
        /// What happened.
        reason: String,
    },
    /// The answer is not what this version understands.
    #[error("the host's answer is not understood: {reason}")]
    Protocol {
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// Says whether asking again may help: the answer was lost, or the host leaves.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Lost { .. } => true,
            Self::Api { view, .. } => matches!(view.kind.as_str(), "closing" | "superseded"),
            Self::NoHost { .. } | Self::Protocol { .. } => false,
        }
    }

    pub(super) fn lost(error: impl std::error::Error + 'static) -> Self {
        Self::Lost { reason: super::error::chain(&error) }
    }

    pub(super) fn protocol(error: &impl fmt::Display) -> Self {
        Self::Protocol { reason: error.to_string() }
    }
}

/// Finds the host.
#[async_trait]
pub trait Connect: fmt::Debug + Send + Sync {
    /// Connects to the host; `again` says that the last connection, or its answer, was lost.
    ///
    /// # Errors
    ///
    /// What to tell people, if there is none.
    async fn connect(&self, again: bool) -> Result<UnixStream, ErrorView>;
}

/// Finds the host at a socket, and starts none.
#[derive(Clone, Debug)]
pub struct AtSocket(pub PathBuf);

#[async_trait]
impl Connect for AtSocket {
    async fn connect(&self, _again: bool) -> Result<UnixStream, ErrorView> {
        socket::connect(&self.0).await.map_err(|error| ErrorView {
            kind: "no_host".to_owned(),
            message: format!("no host answers at {}: {error}", self.0.display()),
            hint: Some("start one: windlass host run".to_owned()),
        })
    }
}

/// A client of one host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    connect: Arc<dyn Connect>,
    caller: Caller,
}

type Answer = Response<Incoming>;

impl Client {
    /// Makes a client that asks on behalf of `caller`, whose key goes with every request.
    #[must_use]
    pub fn new(connect: Arc<dyn Connect>, caller: Caller) -> Self {
        Self { connect, caller }
    }

    /// Makes one request and repeats it while its answer is lost.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, ClientError> {
        let mut tries = 0;
        loop {
            let answer = match self.connect.connect(tries > 0).await {
                Ok(stream) => self.send_once(stream, method.clone(), path, body.clone()).await,
                Err(view) => return Err(ClientError::NoHost { view }),
            };
            tries += 1;
            match answer {
                Err(error) if error.is_lost() && tries < TRIES => {}
                answer => return answer,
            }
        }
    }

    async fn send_once(
        &self,
        stream: UnixStream,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "windlass")
            .header("content-type", "application/json")
            .header(VERSION_HEADER, API_VERSION)
            .body(Full::new(body))
            .map_err(|error| ClientError::protocol(&error))?;
        for (name, value) in [(OWNER_HEADER, &self.caller.owner), (KEY_HEADER, &self.caller.key)] {
            if let Some(value) = value {
                let value = HeaderValue::from_bytes(value.as_bytes());
                let value = value.map_err(|error| ClientError::protocol(&error))?;
                request.headers_mut().insert(name, value);
            }
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::lost)?;
        // It ends with the answer's body; an error of it is an error of the body too.
        drop(tokio::spawn(connection));
        let answer = sender.send_request(request).await.map_err(ClientError::lost)?;
        if !FROZEN_ROUTES.contains(&path) {
            check_version(&answer)?;
        }
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let bytes = collect(answer).await?;
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => Err(ClientError::Api { status, view: body.error }),
            Err(_) => Err(ClientError::Protocol { reason: format!("status {status}") }),
        }
    }

    /// Makes a request and reads its whole answer; a body that breaks off is a lost answer.
    async fn fetch(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let mut tries = 0;
        loop {
            let answer = self.send(method.clone(), path, body.clone()).await?;
            tries += 1;
            match collect(answer).await {
                Err(error) if error.is_lost() && tries < TRIES => {}
                bytes => return bytes,
            }
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::protocol(&error))?;
        let bytes = self.fetch(method, path, body.into()).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::protocol(&error))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let bytes = self.fetch(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::protocol(&error))
    }

    pub(super) async fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Lines<T>, ClientError> {
        let answer = self.send(Method::GET, path, Bytes::new()).await?;
        Ok(Lines::new(answer.into_body()))
    }
}

/// The requests. Each fails as [`ClientError`] says; each may be dropped, and may then have been carried out.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// Asks for the host's version; also a host of another version of the API.
    pub async fn version(&self) -> Result<VersionView, ClientError> {
        self.get("/v1/version").await
    }

    /// Asks for what is known of the host.
    pub async fn host(&self) -> Result<HostView, ClientError> {
        self.get("/v1/host").await
    }

    /// Asks the host to read every record once; tells what is damaged.
    pub async fn check(&self) -> Result<CheckReport, ClientError> {
        self.get("/v1/check").await
    }

    /// Asks the host to leave, also one of another version of the API; returns before it has left.
    pub async fn stop_host(&self) -> Result<(), ClientError> {
        self.fetch(Method::POST, "/v1/host/stop", Bytes::new()).await.map(drop)
    }

    /// Finds attempts and executions by the last digits of their ids.
    pub async fn ids(&self, suffix: &str) -> Result<IdsView, ClientError> {
        self.get(&format!("/v1/ids/{suffix}")).await
    }

    /// Makes an attempt and starts its execution.
    pub async fn run(&self, request: &RunRequest) -> Result<Accepted, ClientError> {
        self.json(Method::POST, "/v1/attempts", request).await
    }

    /// Starts one more execution in an attempt.
    pub async fn exec(&self, request: ExecRequest) -> Result<Accepted, ClientError> {
        let ExecRequest { attempt, run_reason, launch, replace } = request;
        let path = format!("/v1/attempts/{attempt}/executions");
        self.json(Method::POST, &path, &ExecBody { run_reason, launch, replace }).await
    }

    /// Reads one page of executions, newest first; `before` is the `next` of the page before.
    pub async fn executions(
        &self,
        all: bool,
        status: Option<&str>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<ItemsView<ExecutionView>, ClientError> {
        let mut pairs = vec![("all", all.to_string()), ("limit", limit.to_string())];
        pairs.extend(status.map(|status| ("status", status.to_owned())));
        pairs.extend(before.map(|before| ("before", before.to_owned())));
        self.get(&with_query("/v1/executions", &pairs)).await
    }

    /// Reads one page of an attempt's executions that have not ended, newest first.
    pub async fn active_of(
        &self,
        attempt: AttemptId,
    ) -> Result<ItemsView<ExecutionView>, ClientError> {
        self.get(&format!("/v1/attempts/{attempt}/executions")).await
    }

    /// Reads one page of attempts, newest first; `measure` looks at their worktrees.
    pub async fn attempts(
        &self,
        all: bool,
        branch: Option<&str>,
        before: Option<&str>,
        measure: bool,
    ) -> Result<ItemsView<AttemptView>, ClientError> {
        let mut pairs = vec![("all", all.to_string()), ("measure", measure.to_string())];
        pairs.extend(branch.map(|branch| ("branch", branch.to_owned())));
        pairs.extend(before.map(|before| ("before", before.to_owned())));
        self.get(&with_query("/v1/attempts", &pairs)).await
    }

    /// Reads one page of a task's attempts, newest first; `measure` looks at their worktrees.
    pub async fn attempts_of(
        &self,
        task: TaskId,
        all: bool,
        before: Option<&str>,
        measure: bool,
    ) -> Result<ItemsView<AttemptView>, ClientError> {
        let mut pairs = vec![("all", all.to_string()), ("measure", measure.to_string())];
        pairs.push(("task", task.to_string()));
        pairs.extend(before.map(|before| ("before", before.to_owned())));
        self.get(&with_query("/v1/attempts", &pairs)).await
    }

    /// Reads one execution.
    pub async fn execution(&self, id: ExecutionId) -> Result<ExecutionView, ClientError> {
        self.get(&format!("/v1/executions/{id}")).await
    }

    /// Reads one attempt and looks at its worktree.
    pub async fn attempt(&self, id: AttemptId) -> Result<AttemptView, ClientError> {
        self.get(&format!("/v1/attempts/{id}")).await
    }

    /// Asks for a stop; returns when it is recorded.
    pub async fn stop(&self, target: StopTarget, grace_ms: Option<u64>) -> Result<(), ClientError> {
        let path = match target {
            StopTarget::Execution(id) => format!("/v1/executions/{id}/stop"),
            StopTarget::Attempt(id) => format!("/v1/attempts/{id}/stop"),
        };
        let _accepted: serde_json::Value =
            self.json(Method::POST, &path, &StopBody { grace_ms }).await?;
        Ok(())
    }

    /// Commits what is dirty in an attempt's worktree.
    pub async fn commit(
        &self,
        id: AttemptId,
        message: Option<String>,
    ) -> Result<CommitView, ClientError> {
        self.json(Method::POST, &format!("/v1/attempts/{id}/commit"), &CommitBody { message }).await
    }

    /// Saves and removes an attempt's worktree.
    pub async fn remove(
        &self,
        id: AttemptId,
        options: RemoveOptions,
    ) -> Result<AttemptView, ClientError> {
        let RemoveOptions { force, discard_unsaved, delete_branch } = options;
        let pairs = [
            ("force", force.to_string()),
            ("discard_unsaved", discard_unsaved.to_string()),
            ("delete_branch", delete_branch.to_string()),
        ];
        let path = with_query(&format!("/v1/attempts/{id}"), &pairs);
        let bytes = self.fetch(Method::DELETE, &path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::protocol(&error))
    }

    /// Makes an attempt's removed worktree again, as it was or as it was in one of its snapshots.
    pub async fn restore(
        &self,
        id: AttemptId,
        snapshot: Option<SnapshotNumber>,
    ) -> Result<AttemptView, ClientError> {
        let path = format!("/v1/attempts/{id}/restore");
        self.json(Method::POST, &path, &RestoreBody { snapshot }).await
    }

    /// Says whether an attempt's worktree stays, however long nothing happens in it.
    pub async fn keep(&self, id: AttemptId, keep: bool) -> Result<AttemptView, ClientError> {
        self.json(Method::POST, &format!("/v1/attempts/{id}/keep"), &KeepBody { keep }).await
    }

    /// Lists an attempt's snapshots, newest first.
    pub async fn snapshots(&self, id: AttemptId) -> Result<ItemsView<SnapshotView>, ClientError> {
        self.get(&format!("/v1/attempts/{id}/snapshots")).await
    }

    /// Removes a snapshot; `force` also if the removed worktree cannot be made again without it.
    pub async fn remove_snapshot(
        &self,
        id: AttemptId,
        number: SnapshotNumber,
        force: bool,
    ) -> Result<AttemptView, ClientError> {
        let path = format!("/v1/attempts/{id}/snapshots/{number}");
        let path = with_query(&path, &[("force", force.to_string())]);
        let bytes = self.fetch(Method::DELETE, &path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::protocol(&error))
    }

    /// Cleans up now, or says what that would do.
    pub async fn gc(&self, options: GcOptions) -> Result<ItemsView<GcItemView>, ClientError> {
        self.json(Method::POST, "/v1/gc", &options).await
    }

    /// Lists what differs between an attempt's merge base and its worktree.
    pub async fn diff(&self, id: AttemptId) -> Result<DiffView, ClientError> {
        self.get(&format!("/v1/attempts/{id}/diff")).await
    }

    /// Returns the patch from an attempt's merge base to its worktree.
    pub async fn patch(&self, id: AttemptId) -> Result<Bytes, ClientError> {
        self.fetch(Method::GET, &format!("/v1/attempts/{id}/diff.patch"), Bytes::new()).await
    }

    /// Writes to an execution's standard input.
    pub async fn input(&self, request: InputRequest) -> Result<(), ClientError> {
        let InputRequest { execution, key, bytes, secret, close } = request;
        let path = format!("/v1/executions/{execution}/input");
        let body = InputBody { key, bytes, secret, close };
        let _taken: serde_json::Value = self.json(Method::POST, &path, &body).await?;
        Ok(())
    }

    /// Searches all logs, or those of one attempt.
    pub async fn search(
        &self,
        re: &str,
        attempt: Option<AttemptId>,
    ) -> Result<Lines<SearchHitView>, ClientError> {
        let mut pairs = vec![("re", re.to_owned())];
        pairs.extend(attempt.map(|id| ("attempt", id.to_string())));
        self.lines(&with_query("/v1/search", &pairs)).await
    }

    /// Reads a log.
    #[must_use]
    pub fn log(&self, id: ExecutionId, query: LogQuery) -> LogLines {
        LogLines::new(self.clone(), id, query)
    }

    /// Waits for executions, in the order in which they are done.
    #[must_use]
    pub fn wait(&self, ids: impl IntoIterator<Item = ExecutionId>, until: Until) -> WaitLines {
        WaitLines::new(self.clone(), ids.into_iter().collect(), until)
    }

    /// Reads those of these executions that are done by now, without waiting for the others.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn done_by_now(
        &self,
        ids: &[ExecutionId],
        until: Until,
    ) -> Result<Vec<ExecutionView>, ClientError> {
        let mut pairs = super::resume::wait_pairs(ids, until);
        pairs.push(("now", "true".to_owned()));
        let mut lines = self.lines(&with_query("/v1/wait", &pairs)).await?;
        let mut done = Vec::new();
        while let Some(view) = lines.next().await? {
            done.push(view);
        }
        Ok(done)
    }

    /// Reads what changed, or what there is and what changes.
    #[must_use]
    pub fn events(&self, query: EventsQuery) -> EventLines {
        EventLines::new(self.clone(), query)
    }
}

fn check_version(answer: &Answer) -> Result<(), ClientError> {
    let version = answer.headers().get(VERSION_HEADER);
    if version.is_some_and(|version| *version == HeaderValue::from(API_VERSION)) {
        return Ok(());
    }
    let version = version.and_then(|version| version.to_str().ok()).unwrap_or("unknown");
    Err(ClientError::Api {
        status: answer.status().as_u16(),
        view: ErrorView {
            kind: "api_version".to_owned(),
            message: format!(
                "the host speaks version {version} of the API, this client version {API_VERSION}"
            ),
            hint: Some(
                "use a client of the host's version, or end the host: windlass host stop"
                    .to_owned(),
            ),
        },
    })
}

async fn collect(answer: Answer) -> Result<Bytes, ClientError> {
    let collected = answer.into_body().collect().await.map_err(ClientError::lost)?;
    Ok(collected.to_bytes())
}
