//! [`Ground`]: what runs the tasks of a run, and a host's view of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use windlass::runtime::{Clock, Entropy, Spawner};
use windlass_core::time::Timestamp;

use super::event::{Gone, Life};
use super::executor::{Executor, Group, OUTSIDE};
use super::stage::Stage;

/// Runs tasks, those of a host apart from the others.
pub trait Ground: fmt::Debug + Send + Sync + 'static {
    /// Runs a task of a host, or one that no host's death touches.
    fn spawn(&self, life: Option<Life>, task: BoxFuture<'static, ()>);

    /// Drops all tasks of a host.
    fn kill(&self, life: Life);

    /// Returns the time.
    fn now(&self) -> Timestamp;

    /// Resolves at a time.
    fn time_reached(&self, at: Timestamp) -> BoxFuture<'static, ()>;

    /// Hears that the timers of the world may have changed.
    fn changed(&self);
}

/// An [`Executor`] as ground. Apart, because what sleeps holds the executor.
#[derive(Debug)]
pub struct Seeded(pub Arc<Executor>);

impl Ground for Seeded {
    fn spawn(&self, life: Option<Life>, task: BoxFuture<'static, ()>) {
        self.0.spawn(life.map_or(OUTSIDE, |life| Group(life.0)), task);
    }

    fn kill(&self, life: Life) {
        self.0.kill(Group(life.0));
    }

    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn time_reached(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(self.0.time_reached(at))
    }

    fn changed(&self) {}
}

/// Clock, spawner and random bits of one host.
#[derive(Debug)]
pub struct HostRuntime {
    /// What runs its tasks.
    pub ground: Arc<dyn Ground>,
    /// What hears of it.
    pub stage: Arc<Stage>,
    /// Which host.
    pub life: Life,
}

impl Clock for HostRuntime {
    fn now(&self) -> Timestamp {
        self.ground.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.ground.time_reached(self.ground.now().plus_ms(ms))
    }
}

impl Spawner for HostRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let (stage, life) = (Arc::clone(&self.stage), self.life);
        stage.host_task(life, true);
        let ground = Arc::clone(&self.ground);
        let task = async move {
            task.await;
            if stage.host_task(life, false) {
                stage.host_gone(life, Gone::Left);
                // Its process ends, and with it whatever it still served.
                ground.kill(life);
            }
        };
        self.ground.spawn(Some(self.life), Box::pin(task));
    }
}

impl Entropy for HostRuntime {
    fn bytes(&self) -> [u8; 16] {
        self.stage.random(self.life)
    }
}
