//! `days`: random days of work on worktrees by hosts that are killed, for longer than the tests take.

use clap::Args;
use std::process::Command;

use crate::cargo::{cargo, target};
use crate::failure::{Doing, Failure};

/// The program that does it.
const PROGRAM: &str = "windlass-worktree-host";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How many operations
    #[arg(long, default_value_t = 10_000)]
    operations: u32,
    /// The seed: the same one gives the same operations, killed at other moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--release", "--package", "windlass-tests"]);
    let built = build.args(["--bin", PROGRAM]).status().doing("start cargo")?;
    if !built.success() {
        return Err(Failure::new(format!("it was not built: cargo ended with {built}")));
    }
    let mut days = Command::new(target().join("release").join(PROGRAM));
    days.args(["days", &arguments.operations.to_string(), &arguments.seed.to_string()]);
    let status = days.status().doing("start the days")?;
    if status.success() {
        Ok(())
    } else {
        let hint = format!("run it again with --seed {}", arguments.seed);
        Err(Failure::new(format!("the days ended with {status}")).with_hint(hint))
    }
}
