//! The simulation, as much of it as fits into seconds; `cargo xtask sim` runs it for as long as somebody likes.

mod ground;
mod plans;

use windlass_tests::simulation::command::kept_plans;
use windlass_tests::simulation::sometimes::MUST;
use windlass_tests::simulation::stage::{Keep, Outcome};
use windlass_tests::simulation::{meta, paused, scenario, seeded};

#[track_caller]
fn holds(what: &str, outcome: &Outcome) {
    assert_eq!(outcome.violation, None, "{what}: run `cargo xtask sim` with it");
}

#[test]
fn plans_that_once_violated_something_do_not() {
    for (name, plan) in kept_plans().unwrap() {
        holds(&name, &seeded::run(&plan, Keep::Counts));
        holds(&name, &paused::run(&plan, Keep::Counts));
    }
}

#[test]
fn nothing_is_violated_in_the_first_seeds() {
    for seed in 1..=150 {
        holds(&format!("seed {seed}"), &seeded::run(&scenario::plan(seed), Keep::Counts));
    }
}

#[test]
fn nothing_is_violated_on_tokio_with_its_clock_paused() {
    for seed in 1..=20 {
        let plan = scenario::plan(seed);
        holds(&format!("seed {seed} on tokio"), &paused::run(&plan, Keep::Counts));
    }
}

#[test]
fn what_must_not_matter_does_not() {
    for seed in 1..=15 {
        let checked = meta::check(&scenario::plan(seed), &|plan| seeded::run(plan, Keep::Counts));
        assert_eq!(checked, Ok(()));
    }
}

#[test]
fn what_must_happen_now_and_then_has_a_name_of_its_own() {
    let mut names = MUST.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), MUST.len());
}
