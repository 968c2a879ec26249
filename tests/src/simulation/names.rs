//! [`Names`]: what people call attempts and executions, whose ids differ from run to run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_core::action::RunReason;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::process_store::{Kind, Write};
use windlass_core::record::{AttemptRecord, ExecutionRecord, Recorded as _};
use windlass_fakes::faulty::About;

/// The names of a run: those of the requests that started something.
#[derive(Clone, Debug, Default)]
pub struct Names {
    attempts: BTreeMap<AttemptId, Arc<str>>,
    executions: BTreeMap<ExecutionId, Arc<str>>,
    accepted: BTreeMap<Arc<str>, (AttemptId, ExecutionId)>,
    refused: BTreeSet<Arc<str>>,
}

impl Names {
    /// Learns the names in a batch: an attempt has its title, an execution its client key, a git step its attempt's.
    pub fn learn(&mut self, batch: &[Write]) {
        for write in batch {
            let Write::Put { record, .. } = write else { continue };
            match record.key.kind {
                Kind::Attempt => {
                    let id = AttemptId(record.key.id);
                    if !self.attempts.contains_key(&id)
                        && let Ok(record) = AttemptRecord::decode(record)
                    {
                        self.attempts.insert(id, record.title.into());
                    }
                }
                Kind::Execution => {
                    let id = ExecutionId(record.key.id);
                    if !self.executions.contains_key(&id)
                        && let Ok(record) = ExecutionRecord::decode(record)
                    {
                        self.learn_execution(&record);
                    }
                }
                Kind::Project
                | Kind::Task
                | Kind::FollowUp
                | Kind::Request
                | Kind::Input
                | Kind::Snapshot
                | Kind::Observation => {}
            }
        }
    }

    fn learn_execution(&mut self, record: &ExecutionRecord) {
        let name = match (&record.client_key, record.action.run_reason) {
            (Some(key), _) => key.as_str().into(),
            (None, RunReason::Git) => {
                format!("{}/git", self.attempts.get(&record.attempt).map_or("", |name| name)).into()
            }
            (None, _) => "".into(),
        };
        self.executions.insert(record.id, name);
    }

    /// Notes what a request with this name led to.
    pub fn accept(&mut self, name: &str, attempt: AttemptId, execution: ExecutionId) {
        self.accepted.insert(name.into(), (attempt, execution));
    }

    /// Notes that a request with this name led to nothing.
    pub fn refuse(&mut self, name: &str) {
        self.refused.insert(name.into());
    }

    /// Says whether a request with this name led to nothing.
    #[must_use]
    pub fn is_refused(&self, name: &str) -> bool {
        self.refused.contains(name)
    }

    /// Returns what a request with this name led to, if a client knows it.
    #[must_use]
    pub fn accepted(&self, name: &str) -> Option<(AttemptId, ExecutionId)> {
        self.accepted.get(name).copied()
    }

    /// Names what a call is about; empty if it has no name.
    #[must_use]
    pub fn of(&self, about: About) -> Arc<str> {
        let found = match about {
            About::Nothing | About::Record(_) => None,
            About::Attempt(id) => self.attempts.get(&id),
            About::Execution(id) => self.executions.get(&id),
        };
        found.cloned().unwrap_or_else(|| "".into())
    }

    /// Names an execution.
    #[must_use]
    pub fn execution(&self, id: ExecutionId) -> Arc<str> {
        self.of(About::Execution(id))
    }

    /// Finds the executions and attempts that have a name.
    pub fn executions_named(&self, name: &str) -> impl Iterator<Item = ExecutionId> {
        self.executions.iter().filter(move |(_, other)| ***other == *name).map(|(id, _)| *id)
    }

    /// Finds the attempts that have a name.
    pub fn attempts_named(&self, name: &str) -> impl Iterator<Item = AttemptId> {
        self.attempts.iter().filter(move |(_, other)| ***other == *name).map(|(id, _)| *id)
    }
}
