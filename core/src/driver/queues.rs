//! The order of effects: those of one attempt one after the other, and none before the batch that it stands behind.

use std::collections::{BTreeMap, VecDeque};

use crate::attempt::Effect;
use crate::id::AttemptId;
use crate::process_store::{ChangeNumber, ProcessStoreError};

/// The effects of one attempt that wait for a batch to be durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Queue {
    effects: VecDeque<Effect>,
    persisting: bool,
}

/// The effects that wait for batches to be durable, by attempt: a value. It performs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    waiting: BTreeMap<AttemptId, Queue>,
}

impl Queues {
    /// Takes the effects of one step of an attempt's machine; returns those to be performed now, in order. A
    /// [`Effect::Persist`] is the last of them, until [`Queues::committed`] is told.
    #[must_use = "effects that are dropped never happen"]
    pub fn submit(&mut self, attempt: AttemptId, effects: Vec<Effect>) -> Vec<Effect> {
        self.waiting.entry(attempt).or_default().effects.extend(effects);
        self.due(attempt)
    }

    /// Takes what the store said of an attempt's batch; returns what to perform now that it is durable.
    ///
    /// # Errors
    ///
    /// The store's. Nothing behind the batch is ever performed then.
    pub fn committed(
        &mut self,
        attempt: AttemptId,
        result: Result<ChangeNumber, ProcessStoreError>,
    ) -> Result<(ChangeNumber, Vec<Effect>), ProcessStoreError> {
        let number = match result {
            Err(_) if planted!(ErrorTakenForDone) => ChangeNumber(0),
            result => result?,
        };
        if let Some(queue) = self.waiting.get_mut(&attempt) {
            queue.persisting = false;
        }
        Ok((number, self.due(attempt)))
    }

    /// Says whether nothing of an attempt waits.
    #[must_use]
    pub fn is_quiet(&self, attempt: AttemptId) -> bool {
        !self.waiting.contains_key(&attempt)
    }

    /// Says whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn due(&mut self, attempt: AttemptId) -> Vec<Effect> {
        let mut due = Vec::new();
        let Some(queue) = self.waiting.get_mut(&attempt) else { return due };
        while !queue.persisting {
            let Some(effect) = queue.effects.pop_front() else {
                self.waiting.remove(&attempt);
                return due;
            };
            queue.persisting = matches!(effect, Effect::Persist { .. });
            due.push(effect);
        }
        due
    }
}
