//! Everything that there is as of a number: what to show before one follows what changes.

use windlass_core::process_store::{Change, ChangeNumber, Cursor, Kind, Query};
use windlass_core::record::{AttemptStatus, FollowUpState, Phase, Recorded as _, TaskRecord};

use crate::error::EngineError;
use crate::handle::Handle;
use crate::host::records::{attempts_of_task, store_error, task_status};
use crate::request::Caller;

/// How many records are read at once.
const RECORDS: u32 = 256;

/// The kinds that it is made of.
const KINDS: [Kind; 6] =
    [Kind::Project, Kind::Task, Kind::Attempt, Kind::FollowUp, Kind::Snapshot, Kind::Execution];

/// Everything that there is, page by page: projects, tasks, attempts that are not removed, messages that wait, snapshots, executions that are
/// not final.
///
/// # Contract
///
/// Whatever changed up to [`State::number`] is in it, if it is still there. Whoever follows the events after that number
/// misses nothing; what changed while it was read is told again.
#[derive(Debug)]
pub struct State {
    handle: Handle,
    owner: Option<String>,
    number: ChangeNumber,
    /// The index of the kind that is being read, and where to go on in it.
    kind: usize,
    after: Option<Cursor>,
}

impl Handle {
    /// Reads everything that there is, as of now.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`].
    pub async fn state(&self, caller: &Caller) -> Result<State, EngineError> {
        // Beyond the last change there is none to read, but its number is told.
        let beyond = ChangeNumber(u64::MAX >> 1);
        let number = self.ports.store.changes(beyond, 1).await.map_err(store_error)?.last;
        let (handle, owner) = (self.clone(), caller.owner.clone());
        Ok(State { handle, owner, number, kind: 0, after: None })
    }
}

impl State {
    /// Returns the number as of which it is: where to follow the events from.
    #[must_use]
    pub fn number(&self) -> ChangeNumber {
        self.number
    }

    /// Returns the next page, each thing as a change with that number; `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped; the page is read again then.
    pub async fn next(&mut self) -> Result<Option<Vec<Change>>, EngineError> {
        while let Some(&kind) = KINDS.get(self.kind) {
            let mut query = Query::newest(kind, RECORDS);
            query.owner.clone_from(&self.owner);
            query.states = states(kind).into_iter().map(str::to_owned).collect();
            query.after = self.after;
            let page = self.handle.ports.store.list(query).await.map_err(store_error)?;
            let mut changes = Vec::with_capacity(page.records.len());
            for stored in page.records {
                let mut state = stored.record.state.clone();
                if kind == Kind::Task
                    && let Ok(task) = TaskRecord::decode(&stored.record)
                {
                    let attempts = attempts_of_task(&self.handle.ports, task.id).await?;
                    task_status(&task, &attempts).as_str().clone_into(&mut state);
                }
                changes.push(Change {
                    number: self.number,
                    key: stored.record.key,
                    parent: stored.record.parent,
                    owner: stored.record.owner,
                    state: Some(state),
                    revision: stored.revision,
                });
            }
            self.after = page.next;
            if self.after.is_none() {
                self.kind += 1;
            }
            if !changes.is_empty() {
                return Ok(Some(changes));
            }
        }
        Ok(None)
    }
}

/// The states of those that are shown; empty means any.
fn states(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::Attempt => {
            let there =
                AttemptStatus::ALL.into_iter().filter(|status| *status != AttemptStatus::Removed);
            there.map(AttemptStatus::as_str).collect()
        }
        Kind::Execution => {
            let going_on = Phase::ALL.into_iter().filter(|phase| *phase != Phase::Final);
            going_on.map(Phase::as_str).collect()
        }
        Kind::FollowUp => {
            let waiting = FollowUpState::ALL.into_iter().filter(|state| state.waits());
            waiting.map(FollowUpState::as_str).collect()
        }
        Kind::Project
        | Kind::Task
        | Kind::Request
        | Kind::Input
        | Kind::Snapshot
        | Kind::Observation => Vec::new(),
    }
}
