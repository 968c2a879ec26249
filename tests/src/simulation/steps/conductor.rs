//! [`StepConductor`]: what stands between a host and its ports where nothing waits.
//!
//! A call that is to take time, or to hang, is broken off before its effect and performed anew later; an answer that is to
//! come late is given at once and held back by the loop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use windlass_core::process_store::Write;
use windlass_core::time::Timestamp;
use windlass_fakes::World;
use windlass_fakes::faulty::{Call, CallNumber, Conductor, Effect, Fault, Pending, Told};

use super::super::event::Life;
use super::super::ground::Ground;
use super::super::stage::LifeConductor;

/// When a call that was broken off is performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    /// After so many milliseconds.
    After(u64),
    /// When nothing goes wrong any more.
    Healed,
}

/// What the calls of a job led to, beside their answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Aside {
    /// The job is to be done later.
    pub(super) later: Option<Later>,
    /// Its answer comes so many milliseconds late.
    pub(super) answer_late_ms: u64,
    /// How far it came.
    pub(super) begun: Begun,
}

/// How many calls of a job have begun. When it is done again they go as they were meant to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Begun {
    calls: u32,
    /// The number of the last one, which was broken off or waits.
    last: u64,
}

/// The conductor of one host.
#[derive(Debug)]
pub(super) struct StepConductor {
    inner: LifeConductor,
    aside: Mutex<(Aside, Begun)>,
}

impl StepConductor {
    pub(super) fn new(inner: LifeConductor) -> Self {
        Self { inner, aside: Mutex::default() }
    }

    fn aside(&self) -> MutexGuard<'_, (Aside, Begun)> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a job, or goes on with it.
    pub(super) fn begin_job(&self, before: Begun) {
        *self.aside() = (Aside::default(), before);
    }

    /// Returns what its calls led to.
    pub(super) fn end_job(&self) -> Aside {
        let (mut aside, before) = *self.aside();
        if aside.begun.calls < before.calls {
            aside.begun = before;
        }
        aside
    }
}

impl Conductor for StepConductor {
    fn begin(&self, call: Call, batch: &[Write]) -> (CallNumber, Fault) {
        {
            let (aside, before) = &mut *self.aside();
            aside.begun.calls += 1;
            if aside.begun.calls <= before.calls {
                let is_last = aside.begun.calls == before.calls;
                return (CallNumber(if is_last { before.last } else { 0 }), Fault::None);
            }
        }
        let (number, fault) = self.inner.begin(call, batch);
        let (aside, _) = &mut *self.aside();
        aside.begun.last = number.0;
        match fault {
            Fault::Delay { before_ms, after_ms } => {
                aside.answer_late_ms += after_ms;
                if before_ms > 0 {
                    aside.later = Some(Later::After(before_ms));
                }
                (number, Fault::None)
            }
            Fault::Hang => {
                aside.later = Some(Later::Healed);
                (number, Fault::None)
            }
            fault => (number, fault),
        }
    }

    fn performed(&self, number: CallNumber, call: Call, effect: Effect<'_>) {
        // What was told before is told again only if it changed something again.
        if number.0 != 0 || matches!(effect, Effect::Committed { .. } | Effect::Acquired(_)) {
            self.inner.performed(number, call, effect);
        }
    }

    fn end(&self, number: CallNumber, call: Call, told: Told) {
        if number.0 != 0 {
            self.inner.end(number, call, told);
        }
    }

    fn lives(&self) -> bool {
        self.aside().0.later.is_none() && self.inner.lives()
    }

    fn kill(&self, number: CallNumber, call: Call) {
        self.inner.kill(number, call);
    }

    fn pause(&self, ms: u64) -> Pending<'static, ()> {
        self.inner.pause(ms)
    }

    fn healed(&self) -> Pending<'static, ()> {
        self.inner.healed()
    }
}

/// The ground of a step loop: nothing runs on it, and nothing waits.
#[derive(Debug)]
pub(super) struct Stepwise(pub(super) World);

impl Ground for Stepwise {
    fn spawn(&self, _life: Option<Life>, _task: BoxFuture<'static, ()>) {}

    fn kill(&self, _life: Life) {}

    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn time_reached(&self, _at: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn changed(&self) {}
}

/// Makes the conductor of a host.
pub(super) fn of_life(
    stage: &Arc<super::super::stage::Stage>,
    ground: &Arc<Stepwise>,
    life: Life,
) -> Arc<StepConductor> {
    let ground = Arc::clone(ground) as Arc<dyn Ground>;
    Arc::new(StepConductor::new(LifeConductor::new(Arc::clone(stage), ground, life)))
}
