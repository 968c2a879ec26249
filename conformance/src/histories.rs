//! How random histories are made and run: the same ones each time, unless the environment asks for others.
#![expect(clippy::panic, reason = "a history that fails panics")]

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

/// How many histories there are, and how many steps each has at most, unless `PROPTEST_CASES` says otherwise.
const HISTORIES: u32 = 48;
const STEPS: usize = 24;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is answered.
    None,
    /// It is dropped before anything of it was done.
    Unbegun,
    /// It is dropped when it is under way, as by a host that is killed.
    Dropped,
}

/// Chooses what becomes of a call: always an answer where too many states are allowed already.
pub(crate) fn fault(many: bool) -> BoxedStrategy<Fault> {
    let dropped = u32::from(!many);
    prop_oneof![
        6 => Just(Fault::None),
        dropped => Just(Fault::Unbegun),
        2 * dropped => Just(Fault::Dropped),
    ]
    .boxed()
}

/// Runs random histories, and makes one that fails as short as it gets.
///
/// # Panics
///
/// When a history fails.
pub(crate) fn run<T: StateMachineTest>()
where
    <T::Reference as ReferenceStateMachine>::Transition: 'static,
{
    let mut config = Config { failure_persistence: None, ..Config::default() };
    config.max_shrink_iters = config.max_shrink_iters.min(2_000);
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = HISTORIES;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    let histories = T::Reference::sequential_strategy(1..=STEPS);
    let result = TestRunner::new(config.clone()).run(&histories, |(state, steps, seen)| {
        T::test_sequential(config.clone(), state, steps, seen);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
