//! `bench`: builds this program again with what it measures, optimised, and hands over.

use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};

use crate::cargo::{cargo, target};
use crate::failure::{Doing, Failure};

/// How the measured code is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// As shipped; the only one whose figures mean anything
    Release,
    /// Quick to build; for checking that nothing is lost at these sizes
    Dev,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Measures a tenth of the sizes, in fewer rounds
    #[arg(long)]
    tenth: bool,
    /// Measures these rows only
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Lists the rows
    #[arg(long)]
    list: bool,
    /// Writes the result into docs/performance.md
    #[arg(long)]
    write: bool,
    /// How the measured code is built
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.write && (arguments.profile == Profile::Dev || arguments.tenth) {
        return Err(Failure::new(
            "only a full measurement of a release build is worth writing down",
        )
        .with_hint("leave out --tenth and --profile"));
    }
    let programs = build(arguments.profile)?;
    let mut command = Command::new(programs.join("xtask"));
    command.arg("measure").arg("--programs").arg(&programs);
    for (given, flag) in [
        (arguments.tenth, "--tenth"),
        (arguments.list, "--list"),
        (arguments.write, "--write"),
        (arguments.profile == Profile::Dev, "--unoptimised"),
    ] {
        if given {
            command.arg(flag);
        }
    }
    for row in &arguments.only {
        command.args(["--only", row]);
    }
    let status = command.status().doing("start the benchmark")?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("the benchmark ended with {status}")))
    }
}

/// Builds this program with what it measures, and the programs that it measures; returns where they are.
fn build(profile: Profile) -> Result<PathBuf, Failure> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--locked", "--features", "xtask/bench"]);
    command.args(["--package", "xtask", "--package", "windlass-cli", "--bins"]);
    let folder = match profile {
        Profile::Release => "release",
        Profile::Dev => "debug",
    };
    if profile == Profile::Release {
        command.arg("--release");
    }
    let status = command.status().doing("start cargo")?;
    if status.success() {
        Ok(target().join(folder))
    } else {
        Err(Failure::new(format!("the benchmark was not built: cargo ended with {status}")))
    }
}
