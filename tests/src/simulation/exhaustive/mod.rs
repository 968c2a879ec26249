//! Everything that can go wrong in a small scope: each scenario once as it is, which numbers its port calls; then with one
//! thing going wrong at each call, and with two.

pub mod command;
pub mod family;
pub mod planted;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use windlass_core::planted::{Bug, plant};
use windlass_fakes::faulty::{Fault, Site};

use super::event::What;
use super::oracle::{self, Violation};
use super::plan::{Blow, Intervention, Launch, Plan, Request, Verb, When};
use super::stage::{Keep, Outcome};
use super::steps;
pub use family::{FAMILY, SCRIPTS, Scenario, power_goes};

/// What is done at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// The call goes wrong.
    Fault(Fault),
    /// A stop is asked for.
    Stop,
    /// One more execution is asked for.
    Submit,
    /// A removal is asked for.
    Remove,
    /// The machine loses its power.
    PowerLoss,
    /// Another host comes.
    SecondHost,
}

/// How long a call takes that takes long, in milliseconds.
const LONG_MS: u64 = 20_000;

impl Stroke {
    /// Everything that is done at each call.
    pub const ALL: [Self; 11] = [
        Self::Fault(Fault::ErrorBefore),
        Self::Fault(Fault::ErrorAfter),
        Self::Fault(Fault::CrashBefore),
        Self::Fault(Fault::CrashAfter),
        Self::Fault(Fault::Delay { before_ms: LONG_MS, after_ms: 0 }),
        Self::Fault(Fault::Delay { before_ms: 0, after_ms: LONG_MS }),
        Self::Stop,
        Self::Submit,
        Self::Remove,
        Self::PowerLoss,
        Self::SecondHost,
    ];

    /// Says whether it can make a difference at a method.
    #[must_use]
    pub fn applies(self, site: Site) -> bool {
        match self {
            // A save or a creation that fails promises that everything is as it was.
            Self::Fault(Fault::ErrorAfter) if matches!(site, Site::Save | Site::Create) => false,
            Self::Fault(Fault::ErrorAfter | Fault::CrashAfter) => site.has_effect(),
            Self::Fault(_)
            | Self::Stop
            | Self::Submit
            | Self::Remove
            | Self::PowerLoss
            | Self::SecondHost => true,
        }
    }

    fn blow(self, nth: u64) -> Blow {
        let of = "a".to_owned();
        let ask = |name: &str, verb| {
            let name = format!("{name} at call {nth}");
            Blow::Ask(Box::new(Request { at_ms: 0, name, owner: None, verb }))
        };
        match self {
            Self::Fault(fault) => Blow::Fault(fault),
            Self::Stop => ask("stop", Verb::Stop { of, grace_ms: None }),
            Self::Submit => {
                let argv = vec!["print".to_owned(), "more\n".to_owned(), String::new()];
                let launch = Launch { argv, ..Launch::default() };
                ask("submit", Verb::Exec { of, dev_server: false, launch })
            }
            Self::Remove => ask("remove", Verb::Remove { of, force: true, branch: false }),
            Self::PowerLoss => power_goes(),
            Self::SecondHost => Blow::SecondHost,
        }
    }

    fn at(self, nth: u64) -> Intervention {
        Intervention { when: When::AnyCall(nth), what: self.blow(nth) }
    }
}

/// How much is enumerated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Nothing goes wrong but what the scenario says.
    Plain,
    /// One thing goes wrong.
    Singles,
    /// Two things go wrong.
    Pairs,
}

/// What an enumeration has found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many runs there were.
    pub runs: u64,
    /// Port calls of the plain runs.
    pub calls: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// It came to its end.
    pub finished: bool,
    /// Plans after which something did not hold, with what, the first of each scenario and oracle.
    pub found: Vec<(Plan, Violation)>,
}

impl Report {
    /// Returns how many runs there were in a second.
    #[must_use]
    pub fn runs_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let runs = self.runs as f64;
        runs / self.seconds.max(1e-9)
    }
}

impl Report {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.calls += other.calls;
        self.finished &= other.finished;
        for (plan, violation) in &other.found {
            note(self, plan, violation);
        }
    }
}

/// Goes through a family.
#[derive(Debug)]
pub struct Enumeration<'a> {
    /// Which scenarios.
    pub family: &'a [Scenario],
    /// With which commands.
    pub scripts: &'a [&'a [&'a str]],
    /// How deep.
    pub depth: Depth,
    /// It ends at the first thing that does not hold.
    pub stops: bool,
    /// It ends when this many seconds have passed.
    pub most_seconds: f64,
    /// A bug that is planted meanwhile.
    pub planted: Option<Bug>,
}

impl Enumeration<'_> {
    /// Runs it, on all processors.
    #[must_use]
    pub fn run(&self) -> Report {
        let begun = Instant::now();
        let next = AtomicUsize::new(0);
        let plans = self.family.len() * self.scripts.len();
        let whole = Mutex::new(Report { finished: true, ..Report::default() });
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(plans) {
                scope.spawn(|| {
                    let _planted = plant(self.planted);
                    self.work(begun, &next, &whole);
                });
            }
        });
        let mut report = whole.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.seconds = begun.elapsed().as_secs_f64();
        report
    }

    /// Takes one plan after the other until there are no more, or it is over.
    fn work(&self, begun: Instant, next: &AtomicUsize, whole: &Mutex<Report>) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let scenario = self.family.get(number / self.scripts.len().max(1));
            let script = self.scripts.get(number % self.scripts.len().max(1));
            let (Some(scenario), Some(script)) = (scenario, script) else { return };
            let mut report = Report { finished: true, ..Report::default() };
            self.scenario(&scenario.plan(script), &mut report, begun);
            report.finished = !self.is_over(&report, begun);
            let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
            whole.add(report);
            if self.is_over(&whole, begun) {
                next.store(self.family.len() * self.scripts.len(), Ordering::Relaxed);
                return;
            }
        }
    }

    fn is_over(&self, report: &Report, begun: Instant) -> bool {
        (self.stops && !report.found.is_empty())
            || begun.elapsed().as_secs_f64() > self.most_seconds
    }

    fn scenario(&self, plan: &Plan, report: &mut Report, begun: Instant) {
        if self.depth == Depth::Plain {
            judge(plan, report);
            return;
        }
        let plain = run(plan, Keep::Events);
        report.runs += 1;
        report.calls += plain.calls;
        if let Some(violation) = &plain.violation {
            note(report, plan, violation);
            return;
        }
        let sites = sites(&plain);
        for (first, site) in &sites {
            for stroke in Stroke::ALL.into_iter().filter(|stroke| stroke.applies(*site)) {
                let mut plan = plan.clone();
                plan.interventions.push(stroke.at(*first));
                match self.depth {
                    Depth::Plain | Depth::Singles => judge(&plan, report),
                    Depth::Pairs => self.seconds(&plan, *first, report, begun),
                }
                if self.is_over(report, begun) {
                    return;
                }
            }
        }
    }

    /// Runs a plan in which one thing goes wrong with each other thing behind it.
    fn seconds(&self, plan: &Plan, first: u64, report: &mut Report, begun: Instant) {
        let once = run(plan, Keep::Events);
        report.runs += 1;
        if let Some(violation) = &once.violation {
            note(report, plan, violation);
            return;
        }
        for (second, site) in sites(&once).into_iter().filter(|(nth, _)| *nth > first) {
            for stroke in Stroke::ALL.into_iter().filter(|stroke| stroke.applies(site)) {
                let mut plan = plan.clone();
                plan.interventions.push(stroke.at(second));
                judge(&plan, report);
                if self.is_over(report, begun) {
                    return;
                }
            }
        }
    }
}

/// Lists the calls of a run with their numbers, as long as things may go wrong.
fn sites(outcome: &Outcome) -> Vec<(u64, Site)> {
    let sick = outcome.trace.iter().take_while(|event| !matches!(event.what, What::Healed));
    let called = sick.filter_map(|event| match &event.what {
        What::Called { number, call, .. } => Some((number.0, call.site)),
        _ => None,
    });
    called.collect()
}

fn judge(plan: &Plan, report: &mut Report) {
    report.runs += 1;
    if let Some(violation) = run(plan, Keep::Counts).violation {
        note(report, plan, &violation);
    }
}

fn note(report: &mut Report, plan: &Plan, violation: &Violation) {
    let known = report
        .found
        .iter()
        .any(|(of, other)| of.scenario == plan.scenario && other.oracle == violation.oracle);
    if !known {
        report.found.push((plan.clone(), violation.clone()));
    }
}

/// Runs a plan in the step loop, before all oracles.
#[must_use]
pub fn run(plan: &Plan, keep: Keep) -> Outcome {
    steps::run(&Arc::new(plan.clone()), oracle::all(), keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enumerate(family: &[Scenario], scripts: &[&[&str]], depth: Depth) -> Report {
        let most_seconds = f64::INFINITY;
        Enumeration { family, scripts, depth, stops: true, most_seconds, planted: None }.run()
    }

    #[track_caller]
    fn holds(report: &Report) {
        let found = report.found.first().map(|(plan, violation)| format!("{violation}\n{plan}"));
        assert_eq!(found, None);
        assert!(report.finished);
    }

    #[test]
    fn every_scenario_holds_as_it_is() {
        let report = enumerate(FAMILY, &SCRIPTS[..2], Depth::Plain);
        holds(&report);
        assert_eq!(report.runs, 2 * FAMILY.len() as u64);
    }

    #[test]
    fn a_run_holds_whatever_goes_wrong_at_one_of_its_calls() {
        let report = enumerate(&FAMILY[..1], &SCRIPTS[..1], Depth::Singles);
        holds(&report);
        assert!(report.runs > 100, "{} runs", report.runs);
    }

    #[test]
    fn the_same_plan_gives_the_same_run() {
        for scenario in FAMILY {
            let plan = scenario.plan(SCRIPTS[0]);
            let (once, again) = (run(&plan, Keep::Counts), run(&plan, Keep::Counts));
            assert_eq!(once.digest, again.digest, "{}", scenario.name);
        }
    }

    #[test]
    fn planted_bugs_that_need_nothing_else_to_go_wrong_are_found() {
        let alone = [
            Bug::AcknowledgedBeforeDurable,
            Bug::KeyNotRecorded,
            Bug::LaunchedBeforeDurable,
            Bug::KilledWithoutTerm,
        ];
        for bug in alone {
            let found = planted::find(bug, f64::INFINITY);
            assert!(found.by.is_some_and(|_| found.runs < 20), "{}", bug.name());
        }
    }
}
