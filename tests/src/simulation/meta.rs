//! What must be the same when something else is not: metamorphic checks.

use std::collections::BTreeMap;

use windlass_core::outcome::Outcome as Ended;

use super::plan::{Plan, Swarm, Verb, When};
use super::shrink::Run;
use super::stage::Outcome;

/// How an execution ended, as far as that does not depend on what went wrong.
type Ends = BTreeMap<String, Option<Ended>>;

fn ends(outcome: &Outcome) -> Ends {
    let named = outcome.store.executions().filter_map(|record| {
        let name = record.client_key.clone()?;
        Some((name, record.outcome))
    });
    named.collect()
}

/// Returns the plan with nothing going wrong.
fn calm(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.swarm = Swarm::default();
    plan.fixed.clear();
    plan.interventions.clear();
    plan
}

/// Says whether the outcome of an execution depends on nothing but its own command: nobody stops it, removes its directory
/// or waits for it to be released, and no clock runs against it.
fn depends_on_itself(plan: &Plan, name: &str) -> bool {
    let Some(own) = plan.requests.iter().find(|request| request.name == name) else { return false };
    let Some(launch) = own.verb.launch() else { return false };
    let timed = launch.timeout_ms.is_some() || launch.idle_timeout_ms.is_some();
    let beside = matches!(own.verb, Verb::Exec { .. });
    let scripted = matches!(&own.verb, Verb::Run { setup, cleanup, .. } if !(setup.is_empty() && cleanup.is_empty()));
    let lasting = ["forever", "wait", "ignore-term", "echo-stdin"];
    let lasts = launch.argv.iter().any(|word| {
        lasting.contains(&word.as_str())
            || word.strip_prefix("sleep:").is_some_and(|ms| ms.len() > 5)
    });
    let attempt = |name: &str| {
        let started = plan.requests.iter().find(|request| request.name == name);
        started.and_then(|request| request.verb.of()).unwrap_or(name).to_owned()
    };
    let touched = plan.requests.iter().any(|request| match &request.verb {
        Verb::Stop { of, .. }
        | Verb::StopAttempt { of }
        | Verb::Complete { of }
        | Verb::Remove { of, .. }
        | Verb::Send { of, .. }
        | Verb::Retry { of } => attempt(of) == attempt(name),
        _ => false,
    });
    let removes = plan.requests.iter().any(|request| matches!(request.verb, Verb::Remove { .. }));
    // Who waits for a slot depends on who came first.
    let slots = plan.settings.per_owner.min(plan.settings.per_host);
    let waits = plan.requests.len() > usize::try_from(slots).unwrap_or(usize::MAX);
    let disturbed = scripted || timed || lasts || touched || (beside && removes) || waits;
    !(disturbed || launch.refuse_when_full)
}

/// Runs a plan twice, and with and without what goes wrong.
///
/// # Errors
///
/// What differs that must not.
pub fn check(plan: &Plan, run: Run<'_>) -> Result<(), String> {
    let (first, second) = (run(plan), run(plan));
    if first.violation.is_some() {
        return Ok(());
    }
    if first.digest != second.digest {
        return Err(format!(
            "seed {}: two runs of the same plan differ: {:016x} and {:016x}",
            plan.seed, first.digest, second.digest
        ));
    }
    let undisturbed = run(&calm(plan));
    if undisturbed.violation.is_some() {
        return Ok(());
    }
    let (disturbed, calm) = (ends(&first), ends(&undisturbed));
    for (name, outcome) in disturbed {
        let Some(expected) = calm.get(&name).copied() else { continue };
        let excused = matches!(
            outcome,
            // Where the disk was full, or nobody could know.
            Some(Ended::Lost { .. } | Ended::NotStarted { .. })
        );
        if outcome != expected && !excused && depends_on_itself(plan, &name) {
            return Err(format!(
                "seed {}: {name} ended as {outcome:?}, and as {expected:?} when nothing went wrong",
                plan.seed
            ));
        }
    }
    permuted(plan, &undisturbed, run)
}

/// Runs the undisturbed plan with its independent requests in another order.
fn permuted(plan: &Plan, undisturbed: &Outcome, run: Run<'_>) -> Result<(), String> {
    let independent = plan.requests.iter().all(|request| matches!(request.verb, Verb::Run { .. }));
    let limited = plan.settings.per_host < 32;
    let struck = plan.interventions.iter().any(|one| !matches!(one.when, When::At(_)));
    if !independent || limited || struck || plan.requests.len() < 2 {
        return Ok(());
    }
    let mut other = calm(plan);
    let times: Vec<_> = other.requests.iter().map(|request| request.at_ms).collect();
    other.requests.reverse();
    for (request, at_ms) in other.requests.iter_mut().zip(times) {
        request.at_ms = at_ms;
    }
    let (before, after) = (ends(undisturbed), ends(&run(&other)));
    if before == after {
        return Ok(());
    }
    Err(format!("seed {}: in another order they end otherwise: {before:?}, {after:?}", plan.seed))
}
