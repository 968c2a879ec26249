//! The family of scenarios: plans made from a seed.
//!
//! A seed chooses a scenario, its commands and their order, which classes of fault are on, and what is done to the world at
//! which time. The same seed gives the same plan.

mod commands;
mod family;
mod weather;

use windlass_fakes::decision::{Decisions, Question};

use super::plan::Plan;

pub use family::FAMILY;

/// Makes choices for one seed.
#[derive(Debug)]
struct Dice {
    decisions: Decisions,
    rolled: u32,
}

impl Dice {
    fn new(seed: u64) -> Self {
        Self { decisions: Decisions::new(seed), rolled: 0 }
    }

    fn roll(&mut self) -> u64 {
        self.rolled += 1;
        let question = Question { site: "scenario", about: "", nth: self.rolled, draw: 0 };
        self.decisions.draw(&question)
    }

    /// Returns a number below `count`.
    fn below(&mut self, count: u64) -> u64 {
        self.roll() % count.max(1)
    }

    /// Returns a number in a range, both ends included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Says yes in `percent` of all cases.
    fn happens(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(from.len() as u64)).unwrap_or_default();
        &from[index]
    }
}

/// Makes the plan of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut dice = Dice::new(seed);
    let scenario = *dice.pick(&FAMILY);
    let mut plan = family::plan(seed, scenario, &mut dice);
    weather::add(&mut plan, &mut dice);
    plan
}
