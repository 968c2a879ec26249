//! Oracles: small observers, each with a property that must hold whatever happens.
//!
//! They see events and a [`View`], and use none of the engine's own logic: what they compare the engine with is the
//! kernel's truth, what is durable, and what clients were told.

mod admission;
mod chain;
mod log;
mod memory;
mod message;
mod outcome;
mod process;
mod start;
mod store;
#[cfg(test)]
mod tests;
mod worktree;

use std::fmt;

use super::event::Event;
use super::view::View;

/// That a property does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The oracle that says so.
    pub oracle: &'static str,
    /// What is wrong, in one sentence.
    pub what: String,
    /// The numbers of the events that prove it; the event at which it was noticed is not among them.
    pub proof: Vec<u64>,
}

impl Violation {
    /// Says what is wrong.
    pub fn new(oracle: &'static str, what: impl Into<String>) -> Self {
        Self { oracle, what: what.into(), proof: Vec::new() }
    }

    /// Names the events that prove it.
    #[must_use]
    pub fn because(mut self, proof: impl IntoIterator<Item = u64>) -> Self {
        self.proof.extend(proof);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.oracle, self.what)
    }
}

/// Watches one property.
pub trait Oracle: fmt::Debug + Send {
    /// Returns its name, for example `S4 one start`.
    fn name(&self) -> &'static str;

    /// Looks at an event.
    ///
    /// # Errors
    ///
    /// The property does not hold.
    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation>;

    /// Looks at the end: nothing goes wrong any more, everything was asked to end, and there was time enough.
    ///
    /// # Errors
    ///
    /// The property does not hold.
    fn end(&mut self, view: &View<'_>) -> Result<(), Violation>;
}

/// Makes every oracle, in the order of their names.
#[must_use]
pub fn all() -> Vec<Box<dyn Oracle>> {
    vec![
        Box::new(admission::Acknowledged),
        Box::<admission::SameKey>::default(),
        Box::new(start::Intended),
        Box::<start::Once>::default(),
        Box::<start::ChainOrder>::default(),
        Box::new(outcome::True),
        Box::new(outcome::RightlyLost),
        Box::new(outcome::OneEnd),
        Box::new(process::NamedSurvivors),
        Box::<process::Signals>::default(),
        Box::new(process::Owned),
        Box::<process::NoOrphans>::default(),
        Box::<store::Fenced>::default(),
        Box::new(log::Exact),
        Box::<log::Stays>::default(),
        Box::new(log::NotAhead),
        Box::<log::Resumed>::default(),
        Box::<worktree::NothingLost>::default(),
        Box::new(start::OneWriter),
        Box::new(admission::WithinLimits),
        Box::<store::Forward>::default(),
        Box::<store::Bounded>::default(),
        Box::<memory::AsRecorded>::default(),
        Box::<message::Messages>::default(),
        Box::<chain::Chains>::default(),
    ]
}
