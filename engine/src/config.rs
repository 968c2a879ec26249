//! What an engine must be told and what it may do.

use windlass_core::admission::Limits;
use windlass_core::vcs_worktree::Identity;

/// What an engine must be told. [`Config::standard`] has the documented defaults; change what you want changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many executions run and wait.
    pub limits: Limits,
    /// From TERM to KILL, in milliseconds, where a request does not say.
    pub stop_grace_ms: u64,
    /// How long an execution beside a chain may run, in milliseconds, where a request does not say; `None` is for ever.
    pub background_timeout_ms: Option<u64>,
    /// Most bytes of log that an execution keeps.
    pub log_cap_bytes: u64,
    /// How long a commit may take, hooks included, in milliseconds.
    pub git_timeout_ms: u64,
    /// How long to wait before looking again at an execution whose supervisor does not answer, in milliseconds.
    pub readopt_ms: u64,
    /// Who commits are by where the repository does not say.
    pub identity: Identity,
    /// How long to wait after a failure of the store before starting over from it, in milliseconds.
    pub store_retry_ms: u64,
}

impl Config {
    /// Returns the documented defaults: 8 executions for each owner and 32 in all, 5 s of grace, 30 minutes for background
    /// executions, 1 GiB of log, 10 minutes for a commit.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            limits: Limits { per_owner: 8, per_host: 32, queue: 10_000 },
            stop_grace_ms: 5_000,
            background_timeout_ms: Some(30 * 60 * 1_000),
            log_cap_bytes: 1 << 30,
            git_timeout_ms: 10 * 60 * 1_000,
            readopt_ms: 1_000,
            identity: Identity {
                name: "Windlass".to_owned(),
                email: "windlass@localhost".to_owned(),
            },
            store_retry_ms: 1_000,
        }
    }
}
