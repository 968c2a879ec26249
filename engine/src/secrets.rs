//! Bare secret values: held in memory, by execution, until it is final and nothing follows it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use windlass_core::action::SecretSource;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::locator::OsBytes;
use windlass_core::secrets::{SecretGone, Secrets};

type Values = BTreeMap<String, OsBytes>;

/// Keeps bare values and asks `sources` for all others.
pub(crate) struct MemorySecrets {
    values: Mutex<BTreeMap<ExecutionId, Values>>,
    /// Executions that are final and whose values are for those that may follow them.
    chains: Mutex<BTreeMap<AttemptId, ExecutionId>>,
    sources: Option<Arc<dyn Secrets>>,
}

impl fmt::Debug for MemorySecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySecrets").field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl MemorySecrets {
    pub(crate) fn new(sources: Option<Arc<dyn Secrets>>) -> Self {
        let chains = Mutex::new(BTreeMap::new());
        Self { values: Mutex::new(BTreeMap::new()), chains, sources }
    }

    pub(crate) fn keep(&self, execution: ExecutionId, values: Values) {
        if !values.is_empty() {
            self.lock().insert(execution, values);
        }
    }

    pub(crate) fn forget(&self, execution: ExecutionId) {
        self.lock().remove(&execution);
    }

    /// Says whether there are values of an execution.
    pub(crate) fn has(&self, execution: ExecutionId) -> bool {
        self.lock().contains_key(&execution)
    }

    /// Hands the values of an execution on to the one that follows it.
    pub(crate) fn hand_on(&self, from: ExecutionId, to: ExecutionId) {
        let mut values = self.lock();
        if let Some(own) = values.remove(&from) {
            values.insert(to, own);
        }
    }

    /// Notes that what follows an execution in the chain of an attempt will need its values, if it has any.
    pub(crate) fn keep_for_chain(&self, attempt: AttemptId, execution: ExecutionId) {
        if self.has(execution) {
            let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
            chains.insert(attempt, execution);
        }
    }

    /// Forgets what was kept for a chain that is over.
    pub(crate) fn chain_is_over(&self, attempt: AttemptId) {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(execution) = chains.remove(&attempt) {
            self.lock().remove(&execution);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ExecutionId, Values>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Secrets for MemorySecrets {
    async fn resolve(
        &self,
        execution: ExecutionId,
        wanted: &BTreeMap<String, SecretSource>,
    ) -> Result<Values, SecretGone> {
        let mut found = Values::new();
        let mut elsewhere = BTreeMap::new();
        for (name, source) in wanted {
            if *source == SecretSource::Memory {
                let value =
                    self.lock().get(&execution).and_then(|values| values.get(name).cloned());
                let why = "it was in the memory of a host that is gone".to_owned();
                let gone = || SecretGone { name: name.clone(), why };
                found.insert(name.clone(), value.ok_or_else(gone)?);
            } else {
                elsewhere.insert(name.clone(), source.clone());
            }
        }
        match (&self.sources, elsewhere.keys().next()) {
            (_, None) => {}
            (Some(sources), Some(_)) => found.extend(sources.resolve(execution, &elsewhere).await?),
            (None, Some(name)) => {
                let why = "this host knows no source of secrets".to_owned();
                return Err(SecretGone { name: name.clone(), why });
            }
        }
        Ok(found)
    }
}
