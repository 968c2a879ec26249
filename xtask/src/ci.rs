//! `ci`: the steps that must all pass, in the order in which they are quickest to say no.

use std::time::{Duration, Instant};

use clap::Args;

use crate::failure::Failure;

mod alone;
mod output;
mod steps;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Runs these steps only
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Lists the steps
    #[arg(long)]
    list: bool,
}

/// One thing that is checked.
struct Step {
    name: &'static str,
    about: &'static str,
    /// What to do when it fails.
    hint: &'static str,
    run: fn() -> Result<Done, Failure>,
}

/// What a step that did not fail has to say.
#[derive(Debug, Default)]
struct Done {
    /// Parts that could not run here, each with its reason.
    not_run: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.list {
        for step in steps::ALL {
            println!("{:<8} {}", step.name, step.about);
        }
        return Ok(());
    }
    if let Some(unknown) =
        arguments.only.iter().find(|name| !steps::ALL.iter().any(|step| step.name == **name))
    {
        return Err(Failure::new(format!("there is no step {unknown}"))
            .with_hint("`cargo xtask ci --list` names them"));
    }
    let chosen = |step: &&Step| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == step.name)
    };
    let mut finished: Vec<(&Step, Duration, Done)> = Vec::new();
    let mut failed = None;
    for step in steps::ALL.iter().filter(chosen) {
        println!("\n==> {}: {}", step.name, step.about);
        let begun = Instant::now();
        match (step.run)() {
            Ok(done) => {
                println!("<== {}: passed in {}", step.name, seconds(begun.elapsed()));
                finished.push((step, begun.elapsed(), done));
            }
            Err(failure) => {
                failed = Some((step, begun.elapsed(), failure));
                break;
            }
        }
    }
    summarise(&finished, failed.as_ref().map(|(step, took, _)| (*step, *took)));
    match failed {
        None => Ok(()),
        Some((step, _, failure)) => {
            let hint = failure.hint().unwrap_or(step.hint);
            Err(Failure::new(format!("{}: {failure}", step.name))
                .with_hint(format!("{hint}; then `cargo xtask ci --only {}`", step.name)))
        }
    }
}

fn summarise(finished: &[(&Step, Duration, Done)], failed: Option<(&Step, Duration)>) {
    println!("\nsummary");
    for (step, took, _) in finished {
        println!("  {:<8} passed {:>9}", step.name, seconds(*took));
    }
    if let Some((step, took)) = failed {
        println!("  {:<8} FAILED {:>9}", step.name, seconds(took));
        let after = steps::ALL.iter().skip_while(|other| other.name != step.name).skip(1);
        for step in after {
            println!("  {:<8} not run: an earlier step failed", step.name);
        }
    }
    for (step, _, done) in finished {
        for reason in &done.not_run {
            println!("  {:<8} not run: {reason}", step.name);
        }
    }
    let total: Duration =
        finished.iter().map(|(_, took, _)| *took).chain(failed.map(|(_, took)| took)).sum();
    println!("  {:<8}        {:>9}", "total", seconds(total));
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
