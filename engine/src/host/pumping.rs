//! Which logs are pumped, where the builder was given a store that keeps them.

use std::sync::Arc;

use windlass_core::driver::Ports;
use windlass_core::log_store::LogKey;
use windlass_core::process_store::{Kind, Record, RecordKey};
use windlass_core::record::{ExecutionRecord, Phase, Recorded as _};

use super::Host;
use crate::log_store::Pumped;
use crate::runtime::Runtime;

impl<R: Runtime> Host<R> {
    /// Begins to pump a log whose place was recorded, and ends it when its execution is final.
    pub(super) fn pump(&self, record: &Record) {
        let Some(pumped) = &self.parts.pumped else { return };
        let starts = record.state == Phase::Starting.as_str();
        if record.key.kind != Kind::Execution || !starts && record.state != Phase::Final.as_str() {
            return;
        }
        let Ok(execution) = ExecutionRecord::decode(record) else { return };
        match log_of(&execution) {
            // Nothing was launched in the place before it was recorded.
            Some(log) if starts => pumped.begin(log, true),
            Some(log) => pumped.ended(log, execution.log),
            None => {}
        }
    }

    /// Goes on with the logs of what is unfinished. After trouble with the store, ends those whose end was in doubt.
    pub(super) fn pump_unfinished(&self) {
        let Some(pumped) = &self.parts.pumped else { return };
        let executions = self.machines.values().flat_map(|state| state.executions());
        let unfinished: Vec<LogKey> =
            executions.filter(|one| one.phase != Phase::Final).filter_map(log_of).collect();
        let running = pumped.running();
        let doubtful = running.into_iter().filter(|log| !unfinished.contains(log)).collect();
        unfinished.iter().for_each(|log| pumped.begin(log.clone(), false));
        let (pumped, ports) = (Arc::clone(pumped), self.parts.ports.clone());
        self.parts
            .runtime
            .spawn(Box::pin(async move { end_final(&pumped, &ports, doubtful).await }));
    }

    /// Begins to look for segments that hosts before this one left although their executions are final.
    pub(super) fn pump_leftovers(&self) {
        let Some(pumped) = self.parts.pumped.clone() else { return };
        let ports = self.parts.ports.clone();
        self.parts.runtime.spawn(Box::pin(async move {
            let Ok(places) = ports.containers.places().await else { return };
            let key = |(execution, place)| LogKey { execution, place };
            end_final(&pumped, &ports, places.into_iter().map(key).collect()).await;
        }));
    }
}

/// Ends the logs of executions that are final and whose segments are there.
async fn end_final(pumped: &Pumped, ports: &Ports, logs: Vec<LogKey>) {
    for log in logs {
        // What cannot be read now is left for the next host.
        if !matches!(pumped.has_segments(&log).await, Ok(true)) {
            continue;
        }
        let key = RecordKey { kind: Kind::Execution, id: log.execution.0 };
        let Ok(Some(stored)) = ports.store.get(key).await else { continue };
        let Ok(execution) = ExecutionRecord::decode(&stored.record) else { continue };
        if execution.phase == Phase::Final && execution.place.as_ref() == Some(&log.place) {
            pumped.ended(log, execution.log);
        }
    }
}

/// Names the log of an execution that has a place.
fn log_of(execution: &ExecutionRecord) -> Option<LogKey> {
    Some(LogKey { execution: execution.id, place: execution.place.clone()? })
}
