//! What `windlass-sim` does.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use windlass_core::planted::{Bug, plant};

use super::plan::Plan;
use super::sometimes::Sometimes;
use super::stage::{Keep, Outcome};
use super::{exhaustive, meta, oracle, paused, report, scenario, seeded, shrink, steps};

/// What is asked for.
#[derive(Debug)]
struct Arguments {
    seed: Option<u64>,
    from: u64,
    runs: u64,
    seconds: Option<u64>,
    plan: Option<String>,
    full: bool,
    meta: bool,
    regressions: bool,
    exhaustive: bool,
    planted: bool,
    bug: Option<String>,
    layer: u8,
}

/// How long an enumeration goes on, in seconds, where nothing else is asked for.
const EXHAUSTIVE_SECONDS: u64 = 600;

/// From this number on nothing is run: something was found.
const NO_MORE: u64 = u64::MAX / 2;

/// How long shrinking may take.
const SHRINKING: Duration = Duration::from_secs(5);

/// Runs a plan in a layer.
fn run(layer: u8, plan: &Plan, keep: Keep) -> Outcome {
    match layer {
        1 => steps::run(&std::sync::Arc::new(plan.clone()), oracle::all(), keep),
        3 => paused::run(plan, keep),
        _ => seeded::run(plan, keep),
    }
}

impl Arguments {
    fn read(words: Vec<String>) -> Result<Self, String> {
        let mut arguments = Self {
            seed: None,
            from: 1,
            runs: 2_000,
            seconds: None,
            plan: None,
            full: false,
            meta: false,
            regressions: false,
            exhaustive: false,
            planted: false,
            bug: None,
            layer: 2,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            let number =
                |value: String| value.parse::<u64>().map_err(|_| format!("{value:?} is no number"));
            match word.as_str() {
                "--seed" => arguments.seed = Some(number(value()?)?),
                "--from" => arguments.from = number(value()?)?,
                "--runs" => arguments.runs = number(value()?)?,
                "--seconds" => arguments.seconds = Some(number(value()?)?),
                "--plan" => arguments.plan = Some(value()?),
                "--trace" => arguments.full = value()? == "full",
                "--meta" => arguments.meta = true,
                "--regressions" => arguments.regressions = true,
                "--exhaustive" => arguments.exhaustive = true,
                "--planted" => arguments.planted = true,
                "--bug" => arguments.bug = Some(value()?),
                "--layer" => arguments.layer = u8::try_from(number(value()?)?).unwrap_or(0),
                _ => return Err(format!("there is no {word}")),
            }
        }
        Ok(arguments)
    }
}

/// Does what the words say.
#[must_use]
pub fn main(words: Vec<String>) -> ExitCode {
    let done = Arguments::read(words).and_then(|arguments| {
        if let Some(path) = &arguments.plan {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            let plan = text.parse().map_err(|error| format!("{path}: {error}"))?;
            let again = format!("cargo xtask sim --plan {path}");
            let named = |name: &String| Bug::ALL.iter().copied().find(|bug| bug.name() == name);
            let _planted = plant(arguments.bug.as_ref().and_then(named));
            return one(&plan, arguments.layer, arguments.full, &again);
        }
        if arguments.regressions {
            return regressions();
        }
        if arguments.planted {
            return exhaustive::command::planted(arguments.bug.as_deref(), &say);
        }
        if arguments.exhaustive {
            let seconds = arguments.seconds.unwrap_or(EXHAUSTIVE_SECONDS);
            return exhaustive::command::enumerate(
                Duration::from_secs(seconds).as_secs_f64(),
                &say,
            );
        }
        match arguments.seed {
            Some(seed) => {
                let again = format!("cargo xtask sim --seed {seed}");
                one(&scenario::plan(seed), arguments.layer, arguments.full, &again)
            }
            None => many(&arguments),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _told = writeln!(std::io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // Nobody to tell is no reason to fail.
    let _told = writeln!(std::io::stdout(), "{text}");
}

/// The plans that once violated something.
///
/// # Errors
///
/// One of them is no plan.
pub fn kept_plans() -> Result<Vec<(String, Plan)>, String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    let told = |error: std::io::Error| format!("{folder}: {error}");
    let mut plans = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.extension().is_some_and(|extension| extension == "plan") {
            let text = std::fs::read_to_string(&path).map_err(told)?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let plan = text.parse().map_err(|error| format!("{name}: {error}"))?;
            plans.push((name, plan));
        }
    }
    plans.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(plans)
}

/// Runs the plans that once violated something, in every layer.
fn regressions() -> Result<(), String> {
    let plans = kept_plans()?;
    for (name, plan) in &plans {
        for layer in [1, 2, 3] {
            if run(layer, plan, Keep::Counts).violation.is_some() {
                return one(
                    plan,
                    layer,
                    false,
                    &format!("cargo xtask sim --plan tests/regressions/{name}.plan"),
                );
            }
        }
    }
    say(&format!("{} plans that once violated something do not", plans.len()));
    Ok(())
}

/// Runs one plan with all its events.
fn one(plan: &Plan, layer: u8, full: bool, again: &str) -> Result<(), String> {
    let outcome = run(layer, plan, Keep::Events);
    if full {
        say(&plan.to_string());
        say(&report::events(&outcome, None));
        say(&report::difference(&outcome));
    }
    match outcome.violation {
        None => {
            say(&format!(
                "seed {}: nothing is violated in {} events, {} calls; digest {:016x}",
                plan.seed, outcome.events, outcome.calls, outcome.digest
            ));
            Ok(())
        }
        Some(_) => {
            let begun = Instant::now();
            let again_and_again = |plan: &Plan| run(layer, plan, Keep::Counts);
            let small = shrink::shrink(plan, &again_and_again, SHRINKING);
            let took = begun.elapsed().as_secs_f64();
            let outcome = run(layer, &small, Keep::Events);
            let text = report::violation(&outcome, &small, commit(), again);
            Err(format!("{text}(shrunk in {took:.1} s; keep the plan in tests/regressions)"))
        }
    }
}

/// Names the commit that this was built from, as whoever built it says.
fn commit() -> &'static str {
    option_env!("WINDLASS_COMMIT").unwrap_or("(unknown)")
}

/// What came of many seeds.
#[derive(Debug, Default)]
struct Total {
    runs: u64,
    calls: u64,
    events: u64,
    sometimes: Sometimes,
    /// The first seed that violated something.
    failed: Option<u64>,
    /// The first seed for which what must not matter did, and how.
    mattered: Option<(u64, String)>,
}

/// Runs many seeds, on all processors.
fn many(arguments: &Arguments) -> Result<(), String> {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Total::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(arguments, begun, &next, &total));
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Total { runs, calls, events, sometimes, failed, mattered } = total;
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = runs as f64 / seconds.max(0.001);
    say(&format!(
        "layer {}: {runs} seeds in {seconds:.1} s, {rate:.0} seeds/s on {threads} threads; \
         {calls} calls, {events} events",
        arguments.layer
    ));
    for (name, count) in sometimes.all() {
        say(&format!("  {count:>9} {name}"));
    }
    if let Some(seed) = failed {
        let again = format!("cargo xtask sim --seed {seed}");
        return one(&scenario::plan(seed), arguments.layer, false, &again);
    }
    if let Some((_, how)) = mattered {
        return Err(how);
    }
    let missing = sometimes.missing();
    if runs >= 2_000 && !missing.is_empty() {
        return Err(format!("never happened: {}", missing.join("; ")));
    }
    Ok(())
}

/// Runs seeds until there are enough, or one violates something.
fn work(arguments: &Arguments, begun: Instant, next: &AtomicU64, total: &Mutex<Total>) {
    let terminal = std::io::stderr().is_terminal();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let over = match arguments.seconds {
            Some(seconds) => begun.elapsed() >= Duration::from_secs(seconds),
            None => number >= arguments.runs,
        };
        if over || number >= NO_MORE {
            return;
        }
        let seed = arguments.from.saturating_add(number);
        let plan = scenario::plan(seed);
        let outcome = run(arguments.layer, &plan, Keep::Counts);
        let checked = match arguments.meta {
            true => meta::check(&plan, &|plan| run(arguments.layer, plan, Keep::Counts)),
            false => Ok(()),
        };
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        total.runs += 1;
        total.calls += outcome.calls;
        total.events += outcome.events;
        total.sometimes.add(&outcome.sometimes);
        let earlier = |other: u64| other < seed;
        if outcome.violation.is_some() && !total.failed.is_some_and(earlier) {
            total.failed = Some(seed);
        }
        if let Err(how) = checked
            && !total.mattered.as_ref().is_some_and(|(other, _)| earlier(*other))
        {
            total.mattered = Some((seed, how));
        }
        if total.failed.is_some() || total.mattered.is_some() {
            // Seeds before it that run now are waited for, so that the first one is told.
            next.store(NO_MORE, Ordering::Relaxed);
            return;
        }
        if terminal && total.runs.is_multiple_of(500) {
            let _told = write!(std::io::stderr(), "\r{} seeds", total.runs);
        }
    }
}
