//! The local HTTP API: routes under `/v1` on a Unix socket, their server and their client.
//!
//! Requests and answers are JSON; logs, events, waits and searches are streams of one JSON object a line. `docs/api.md`
//! lists the routes. It knows [`Handle`](crate::handle::Handle) and nothing below it.

use serde::{Deserialize, Serialize};

pub mod client;
pub mod dev;
pub mod diff;
pub mod error;
mod follow_ups;
mod history;
mod kept;
mod lines;
pub mod lock;
mod planned;
pub mod resume;
mod routes;
pub mod server;
pub mod socket;
mod stream;

/// The version of the API. Another number means that the two sides do not understand each other.
pub const API_VERSION: u32 = 1;

/// The header that names the version of the API; in requests it is optional, in answers always there.
pub const VERSION_HEADER: &str = "windlass-api";

/// The routes that every version of the API has, so that a client can tell a host of another version to leave.
const FROZEN_ROUTES: [&str; 2] = ["/v1/version", "/v1/host/stop"];

/// The header that names the owner on whose behalf a request is made; without it, the operator.
pub const OWNER_HEADER: &str = "windlass-owner";

/// The header under whose value a repeated request changes nothing.
pub const KEY_HEADER: &str = "idempotency-key";

/// The most bytes of a request's body.
pub const MAX_BODY_BYTES: usize = 16 << 20;

/// Whose process a host lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKind {
    /// The command line's background process: it may be asked to leave.
    Daemon,
    /// Another program's: only that program ends it.
    Embedded,
}

/// What `GET /v1/version` answers; the only answer that every version understands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// [`API_VERSION`] of the host.
    pub api: u32,
    /// The host's version.
    pub version: String,
    /// Whose process it lives in.
    pub kind: HostKind,
    /// Its process number.
    pub pid: u32,
}

/// What becomes of a list in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemsView<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// Where to go on, as the value of `before`; null if this was the last page.
    pub next: Option<String>,
}

/// What an id's last digits may mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdsView {
    /// Attempts whose id ends with them.
    pub attempts: Vec<windlass_core::id::AttemptId>,
    /// Executions whose id ends with them.
    pub executions: Vec<windlass_core::id::ExecutionId>,
    /// Projects whose id ends with them.
    #[serde(default)]
    pub projects: Vec<windlass_core::id::ProjectId>,
    /// Tasks whose id ends with them.
    #[serde(default)]
    pub tasks: Vec<windlass_core::id::TaskId>,
}

/// The body of `PATCH /v1/projects/{id}` and `PATCH /v1/tasks/{id}`: what is to be changed, and of which version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBody<T> {
    /// The version that it was decided on; null is whichever there is.
    #[serde(default)]
    pub version: Option<u64>,
    /// What is to be changed.
    #[serde(flatten)]
    pub change: T,
}

/// The body of `POST /v1/projects/at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceBody {
    /// Any directory in a repository.
    pub path: windlass_core::locator::Locator,
}

/// Which events to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsQuery {
    /// Only what comes after this number; not with `state`.
    #[serde(default)]
    pub after: u64,
    /// First everything that there is, as of a number, then what comes after that.
    #[serde(default)]
    pub state: bool,
    /// Go on as more happens.
    #[serde(default)]
    pub follow: bool,
}

/// The body of `POST /v1/attempts/{id}/executions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecBody {
    /// Why it runs.
    pub run_reason: windlass_core::action::RunReason,
    /// What to run.
    pub launch: crate::request::LaunchRequest,
    /// A dev server that runs is stopped first.
    #[serde(default)]
    pub replace: bool,
}

/// The body of the two `…/stop` routes; it may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopBody {
    /// From TERM to KILL in milliseconds; null is the execution's own.
    #[serde(default)]
    pub grace_ms: Option<u64>,
}

/// The body of `POST /v1/attempts/{id}/follow-ups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendBody {
    /// What it says.
    pub text: String,
    /// What comes with it.
    #[serde(flatten)]
    pub with: crate::request::SendOptions,
}

/// The body of `PATCH /v1/follow-ups/{id}`: what it is to say, and which version was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceBody {
    /// The version that it was decided on; null is whichever there is.
    #[serde(default)]
    pub version: Option<u64>,
    /// What it says from then on.
    pub text: String,
}

/// The body of `POST /v1/attempts/{id}/queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueBody {
    /// Whether nothing of the queue starts.
    pub held: bool,
}

/// The body of `POST /v1/attempts/{id}/retry`; it may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryBody {
    /// From which execution of the chain on; null is its last command.
    #[serde(default)]
    pub from: Option<windlass_core::id::ExecutionId>,
    /// What its command reads on standard input; null is what it read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The body of `POST /v1/attempts/{id}/commit`; it may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitBody {
    /// The commit message; null makes one.
    #[serde(default)]
    pub message: Option<String>,
}

/// The body of `POST /v1/attempts/{id}/restore`; it may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreBody {
    /// From which snapshot; null is what the worktree was when it was removed.
    #[serde(default)]
    pub snapshot: Option<windlass_core::snapshot::SnapshotNumber>,
}

/// The body of `POST /v1/attempts/{id}/keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepBody {
    /// Whether the worktree stays, however long nothing happens in it.
    pub keep: bool,
}

/// The body of `POST /v1/executions/{id}/input`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputBody {
    /// The key under which a repeated message is written once.
    pub key: uuid::Uuid,
    /// What to write: a string, or `{"base64": "…"}`.
    pub bytes: windlass_core::locator::OsBytes,
    /// Whether the log keeps its length only.
    #[serde(default)]
    pub secret: bool,
    /// Whether standard input is closed after it.
    #[serde(default)]
    pub close: bool,
}

/// What a wait waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// The outcome is known and durable.
    Ended,
    /// Nothing of it will change any more, and its changes have been committed.
    #[default]
    Settled,
}

/// What to read of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// Only what comes after this number.
    #[serde(default)]
    pub after: u64,
    /// Only the last so many items of it (ignored when `after` is given).
    #[serde(default)]
    pub tail: Option<u32>,
    /// At most this many.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Only what was read at or after this time, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// Only this stream. Gaps belong to all.
    #[serde(default)]
    pub stream: Option<windlass_core::log_store::Stream>,
    /// Only what the execution wrote, not what was written to it; `limit` then counts nothing else.
    #[serde(default)]
    pub output: bool,
    /// Only lines that this regular expression matches, one an entry.
    #[serde(default)]
    pub grep: Option<String>,
    /// Go on until nothing will be added; else end with what was there when the request came.
    #[serde(default)]
    pub follow: bool,
}

/// Returns the path of a request with its query, escaped.
fn with_query(path: &str, pairs: &[(&str, String)]) -> String {
    let mut out = path.to_owned();
    for (n, (name, value)) in pairs.iter().enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let pairs = [("re", "a b&c=ä+".to_owned()), ("follow", "true".to_owned())];
        assert_eq!(
            with_query("/v1/search", &pairs),
            "/v1/search?re=a%20b%26c%3D%C3%A4%2B&follow=true"
        );
        assert_eq!(with_query("/v1/search", &[]), "/v1/search");
    }
}
