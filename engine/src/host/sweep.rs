//! Clearing places that no record speaks of: a crash came between making room and recording it.

use windlass_core::process_store::{Kind, RecordKey};
use windlass_core::record::{ExecutionRecord, Phase, Recorded as _};

use windlass_core::driver::Ports;

use super::Host;
use crate::runtime::Runtime;

impl<R: Runtime> Host<R> {
    /// Begins to clear unused places in the background. Nothing ever ran in them: a launch comes after the record.
    pub(super) fn sweep_places(&self) {
        let ports = self.parts.ports.clone();
        self.parts.runtime.spawn(Box::pin(async move { sweep(&ports).await }));
    }
}

/// Clears the places that no record speaks of.
pub(super) async fn sweep(ports: &Ports) {
    let Ok(places) = ports.containers.places().await else { return };
    for (execution, place) in places {
        let key = RecordKey { kind: Kind::Execution, id: execution.0 };
        let unused = match ports.store.get(key).await {
            Ok(None) => true,
            Ok(Some(stored)) => match ExecutionRecord::decode(&stored.record) {
                Ok(record) => record.phase == Phase::Final && record.place.as_ref() != Some(&place),
                Err(_) => false,
            },
            // What cannot be read is never taken for an orphan.
            Err(_) => false,
        };
        if unused {
            // One that is in use after all refuses.
            let _kept = ports.containers.discard(execution, &place).await;
        }
    }
}
