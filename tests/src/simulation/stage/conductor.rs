//! What stands between a host and its ports.

use std::fmt;
use std::sync::Arc;

use windlass_core::process_store::Write;
use windlass_fakes::faulty::{Call, CallNumber, Conductor, Effect, Fault, Pending, Site, Told};

use super::super::event::{Gone, Life, What};
use super::super::ground::Ground;
use super::Stage;

/// The conductor of one host.
pub struct LifeConductor {
    stage: Arc<Stage>,
    ground: Arc<dyn Ground>,
    life: Life,
}

impl fmt::Debug for LifeConductor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conductor of host {}", self.life.0)
    }
}

impl LifeConductor {
    /// Makes that of a host.
    #[must_use]
    pub fn new(stage: Arc<Stage>, ground: Arc<dyn Ground>, life: Life) -> Self {
        Self { stage, ground, life }
    }
}

impl Conductor for LifeConductor {
    fn begin(&self, call: Call, batch: &[Write]) -> (CallNumber, Fault) {
        let life = self.life;
        // The world's time is up to date.
        let _now = self.ground.now();
        let (number, fault) = {
            let mut inner = self.stage.lock();
            inner.names.learn(batch);
            let about = inner.names.of(call.about);
            let fault = inner.fault_at(life, call.site, &about);
            (CallNumber(inner.calls), fault)
        };
        self.stage.note(What::Called { life, number, call, fault });
        (number, fault)
    }

    fn performed(&self, number: CallNumber, call: Call, effect: Effect<'_>) {
        let life = self.life;
        let failure = match effect {
            Effect::Committed { lease, writes, number } => {
                self.stage.note(What::Committed { life, lease, number, writes: writes.into() });
                None
            }
            Effect::Acquired(lease) => {
                self.stage.note(What::Acquired { life, lease });
                None
            }
            Effect::Done => None,
            Effect::Failed(error) => Some(error.to_string()),
        };
        // Looking changes nothing; what was written is told above.
        if call.site.has_effect() && call.site != Site::Commit || failure.is_some() {
            self.stage.note(What::Performed { life, number, call, failure });
        }
    }

    fn end(&self, number: CallNumber, call: Call, told: Told) {
        self.stage.note(What::Returned { life: self.life, number, call, told });
        self.ground.changed();
    }

    fn lives(&self) -> bool {
        // Asked before a call has its effect, which may set a timer of the world.
        self.ground.changed();
        self.stage.lives(self.life)
    }

    fn kill(&self, number: CallNumber, call: Call) {
        let life = self.life;
        self.stage.note(What::Returned { life, number, call, told: Told::Nothing });
        self.stage.host_gone(life, Gone::Killed);
        self.ground.kill(life);
    }

    fn pause(&self, ms: u64) -> Pending<'static, ()> {
        self.ground.time_reached(self.ground.now().plus_ms(ms))
    }

    fn healed(&self) -> Pending<'static, ()> {
        let stage = Arc::clone(&self.stage);
        Box::pin(async move { stage.when(|stage| stage.is_healed().then_some(())).await })
    }
}
