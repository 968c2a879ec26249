//! The engine on tokio, on one thread, with its clock paused: the same plans as [`super::seeded`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use windlass_core::time::Timestamp;
use windlass_fakes::World;

use super::event::Life;
use super::ground::Ground;
use super::oracle::{self, Violation};
use super::place::Place;
use super::plan::Plan;
use super::play::Play;
use super::stage::{Keep, Outcome, Stage};

/// How long a run takes at most in its own time.
const MOST: Duration = Duration::from_secs(100 * 3_600);

/// Tasks on tokio, in the time of a world.
struct Paused {
    world: World,
    began: (Timestamp, Instant),
    tasks: Mutex<BTreeMap<Option<Life>, JoinSet<()>>>,
    /// The timers of the world may have changed.
    changed: Notify,
}

impl fmt::Debug for Paused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paused").field("began", &self.began).finish_non_exhaustive()
    }
}

impl Paused {
    fn tasks(&self) -> MutexGuard<'_, BTreeMap<Option<Life>, JoinSet<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the time of the world with tokio's.
    async fn drive(self: Arc<Self>, stage: Arc<Stage>) {
        loop {
            let _now = self.now();
            stage.catch_up();
            // Whoever was woken by that may set a timer of its own.
            tokio::task::yield_now().await;
            let changed = self.changed.notified();
            match self.world.next_timer() {
                Some(due) => {
                    let due = self.instant(due);
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = reached(due) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.began.1 + Duration::from_millis(at.ms_since(self.began.0))
    }
}

/// Resolves at an instant of tokio's clock, which jumps there when nothing else can happen.
async fn reached(at: Instant) {
    let never = std::future::pending::<()>();
    let _elapsed = tokio::time::timeout_at(at, never).await;
}

impl Ground for Paused {
    fn spawn(&self, life: Option<Life>, task: BoxFuture<'static, ()>) {
        self.tasks().entry(life).or_default().spawn(task);
    }

    fn kill(&self, life: Life) {
        if let Some(mut tasks) = self.tasks().remove(&Some(life)) {
            tasks.abort_all();
        }
    }

    fn now(&self) -> Timestamp {
        let passed = Instant::now().duration_since(self.began.1);
        let now = self.began.0.plus_ms(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        if self.world.now() < now {
            // Tokio's clock moved when nothing was due in the world.
            self.world.set_now(now);
        }
        now
    }

    fn time_reached(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(reached(self.instant(at)))
    }

    fn changed(&self) {
        self.changed.notify_one();
    }
}

/// Runs a plan.
///
/// # Panics
///
/// When tokio cannot be started.
#[must_use]
pub fn run(plan: &Plan, keep: Keep) -> Outcome {
    let plan = Arc::new(plan.clone());
    let place = Place::new();
    let world = place.scene.world.clone();
    let stage = Stage::new(Arc::clone(&plan), place.scene.clone(), oracle::all(), keep);
    let stage = Arc::new(stage);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("tokio starts");
    runtime.block_on(async {
        let ground = Arc::new(Paused {
            began: (world.now(), Instant::now()),
            world,
            tasks: Mutex::new(BTreeMap::new()),
            changed: Notify::new(),
        });
        let play = Arc::new(Play {
            plan,
            stage: Arc::clone(&stage),
            ground: Arc::clone(&ground) as Arc<dyn Ground>,
            place,
        });
        let drives = Arc::clone(&ground).drive(Arc::clone(&stage));
        ground.spawn(None, Box::pin(drives));
        let (watched, struck) = (Arc::clone(&stage), Arc::clone(&play));
        ground.spawn(
            None,
            Box::pin(async move {
                loop {
                    // What was struck at a call is done when nothing is being polled.
                    let blow = watched.when(Stage::next_blow).await;
                    struck.strike(blow);
                }
            }),
        );
        let violated = stage.when(|stage| stage.is_violated().then_some(()));
        tokio::select! {
            biased;
            () = violated => {}
            () = Arc::clone(&play).run() => {}
            () = reached(Instant::now() + MOST) => {
                let what = "nothing more happens, and not everything has ended";
                stage.violate(Violation::new("liveness", what));
            }
        }
        ground.tasks().clear();
    });
    drop(runtime);
    stage.finish()
}
