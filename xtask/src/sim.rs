//! `sim`: the simulation, for as long as somebody likes.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::cargo::{cargo, root, target};
use crate::failure::{Doing, Failure};

/// The program that does it.
const PROGRAM: &str = "windlass-sim";

/// The profile that it is built with: optimised, with every assertion on.
const PROFILE: &str = "sim";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Runs this seed alone, and shrinks it if something is violated
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many seeds
    #[arg(long, default_value_t = 20_000)]
    runs: u64,
    /// For how many hours instead
    #[arg(long, conflicts_with = "runs")]
    hours: Option<u32>,
    /// Runs this plan
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// How much of a single run is shown
    #[arg(long, value_enum, default_value = "short")]
    trace: Trace,
    /// Also runs each seed twice, without what goes wrong, and in another order
    #[arg(long)]
    meta: bool,
    /// 1: the machines alone; 2: the engine on a seeded executor; 3: the engine on tokio with its clock paused
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=3))]
    layer: u8,
    /// Every intervention at every port call of the small scenarios, alone and in pairs
    #[arg(long)]
    exhaustive: bool,
    /// Runs the plans that once violated something
    #[arg(long)]
    regressions: bool,
    /// Looks for every planted bug, and says how fast each is found
    #[arg(long)]
    planted: bool,
    /// Looks for this planted bug alone, or plants it while a plan is run
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
}

/// How much of a single run is shown.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Trace {
    /// What violates and the last events.
    Short,
    /// Every event.
    Full,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--profile", PROFILE]);
    build.args(["--package", "windlass-tests", "--bin", PROGRAM]);
    build.env("WINDLASS_COMMIT", commit());
    let built = build.status().doing("start cargo")?;
    if !built.success() {
        return Err(Failure::new(format!("it was not built: cargo ended with {built}")));
    }
    let mut program = Command::new(target().join(PROFILE).join(PROGRAM));
    program.args(words(arguments));
    let status = program.status().doing("start the simulation")?;
    if status.success() {
        Ok(())
    } else {
        let hint = "the plan above shows it again: keep it as tests/regressions/NAME.plan";
        Err(Failure::new(format!("the simulation ended with {status}")).with_hint(hint))
    }
}

fn words(arguments: &Arguments) -> Vec<String> {
    let mut words = vec!["--layer".to_owned(), arguments.layer.to_string()];
    let mut add = |word: &str, value: String| words.extend([word.to_owned(), value]);
    add("--from", arguments.from.to_string());
    add("--runs", arguments.runs.to_string());
    if let Some(seed) = arguments.seed {
        add("--seed", seed.to_string());
    }
    if let Some(hours) = arguments.hours {
        add("--seconds", (u64::from(hours) * 3_600).to_string());
    }
    if let Some(plan) = &arguments.plan {
        add("--plan", plan.display().to_string());
    }
    if let Some(bug) = &arguments.bug {
        add("--bug", bug.clone());
    }
    if matches!(arguments.trace, Trace::Full) {
        add("--trace", "full".to_owned());
    }
    let switches = [
        ("--meta", arguments.meta),
        ("--exhaustive", arguments.exhaustive),
        ("--planted", arguments.planted),
        ("--regressions", arguments.regressions),
    ];
    words.extend(switches.into_iter().filter(|(_, on)| *on).map(|(word, _)| word.to_owned()));
    words
}

/// Names the commit that is checked out; seeds hold for one commit.
fn commit() -> String {
    let mut git = Command::new("git");
    git.arg("-C").arg(root()).args(["describe", "--always", "--dirty"]);
    let told = git.output().ok().filter(|output| output.status.success());
    let told = told.and_then(|output| String::from_utf8(output.stdout).ok());
    told.map_or_else(|| "(unknown)".to_owned(), |text| text.trim().to_owned())
}
