//! The records that a request that starts something leads to.

use uuid::Uuid;
use windlass_core::action::{
    Action, ActionKind, Leftovers, Next, OutputMode, RunOptions, RunReason, Stdin, TimeLimits,
};
use windlass_core::attempt::digest;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::locator::Locator;
use windlass_core::process_store::Lease;
use windlass_core::record::{
    AttemptRecord, ExecutionRecord, NewAttempt, NewExecution, RequestRecord, request_id,
};
use windlass_core::time::Timestamp;

use super::prelude::{Found, PlannedRun};
use crate::config::Config;
use crate::request::{Caller, LaunchRequest, RunRequest, Scripts};

/// The shell that setup and cleanup scripts are run with.
const SHELL: &str = "/bin/sh";

/// Names a request that starts something; `random` names one that has no key.
pub(crate) fn name<T: serde::Serialize>(
    caller: &Caller,
    attempt: AttemptId,
    request: &T,
    random: impl FnOnce() -> [u8; 16],
) -> Found {
    let client_key = caller
        .key
        .clone()
        .unwrap_or_else(|| uuid::Builder::from_random_bytes(random()).into_uuid().to_string());
    // Requests have string keys and serialize without fail.
    let canonical = serde_json::to_vec(request).unwrap_or_default();
    let key: Uuid = request_id(caller.owner.as_deref(), &client_key);
    Found { client_key, key, digest: digest(&canonical), attempt }
}

/// What the records of one request have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRecord<'a> {
    pub(crate) lease: Lease,
    pub(crate) caller: &'a Caller,
    pub(crate) found: &'a Found,
    pub(crate) at: Timestamp,
}

impl NewRecord<'_> {
    /// Makes the record of the attempt that a run asks for.
    pub(crate) fn attempt(self, request: &RunRequest, planned: PlannedRun) -> AttemptRecord {
        let record = AttemptRecord::new(NewAttempt {
            id: self.found.attempt,
            title: title(request),
            owner: self.caller.owner.clone(),
            workspace: planned.workspace,
            commit: request.commit,
            node: self.lease.node,
            host: self.lease.host,
            epoch: self.lease.epoch,
            at: self.at,
        });
        AttemptRecord { task: planned.task, attachments: planned.attachments, ..record }
    }

    /// Makes the record of an execution, with the defaults of the configuration. Values of secrets are not recorded.
    pub(crate) fn execution(
        self,
        config: &Config,
        id: ExecutionId,
        run_reason: RunReason,
        launch: LaunchRequest,
        cwd: Locator,
    ) -> ExecutionRecord {
        let timeout = match run_reason {
            RunReason::Background => config.background_timeout_ms,
            RunReason::Setup
            | RunReason::Agent
            | RunReason::Cleanup
            | RunReason::DevServer
            | RunReason::Git => None,
        };
        let options = RunOptions {
            env: launch.inherited_env.into_iter().chain(launch.env).collect(),
            secrets: launch.secrets,
            stdin: launch.stdin,
            output: launch.output,
            leftovers: launch.leftovers,
            limits: TimeLimits {
                total_ms: launch.timeout_ms.or(timeout),
                idle_ms: launch.idle_timeout_ms,
                grace_ms: config.stop_grace_ms,
            },
            log_cap_bytes: config.log_cap_bytes,
        };
        ExecutionRecord::queued(NewExecution {
            id,
            attempt: self.found.attempt,
            owner: self.caller.owner.clone(),
            client_key: Some(self.found.client_key.clone()),
            action: Action { kind: launch.action, run_reason, next: None },
            options,
            repository_lock: None,
            cwd,
            at: self.at,
        })
    }

    /// Makes the record of the first execution of a chain, which carries what follows it.
    pub(crate) fn chain(
        self,
        config: &Config,
        id: ExecutionId,
        scripts: Scripts,
        launch: LaunchRequest,
        cwd: Locator,
    ) -> ExecutionRecord {
        let mut agent = self.execution(config, id, RunReason::Agent, launch, cwd);
        let around = RunOptions {
            stdin: Stdin::Null,
            output: OutputMode::default(),
            leftovers: Leftovers::Stop,
            limits: TimeLimits { total_ms: None, idle_ms: None, ..agent.options.limits },
            ..agent.options.clone()
        };
        let script = |text: Option<String>, run_reason| {
            let script = text.filter(|text| !text.trim().is_empty())?;
            let kind = ActionKind::Script { shell: SHELL.to_owned(), script };
            Some(Action { kind, run_reason, next: None })
        };
        let cleanup = script(scripts.cleanup, RunReason::Cleanup);
        agent.action.next = cleanup.map(|action| Box::new(Next::new(action, &around)));
        if let Some(setup) = script(scripts.setup, RunReason::Setup) {
            let action = std::mem::replace(&mut agent.action, setup);
            agent.action.next = Some(Box::new(Next::new(action, &agent.options)));
            agent.options = around;
        }
        agent
    }

    /// Makes the record of the request itself.
    pub(crate) fn request(self, execution: ExecutionId) -> RequestRecord {
        RequestRecord {
            client_key: self.found.client_key.clone(),
            owner: self.caller.owner.clone(),
            attempt: self.found.attempt,
            execution,
            made: None,
            digest: self.found.digest,
            at: self.at,
        }
    }
}

/// Returns what a run is called: as asked, else its command.
pub(crate) fn title(request: &RunRequest) -> String {
    if let Some(title) = request.title.as_deref().map(str::trim).filter(|title| !title.is_empty()) {
        return title.to_owned();
    }
    let text = match &request.launch.action {
        ActionKind::Command { argv } => {
            let words = argv.iter().map(|word| String::from_utf8_lossy(&word.0).into_owned());
            words.collect::<Vec<_>>().join(" ")
        }
        ActionKind::Script { script, .. } => script.clone(),
    };
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(60).collect()
}
