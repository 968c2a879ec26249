//! The measuring itself. Everything is measured in turn with what it is compared to, in one process, so that a busy
//! moment of the machine hits both.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cargo::target;
use crate::failure::{Doing, Failure};

mod fork;
mod launch;
mod measure;
mod output;
mod report;
mod store;
mod sync;

use report::Report;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    tenth: bool,
    #[arg(long)]
    only: Vec<String>,
    #[arg(long)]
    list: bool,
    #[arg(long)]
    write: bool,
    #[arg(long)]
    unoptimised: bool,
}

/// What a measurement starts of this program.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Writes this many bytes in lines to standard output
    Generate { bytes: u64 },
    /// Opens a store, commits some records one by one, says so and holds it open until it is killed
    Commit { path: PathBuf, records: u64 },
}

/// One thing that is measured.
struct Row {
    name: &'static str,
    about: &'static str,
    measure: fn(&Bench) -> Result<Report, Failure>,
}

const ROWS: &[Row] = &[
    Row {
        name: "launch",
        about: "from a request to its durable outcome",
        measure: launch::measure,
    },
    Row {
        name: "fork",
        about: "what a fork costs a host of 1 GiB",
        measure: fork::measure,
    },
    Row {
        name: "sync",
        about: "small durable writes",
        measure: sync::measure,
    },
    Row {
        name: "store",
        about: "records: many writers, many records, a killed writer",
        measure: store::measure,
    },
    Row {
        name: "output",
        about: "one command that writes flat out",
        measure: output::measure,
    },
];

/// How much is measured, and where.
#[derive(Debug)]
struct Bench {
    tenth: bool,
    /// On the disk of the target directory: /tmp may be memory, where a sync costs nothing.
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(tenth: bool) -> Result<Self, Failure> {
        let parent = target().join("bench");
        fs::create_dir_all(&parent).doing(format_args!("make {}", parent.display()))?;
        let dir = tempfile::tempdir_in(&parent)
            .doing(format_args!("make a directory in {}", parent.display()))?;
        let runtime = tokio::runtime::Runtime::new().doing("make a runtime")?;
        Ok(Self {
            tenth,
            dir,
            runtime,
        })
    }

    /// Returns `full`, or a tenth of it, at least 1.
    fn size(&self, full: u64) -> u64 {
        if self.tenth { (full / 10).max(1) } else { full }
    }

    /// How often everything is measured in turn.
    fn rounds(&self) -> u32 {
        if self.tenth { 1 } else { 5 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.list {
        for row in ROWS {
            println!("{:<8} {}", row.name, row.about);
        }
        return Ok(());
    }
    if let Some(unknown) = arguments
        .only
        .iter()
        .find(|name| !ROWS.iter().any(|row| row.name == **name))
    {
        return Err(Failure::new(format!("there is no row {unknown}"))
            .with_hint("`cargo xtask bench --list` names them"));
    }
    if arguments.unoptimised {
        println!("An unoptimised build: what is checked counts, the figures do not.");
    }
    let bench = Bench::new(arguments.tenth)?;
    let mut reports = Vec::new();
    for row in ROWS {
        if arguments.only.is_empty() || arguments.only.iter().any(|name| name == row.name) {
            let report = (row.measure)(&bench)
                .map_err(|failure| Failure::new(format!("{}: {failure}", row.name)))?;
            println!("\n{}: {}\n{report}", row.name, row.about);
            reports.push((row.name, row.about, report));
        }
    }
    let missed: usize = reports.iter().map(|(_, _, report)| report.missed()).sum();
    if missed > 0 && !arguments.unoptimised {
        println!(
            "\n{missed} not within what is wanted; run again on a quiet machine before believing it"
        );
    }
    if arguments.write {
        report::write(&reports)
    } else {
        Ok(())
    }
}

pub(crate) fn play(part: &Part) -> Result<(), Failure> {
    match part {
        Part::Generate { bytes } => output::generate(*bytes),
        Part::Commit { path, records } => store::commit_and_wait(path, *records),
    }
}
