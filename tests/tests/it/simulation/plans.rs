//! Plans as texts, and what becomes of a plan that violates something.

use std::time::Duration;

use windlass_fakes::faulty::Fault;
use windlass_tests::simulation::oracle::Violation;
use windlass_tests::simulation::plan::{Blow, Intervention, Plan, When};
use windlass_tests::simulation::stage::{Keep, Outcome};
use windlass_tests::simulation::{scenario, seeded, shrink};

#[test]
fn a_plan_survives_its_text() {
    for seed in 1..300 {
        let plan = scenario::plan(seed);
        assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan, "seed {seed}");
    }
}

#[test]
fn a_text_that_is_no_plan_names_its_line() {
    for (text, line) in
        [("seed 1\nnonsense 2", "line 2"), ("seed x", "line 1"), ("\nseed", "line 2")]
    {
        let error = text.parse::<Plan>().unwrap_err().to_string();
        assert!(error.starts_with(line), "{text:?}: {error}");
    }
}

/// Complains if a call goes wrong in this way, as an oracle would.
fn complain(plan: &Plan, site: &str, fault: Fault) -> Outcome {
    let mut outcome = seeded::run(plan, Keep::Counts);
    let named = plan.interventions.iter().any(|one| {
        let at = matches!(&one.when, When::Call { site: other, .. } if other == site);
        at && one.what == Blow::Fault(fault)
    });
    let thrown = outcome.chosen.iter().any(|one| {
        let at = matches!(&one.when, When::Call { site: other, .. } if other == site);
        at && one.what == Blow::Fault(fault)
    });
    if named || thrown {
        outcome.violation = Some(Violation::new("made up", "it went wrong"));
    }
    outcome
}

#[test]
fn shrinking_leaves_what_matters() {
    let run = |plan: &Plan| complain(plan, "store.commit", Fault::ErrorAfter);
    let plan = (1..500)
        .map(scenario::plan)
        .find(|plan| !plan.swarm.is_calm() && run(plan).violation.is_some())
        .expect("a seed with an error after a commit");
    let small = shrink::shrink(&plan, &run, Duration::from_secs(5));
    assert!(small.swarm.is_calm(), "what the swarm threw is named");
    assert!(run(&small).violation.is_some());
    let only = |one: &Intervention| one.what == Blow::Fault(Fault::ErrorAfter);
    assert_eq!(small.interventions.iter().filter(|one| only(one)).count(), 1, "{small}");
    assert_eq!(small.interventions.len(), 1, "{small}");
    assert_eq!(small.requests.len(), 0, "nothing else is needed: {small}");
}
