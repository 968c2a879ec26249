//! `images`: what power cuts leave of stores and executions, for longer than the tests take.

use std::process::Command;

use clap::{Args, ValueEnum};

use crate::cargo::{cargo, target};
use crate::failure::{Doing as _, Failure};

/// The program that does it.
const PROGRAM: &str = "windlass-images";
/// How many images there are when nobody says anything.
const RUNS: u64 = 10_000;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How many images, shared by the parts [default: 10000, or as many as there is time for]
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Where chance begins
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// One part only
    #[arg(long)]
    only: Option<Part>,
    /// So many hours at the most
    #[arg(long, value_name = "H")]
    hours: Option<f64>,
    /// How many threads; one for each processor if it is not said
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// Records and logs in SQLite
    Sqlite,
    /// Records and logs in redb
    Redb,
    /// The journal of an execution, with its log segments
    Journal,
    /// The same: one shim writes both
    Segments,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Redb => "redb",
            Self::Journal | Self::Segments => "shim",
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--release", "--package", "windlass-tests"]);
    let built = build.args(["--bin", PROGRAM]).status().doing("start cargo")?;
    if !built.success() {
        return Err(Failure::new(format!("it was not built: cargo ended with {built}")));
    }
    let mut images = Command::new(target().join("release").join(PROGRAM));
    let runs = arguments.runs.unwrap_or(if arguments.hours.is_some() { u64::MAX } else { RUNS });
    images.args(["--images", &runs.to_string()]);
    images.args(["--seed", &arguments.seed.to_string()]);
    if let Some(part) = arguments.only {
        images.args(["--only", part.word()]);
    }
    if let Some(hours) = arguments.hours {
        images.args(["--seconds", &format!("{:.0}", hours * 3_600.0)]);
    }
    if let Some(threads) = arguments.threads {
        images.args(["--threads", &threads.to_string()]);
    }
    let status = images.status().doing("start the images")?;
    if status.success() {
        return Ok(());
    }
    let hint = "the image is kept where it says; the line above it names the seed, for --seed";
    Err(Failure::new(format!("the images ended with {status}")).with_hint(hint))
}
