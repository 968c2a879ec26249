//! What `cargo xtask sim --exhaustive` and `--planted` do.

use windlass_core::planted::Bug;

use super::super::report;
use super::super::stage::Keep;
use super::planted::{self, Found};
use super::{Depth, Enumeration, FAMILY, Report, SCRIPTS, run};

/// How many commands pairs are run with.
const SCRIPTS_OF_PAIRS: usize = 2;

/// How long a planted bug may take at most to be found, in seconds.
const MOST_SECONDS_PER_BUG: f64 = 30.0;

/// How many of the last events are shown.
const SHOWN: usize = 40;

/// Goes through the family: with all commands and one thing that goes wrong, then with few commands and two things.
///
/// # Errors
///
/// Something does not hold: what, and after which plan.
pub fn enumerate(seconds: f64, say: &dyn Fn(&str)) -> Result<(), String> {
    let singles = enumerate_to(Depth::Singles, SCRIPTS, seconds);
    tell("one thing goes wrong", &singles, say)?;
    let left = seconds - singles.seconds;
    let pairs = enumerate_to(Depth::Pairs, &SCRIPTS[..SCRIPTS_OF_PAIRS], left);
    tell("two things go wrong", &pairs, say)
}

fn enumerate_to(depth: Depth, scripts: &[&[&str]], most_seconds: f64) -> Report {
    Enumeration { family: FAMILY, scripts, depth, stops: true, most_seconds, planted: None }.run()
}

fn tell(what: &str, report: &Report, say: &dyn Fn(&str)) -> Result<(), String> {
    let Report { runs, calls, seconds, finished, .. } = report;
    let rate = report.runs_per_second();
    let rest = if *finished { "" } else { ", not to the end" };
    say(&format!(
        "{what}: {runs} runs over {calls} port calls in {seconds:.1} s, {rate:.0} runs/s{rest}"
    ));
    match report.found.first() {
        None => Ok(()),
        Some((plan, violation)) => {
            let outcome = run(plan, Keep::Events);
            let shown = report::events(&outcome, Some(SHOWN));
            Err(format!("{violation}\n\n{plan}\n{shown}"))
        }
    }
}

/// Plants every bug in turn, or one by its name.
///
/// # Errors
///
/// One was not found, or there is none of that name.
pub fn planted(name: Option<&str>, say: &dyn Fn(&str)) -> Result<(), String> {
    let wanted = |bug: &Bug| name.is_none_or(|name| bug.name() == name);
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(wanted).collect();
    if bugs.is_empty() {
        return Err(format!("there is no bug {:?}", name.unwrap_or_default()));
    }
    let all = planted::find_all(&bugs, MOST_SECONDS_PER_BUG, |found| say(&line(found)));
    let seconds: f64 = all.iter().map(|found| found.seconds).sum();
    let missing: Vec<_> =
        all.iter().filter(|found| found.by.is_none()).map(|found| found.bug.name()).collect();
    say(&format!("{} of {} planted bugs in {seconds:.1} s", all.len() - missing.len(), all.len()));
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("planted and not found: {}", missing.join(", ")))
    }
}

fn line(found: &Found) -> String {
    let by = found.by.as_ref().map_or("not found", |(_, violation)| violation.oracle);
    let Found { bug, runs, seconds, .. } = found;
    format!("{:<28} {seconds:>6.2} s {runs:>7} runs  {by}", bug.name())
}
