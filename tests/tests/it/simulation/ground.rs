//! Two runs of a plan are the same run, whichever way one looks at them.

use windlass_tests::simulation::stage::Keep;
use windlass_tests::simulation::{paused, scenario, seeded};

#[test]
fn a_plan_runs_the_same_way_twice() {
    for seed in 20..30 {
        let plan = scenario::plan(seed);
        let (one, other) = (seeded::run(&plan, Keep::Counts), seeded::run(&plan, Keep::Events));
        assert_eq!(one.digest, other.digest, "seed {seed}");
        assert_eq!(other.trace.len() as u64, other.events, "seed {seed}");
    }
}

#[test]
fn different_seeds_are_different_runs() {
    let digests: std::collections::BTreeSet<_> =
        (40..60).map(|seed| seeded::run(&scenario::plan(seed), Keep::Counts).digest).collect();
    assert_eq!(digests.len(), 20);
}

#[test]
fn tokio_runs_a_plan_the_same_way_twice() {
    let plan = scenario::plan(3);
    let digest = || paused::run(&plan, Keep::Counts).digest;
    assert_eq!(digest(), digest());
}
