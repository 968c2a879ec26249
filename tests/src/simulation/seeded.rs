//! The engine on a small seeded executor: host loop, driver and machines as they ship, on one thread.

use std::sync::Arc;

use windlass_core::time::Timestamp;

use super::event::Life;
use super::executor::{Executor, OUTSIDE, Turn};
use super::ground::{Ground, Seeded};
use super::oracle::{self, Violation};
use super::place::Place;
use super::plan::{Class, Plan};
use super::play::Play;
use super::stage::{Keep, Outcome, Stage};

/// How many turns a run takes at most: more are a storm.
const TURNS: u32 = 200_000;

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan, keep: Keep) -> Outcome {
    let plan = Arc::new(plan.clone());
    let place = Place::new();
    let world = place.scene.world.clone();
    let stage = Stage::new(Arc::clone(&plan), place.scene.clone(), oracle::all(), keep);
    let stage = Arc::new(stage);
    let executor = Executor::new(world);
    let ground: Arc<dyn Ground> = Arc::new(Seeded(Arc::clone(&executor)));
    let play = Arc::new(Play { plan, stage: Arc::clone(&stage), ground, place });
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (begun, ended) = (Arc::clone(&play), Arc::clone(&over));
    let whole = async move {
        begun.run().await;
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    executor.spawn(OUTSIDE, Box::pin(whole));
    let mut turns = 0;
    while !over.load(std::sync::atomic::Ordering::Relaxed) && !stage.is_violated() {
        turns += 1;
        if turns > TURNS {
            stage.violate(Violation::new("S23 bounded", "a run takes no end: a storm of wakes"));
        }
        let late = |group: super::executor::Group| {
            stage.choose(Class::Reorder, "order", group_name(group), 2) == 1
        };
        match executor.turn(Timestamp(u64::MAX), late) {
            Turn::Polled(OUTSIDE) => {}
            Turn::Polled(group) => {
                if stage.dies_after_poll(Life(group.0)) {
                    play.kill(Life(group.0));
                }
                if !stage.lives(Life(group.0)) {
                    // What it had begun may have been written when it was dropped.
                    stage.catch_up();
                }
            }
            Turn::Moved => stage.catch_up(),
            Turn::Idle => {
                let what = "nothing will ever happen again, and not everything has ended";
                stage.violate(Violation::new("liveness", what));
            }
        }
        while let Some(blow) = stage.next_blow() {
            play.strike(blow);
        }
    }
    executor.clear();
    stage.finish()
}

fn group_name(group: super::executor::Group) -> &'static str {
    if group == OUTSIDE { "outside" } else { "host" }
}
