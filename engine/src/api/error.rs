//! What is answered instead of a result: kind, message, hint and status.

use std::error::Error;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::error::{EngineError, RefusalCode};
use crate::view::{ErrorBody, ErrorView};

/// An error with its HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// The error.
    pub view: ErrorView,
}

impl ApiError {
    /// Makes an error.
    pub fn new(
        status: StatusCode,
        kind: &str,
        message: impl Into<String>,
        hint: Option<&str>,
    ) -> Self {
        let view = ErrorView {
            kind: kind.to_owned(),
            message: message.into(),
            hint: hint.map(str::to_owned),
        };
        Self { status, view }
    }

    /// Makes the error for a request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message, Some("see docs/api.md"))
    }

    /// Makes the error for a stream that ends because the host leaves.
    pub(super) fn closing() -> Self {
        EngineError::Closing.into()
    }

    /// Returns it as the last line of a stream.
    pub(super) fn line(&self) -> Bytes {
        json_line(&ErrorBody { error: self.view.clone() })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.view })).into_response()
    }
}

/// Encodes one line of a stream.
pub(super) fn json_line<T: serde::Serialize>(value: &T) -> Bytes {
    // The views have string keys only and cannot fail to be encoded.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Joins an error and its causes.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        // A transparent error says the same as its source.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = chain(&error);
        match &error {
            EngineError::NotFound { .. } => Self::new(
                StatusCode::NOT_FOUND,
                "not_found",
                message,
                Some("`windlass ps -a` and `windlass ls -a` list what there is"),
            ),
            EngineError::Invalid { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                "invalid",
                message,
                Some("`windlass VERB --help` and docs/api.md say what is taken"),
            ),
            EngineError::Refused { code, .. } => Self::new(
                refusal_status(*code),
                refusal_kind(*code),
                message,
                Some(refusal_hint(*code)),
            ),
            EngineError::Closing => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "closing",
                message,
                Some("ask again: another host takes over"),
            ),
            EngineError::Superseded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "superseded",
                message,
                Some("ask again: the other host answers"),
            ),
            EngineError::Backend(source) => {
                let hint = if source.transient {
                    "try again"
                } else {
                    "`windlass doctor` checks the store, the disk and the permissions"
                };
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "backend", message, Some(hint))
            }
        }
    }
}

/// Returns the word for a rule, as it is in JSON.
#[must_use]
pub fn refusal_kind(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::LimitExecutions => "limit_executions",
        RefusalCode::QueueFull => "queue_full",
        RefusalCode::DiskFloor => "disk_floor",
        RefusalCode::KeyReused => "key_reused",
        RefusalCode::NoSecret => "no_secret",
        RefusalCode::NotARepository => "not_a_repository",
        RefusalCode::RepositoryGone => "repository_gone",
        RefusalCode::EmptyRepository => "empty_repository",
        RefusalCode::UnknownBase => "unknown_base",
        RefusalCode::BranchExists => "branch_exists",
        RefusalCode::InvalidBranch => "invalid_branch",
        RefusalCode::Unsaved => "unsaved",
        RefusalCode::Unfinished => "unfinished",
        RefusalCode::SnapshotQuota => "snapshot_quota",
        RefusalCode::NoSnapshot => "no_snapshot",
        RefusalCode::DamagedSnapshot => "damaged_snapshot",
        RefusalCode::NoFollowUp => "no_follow_up",
        RefusalCode::Busy => "busy",
        RefusalCode::DevServerRuns => "dev_server_runs",
        RefusalCode::NoDevScript => "no_dev_script",
        RefusalCode::NotListened => "not_listened",
        RefusalCode::WorkspaceGone => "workspace_gone",
        RefusalCode::WorkspaceMismatch => "workspace_mismatch",
        RefusalCode::RepositoryBusy => "repository_busy",
        RefusalCode::NoGit => "no_git",
        RefusalCode::NoInput => "no_input",
        RefusalCode::InputFull => "input_full",
        RefusalCode::NotAWorktree => "not_a_worktree",
        RefusalCode::NotWatched => "not_watched",
        RefusalCode::WrongState => "wrong_state",
        RefusalCode::Full => "full",
        RefusalCode::CannotCopy => "cannot_copy",
        RefusalCode::CannotAttach => "cannot_attach",
        RefusalCode::Conflict => "conflict",
        RefusalCode::NameTaken => "name_taken",
        RefusalCode::InUse => "in_use",
        RefusalCode::TaskClosed => "task_closed",
        RefusalCode::Dirty => "dirty",
        RefusalCode::MergeConflict => "merge_conflict",
        RefusalCode::NoTarget => "no_target",
        RefusalCode::NothingToDo => "nothing_to_do",
        RefusalCode::Unsupported => "unsupported",
        RefusalCode::Git => "git",
    }
}

fn refusal_status(code: RefusalCode) -> StatusCode {
    match code {
        RefusalCode::LimitExecutions | RefusalCode::QueueFull | RefusalCode::InputFull => {
            StatusCode::TOO_MANY_REQUESTS
        }
        RefusalCode::DiskFloor | RefusalCode::Full | RefusalCode::SnapshotQuota => {
            StatusCode::INSUFFICIENT_STORAGE
        }
        RefusalCode::KeyReused
        | RefusalCode::NoSecret
        | RefusalCode::CannotCopy
        | RefusalCode::CannotAttach
        | RefusalCode::NotARepository
        | RefusalCode::EmptyRepository
        | RefusalCode::UnknownBase
        | RefusalCode::InvalidBranch
        | RefusalCode::NoTarget
        | RefusalCode::Unsupported
        | RefusalCode::NoInput
        | RefusalCode::NotWatched
        | RefusalCode::NoDevScript
        | RefusalCode::NotListened
        | RefusalCode::NotAWorktree => StatusCode::UNPROCESSABLE_ENTITY,
        RefusalCode::NoSnapshot => StatusCode::NOT_FOUND,
        RefusalCode::BranchExists
        | RefusalCode::RepositoryGone
        | RefusalCode::Unsaved
        | RefusalCode::Unfinished
        | RefusalCode::DamagedSnapshot
        | RefusalCode::Busy
        | RefusalCode::DevServerRuns
        | RefusalCode::WorkspaceGone
        | RefusalCode::WorkspaceMismatch
        | RefusalCode::RepositoryBusy
        | RefusalCode::NoGit
        | RefusalCode::WrongState
        | RefusalCode::NoFollowUp
        | RefusalCode::Conflict
        | RefusalCode::NameTaken
        | RefusalCode::InUse
        | RefusalCode::TaskClosed
        | RefusalCode::Dirty
        | RefusalCode::MergeConflict
        | RefusalCode::NothingToDo
        | RefusalCode::Git => StatusCode::CONFLICT,
    }
}

/// Returns what to do about a refusal.
#[expect(clippy::too_many_lines, reason = "a hint for each code")]
fn refusal_hint(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::LimitExecutions => {
            "leave out --no-queue to wait for a slot, or stop something (`windlass ps`)"
        }
        RefusalCode::QueueFull => "wait until something ends, or stop something (`windlass ps`)",
        RefusalCode::DiskFloor | RefusalCode::Full => {
            "free some disk space; `windlass doctor` shows how much there is"
        }
        RefusalCode::KeyReused => "use a new --key for a new request",
        RefusalCode::NoSecret => {
            "see that its source gives a value, or hand it over from here with --secret NAME; env:NAME is of the host's environment, not of this one"
        }
        RefusalCode::NotARepository => {
            "stand in a git repository or name one with --repo; --dir PATH runs in a plain directory"
        }
        RefusalCode::RepositoryGone => {
            "bring the repository back to where it was; docs/snapshots.md says how to get at saved work without it"
        }
        RefusalCode::EmptyRepository => "make a first commit: git commit --allow-empty -m start",
        RefusalCode::UnknownBase => {
            "name a branch, tag or commit that exists (`git branch -a`); fetch it first if it is remote"
        }
        RefusalCode::BranchExists => {
            "choose another name with --branch or start from it with --base; where it is in the way of made names: windlass config set worktrees.branch_prefix"
        }
        RefusalCode::InvalidBranch => {
            "git takes no such name; `git check-ref-format --branch NAME` tells"
        }
        RefusalCode::Unsaved => {
            "take what is named out of the worktree, or lose it with `windlass rm --discard-unsaved`"
        }
        RefusalCode::Unfinished => {
            "finish it in the worktree or give it up (`windlass abort`), or `git worktree unlock` it if it is locked; `windlass rm --force` saves what is in progress and removes it"
        }
        RefusalCode::SnapshotQuota => {
            "remove snapshots that you do not need (`windlass snapshots` with --rm) or raise the quota (`windlass config set snapshots.quota_bytes`)"
        }
        RefusalCode::NoSnapshot => "`windlass snapshots` lists those that there are",
        RefusalCode::DamagedSnapshot => {
            "get back what can be read of it with tar, as docs/snapshots.md says"
        }
        RefusalCode::Busy => {
            "wait for it (`windlass wait`) or stop it (`windlass stop`); end what else works there yourself"
        }
        RefusalCode::DevServerRuns => {
            "--replace stops it first; `windlass stop` ends it, `windlass logs -f` shows its output"
        }
        RefusalCode::NoDevScript => {
            "name a command behind --, or give the project a script: windlass project set --dev"
        }
        RefusalCode::NotListened => "wait for a line of its output instead: --ready-pattern",
        RefusalCode::WorkspaceGone => {
            "`windlass restore` makes a worktree again that was removed or deleted; what was committed is on its branch (`windlass show`), and `windlass run --base` goes on from there"
        }
        RefusalCode::WorkspaceMismatch => {
            "nothing was touched: put right what is named and try again"
        }
        RefusalCode::RepositoryBusy => {
            "another git command runs in the repository; try again when it has ended"
        }
        RefusalCode::NoGit => {
            "install git 2.36 or newer and see that it is on the host's PATH; `windlass doctor` checks it"
        }
        RefusalCode::NoInput => {
            "only what was started with --stdin and still runs takes input: `windlass show` tells how it stands"
        }
        RefusalCode::InputFull => "the command does not read; send it again later",
        RefusalCode::NotAWorktree => "the directory is yours: use git in it yourself",
        RefusalCode::NotWatched => {
            "`windlass diff` without -f tells how it stands; Linux watches as much as fs.inotify.max_user_instances allows"
        }
        RefusalCode::WrongState => "`windlass show` tells its state and the reason",
        RefusalCode::CannotCopy => {
            "--copy takes globs as in .gitignore, of ignored files in the checkout, for example '.env*'"
        }
        RefusalCode::CannotAttach => {
            "attach plain files; the settings attachments.file_bytes and attachments.attempt_bytes say how much"
        }
        RefusalCode::NoFollowUp => "`windlass show` lists what waits; send another message",
        RefusalCode::Conflict => {
            "look at it as it is now (`windlass show`, `windlass task show`, `windlass project show`) and repeat with the version that it has"
        }
        RefusalCode::NameTaken => "choose another name with --name; `windlass project ls` has all",
        RefusalCode::InUse => {
            "remove its tasks first, or take them along with --force; attempts stay in any case"
        }
        RefusalCode::TaskClosed => "reopen it (`windlass task set` with --status reopen)",
        RefusalCode::Dirty => {
            "commit it first (`windlass commit`, or git in the checkout that is named), or put it away; nothing was touched"
        }
        RefusalCode::MergeConflict => {
            "nothing was touched: put the work on top of its target (`windlass rebase`), resolve the conflicts in the worktree, and merge again"
        }
        RefusalCode::NoTarget => {
            "`windlass set` with --target names another branch for good, --into or --onto for once, --remote a remote"
        }
        RefusalCode::NothingToDo => {
            "`windlass show` tells how it stands; `windlass diff` what it changed"
        }
        RefusalCode::Unsupported => "use the host of the command line, or give yours the ability",
        RefusalCode::Git => "`git status` in the worktree, or in its repository, tells more",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windlass_core::error::BackendError;

    use super::*;

    #[test]
    fn kinds_are_the_words_of_the_codes() {
        for code in [RefusalCode::LimitExecutions, RefusalCode::NoGit, RefusalCode::WorkspaceGone] {
            let word = serde_json::to_value(code).unwrap();
            assert_eq!(word.as_str(), Some(refusal_kind(code)));
        }
    }

    #[test]
    fn causes_are_told_once() {
        let cause = BackendError::permanent("sqlite", "commit", "disk I/O error");
        let error = ApiError::from(EngineError::Backend(Arc::new(cause)));
        assert_eq!(
            error.view.message,
            "the engine's backend failed: sqlite: commit failed: disk I/O error"
        );
        assert_eq!(error.status, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn hints_name_settings_that_there_are_and_nothing_that_stands_for_something_else() {
        let hint = refusal_hint(RefusalCode::SnapshotQuota);
        assert!(hint.contains("snapshots.quota_bytes"), "{hint}");
        for code in [
            RefusalCode::SnapshotQuota,
            RefusalCode::NoSnapshot,
            RefusalCode::WrongState,
            RefusalCode::Git,
        ] {
            let hint = refusal_hint(code);
            assert!(!hint.contains("ATTEMPT"), "{hint}");
        }
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let error =
            ApiError::from(EngineError::refused(RefusalCode::BranchExists, "branch \"x\" exists"));
        assert_eq!((error.status.as_u16(), error.view.kind.as_str()), (409, "branch_exists"));
        assert!(error.view.hint.unwrap().contains("--branch"));
    }
}
