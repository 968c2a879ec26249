//! What a host has in mind: S24.

use std::collections::BTreeMap;

use windlass_core::id::Epoch;
use windlass_core::record::Phase;
use windlass_fakes::faulty::Site;

use super::super::event::{Event, Life, What};
use super::super::view::View;
use super::{Oracle, Violation};

/// S24: a host counts the slots that the records say.
#[derive(Debug, Default)]
pub(super) struct AsRecorded {
    epochs: BTreeMap<Life, Epoch>,
    /// How many batches of a host are on their way: it has not heard what became of them.
    under_way: BTreeMap<Life, u32>,
}

impl Oracle for AsRecorded {
    fn name(&self) -> &'static str {
        "S24 memory as recorded"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match event.what {
            What::Acquired { life, lease } => {
                self.epochs.insert(life, lease.epoch);
            }
            What::Called { life, call, .. } if call.site == Site::Commit => {
                *self.under_way.entry(life).or_insert(0) += 1;
            }
            What::Returned { life, call, .. } if call.site == Site::Commit => {
                let under_way = self.under_way.entry(life).or_insert(0);
                *under_way = under_way.saturating_sub(1);
            }
            _ => {}
        }
        let What::HostSays { life, running, queued } = event.what else { return Ok(()) };
        // What a superseded host has in mind is nobody's any more.
        if self.epochs.get(&life).is_some_and(|epoch| *epoch < view.store.epoch()) {
            return Ok(());
        }
        if self.under_way.get(&life).is_some_and(|count| *count > 0) {
            return Ok(());
        }
        let held = view.store.attempts().filter(|attempt| attempt.slot).count();
        let beside = view
            .store
            .executions()
            .filter(|record| !record.action.run_reason.in_chain())
            .filter(|record| (Phase::Starting..Phase::Final).contains(&record.phase))
            .count();
        // One that waits in the records may hold a slot already, or wait for it; its chain's is counted above.
        let waiting = view
            .store
            .executions()
            .filter(|record| record.phase == Phase::Queued)
            .filter(|record| {
                let in_chain = record.action.run_reason.in_chain();
                let attempt = view.store.attempt(record.attempt);
                !(in_chain && attempt.is_some_and(|attempt| attempt.slot))
            })
            .count();
        let (running, queued) = (running as usize, queued as usize);
        let fits = running >= held + beside
            && queued <= waiting
            && running + queued <= held + beside + waiting;
        if fits {
            return Ok(());
        }
        let what = format!(
            "the host counts {running} slots and {queued} that wait; the records say {} and {waiting}",
            held + beside
        );
        Err(Violation::new(self.name(), what))
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}
