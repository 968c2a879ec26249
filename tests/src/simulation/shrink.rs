//! Shrinking: the smallest plan that violates the same oracle.
//!
//! First everything that the swarm threw is put into the plan by name and the swarm is switched off; then whatever can be
//! taken away is, as long as the same oracle still complains. Decisions are keyed, so what is left goes on as it did.

use std::time::{Duration, Instant};

use super::plan::{Fixed, Plan, Swarm};
use super::stage::Outcome;

/// Runs a plan in some layer.
pub type Run<'a> = &'a dyn Fn(&Plan) -> Outcome;

/// Finds the smallest plan that violates what `plan` violates, within some time.
#[must_use]
pub fn shrink(plan: &Plan, run: Run<'_>, most: Duration) -> Plan {
    let begun = Instant::now();
    let outcome = run(plan);
    let Some(violation) = outcome.violation else { return plan.clone() };
    let oracle = violation.oracle;
    let still = |plan: &Plan| run(plan).violation.is_some_and(|found| found.oracle == oracle);
    let mut best = plan.clone();
    let explicit = named(plan, outcome.chosen, &outcome.mattered);
    if still(&explicit) {
        best = explicit;
    }
    let mut shrinker = Shrinker { best, still: &still, begun, most };
    loop {
        let before = shrinker.size();
        shrinker.interventions();
        shrinker.fixed();
        shrinker.requests();
        shrinker.simpler();
        if shrinker.size() >= before || shrinker.is_late() {
            return shrinker.best;
        }
    }
}

/// Puts into the plan by name what the swarm threw and how it ordered.
fn named(
    plan: &Plan,
    chosen: Vec<super::plan::Intervention>,
    mattered: &[windlass_fakes::decision::Decision],
) -> Plan {
    let mut plan = plan.clone();
    plan.swarm = Swarm::default();
    plan.interventions.extend(chosen);
    plan.fixed = mattered
        .iter()
        .map(|decision| Fixed {
            site: decision.site.clone(),
            about: decision.about.clone(),
            nth: decision.nth,
            answer: decision.answer,
        })
        .collect();
    plan
}

struct Shrinker<'a> {
    best: Plan,
    still: &'a dyn Fn(&Plan) -> bool,
    begun: Instant,
    most: Duration,
}

impl Shrinker<'_> {
    fn size(&self) -> usize {
        let Plan { requests, interventions, fixed, .. } = &self.best;
        requests.len() + interventions.len() + fixed.len() + self.best.to_string().len()
    }

    fn is_late(&self) -> bool {
        self.begun.elapsed() > self.most
    }

    /// Takes a plan if it is as bad as the best one.
    fn try_out(&mut self, plan: Plan) -> bool {
        if plan == self.best || self.is_late() || !(self.still)(&plan) {
            return false;
        }
        self.best = plan;
        true
    }

    /// Takes away pieces of a list, half of it first, then quarters, down to single ones.
    fn thin(&mut self, len: impl Fn(&Plan) -> usize, without: impl Fn(&mut Plan, usize, usize)) {
        let mut piece = len(&self.best).div_ceil(2);
        while piece > 0 {
            let mut at = 0;
            while at < len(&self.best) {
                let mut plan = self.best.clone();
                without(&mut plan, at, (at + piece).min(len(&self.best)));
                if !self.try_out(plan) {
                    at += piece;
                }
                if self.is_late() {
                    return;
                }
            }
            piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
        }
    }

    fn interventions(&mut self) {
        self.thin(
            |plan| plan.interventions.len(),
            |plan, from, to| drop(plan.interventions.drain(from..to)),
        );
    }

    fn fixed(&mut self) {
        self.thin(|plan| plan.fixed.len(), |plan, from, to| drop(plan.fixed.drain(from..to)));
    }

    fn requests(&mut self) {
        self.thin(|plan| plan.requests.len(), |plan, from, to| drop(plan.requests.drain(from..to)));
    }

    /// Makes what is left simpler: earlier, shorter, with the defaults.
    fn simpler(&mut self) {
        let mut plan = self.best.clone();
        plan.settings = super::plan::Settings::default();
        self.try_out(plan);
        for n in 0..self.best.requests.len() {
            let mut plan = self.best.clone();
            plan.requests[n].at_ms = u64::try_from(n).unwrap_or(0);
            self.try_out(plan);
            let words = match self.best.requests[n].verb.launch() {
                Some(launch) => launch.argv.len(),
                None => 0,
            };
            for word in (1..words).rev() {
                let mut plan = self.best.clone();
                if let Some(launch) = plan.requests[n].verb.launch_mut()
                    && launch.argv.first().is_some_and(|program| program == "script")
                    && !matches!(launch.argv[word].as_str(), "fork" | "daemon" | "end")
                {
                    launch.argv.remove(word);
                    self.try_out(plan);
                }
            }
        }
    }
}
