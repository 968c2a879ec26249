//! What an engine must be told and what it may do.

use windlass_core::admission::Limits;
use windlass_core::cleanup::Policy;
use windlass_core::port_block::PortRange;
use windlass_core::vcs_worktree::Identity;

const HOUR_MS: u64 = 3_600_000;

/// How often cleanup looks, unless told otherwise; also the most time that one look may stand for.
pub(crate) const CLEANUP_PERIOD_MS: u64 = HOUR_MS / 2;

/// How much may be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachmentLimits {
    /// Most bytes of one file.
    pub file_bytes: u64,
    /// Most bytes of all files of an attempt.
    pub attempt_bytes: u64,
}

/// What an engine must be told. [`Config::standard`] has the documented defaults; change what you want changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many executions run and wait.
    pub limits: Limits,
    /// From where new attempts get ports of their own.
    pub ports: PortRange,
    /// How much may be attached.
    pub attachments: AttachmentLimits,
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
    /// How often worktrees and snapshots are cleaned up, in milliseconds, the first time at the start; `None` is on request
    /// only.
    pub cleanup_period_ms: Option<u64>,
    /// What cleanup removes, and when.
    pub cleanup: Policy,
    /// How long to wait after a failure of the store before starting over from it, in milliseconds.
    pub store_retry_ms: u64,
}

impl Config {
    /// Returns the documented defaults: 8 executions for each owner and 32 in all, 16 dev servers
    /// beside them, blocks of ten ports from 20000 on, 5 s of grace, 30 minutes for background
    /// executions, 1 GiB of log, attachments of 64 MiB each and 256 MiB in all, 10 minutes for a commit; cleanup every 30 minutes, of what is idle after 72 hours, has no
    /// record after 24; snapshots stay.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            limits: Limits { per_owner: 8, per_host: 32, dev_servers: 16, queue: 10_000 },
            ports: PortRange { first: 20_000, size: 10, blocks: 1_000 },
            attachments: AttachmentLimits { file_bytes: 64 << 20, attempt_bytes: 256 << 20 },
            stop_grace_ms: 5_000,
            background_timeout_ms: Some(30 * 60 * 1_000),
            log_cap_bytes: 1 << 30,
            git_timeout_ms: 10 * 60 * 1_000,
            readopt_ms: 1_000,
            identity: Identity {
                name: "Windlass".to_owned(),
                email: "windlass@localhost".to_owned(),
            },
            cleanup_period_ms: Some(CLEANUP_PERIOD_MS),
            cleanup: Policy {
                idle_ms: Some(72 * HOUR_MS),
                orphan_ms: Some(24 * HOUR_MS),
                // Whether an attempt has landed is not known yet, and until it has its snapshots stay.
                snapshot_ms: None,
            },
            store_retry_ms: 1_000,
        }
    }
}
