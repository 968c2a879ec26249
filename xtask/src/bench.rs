//! The measuring itself. Everything is measured in turn with what it is compared to, in one process, so that a busy
//! moment of the machine hits both.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cargo::target;
use crate::failure::{Doing, Failure};

mod adopt;
mod container_service;
mod databases;
mod events;
mod exit;
mod fork;
mod host;
mod idle;
mod kills;
mod launch;
mod live_diff;
mod logs;
mod measure;
mod output;
mod report;
mod store;
mod sync;
mod worktree;

use databases::Database;
use host::Data;
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
    /// Where cargo put the programs
    #[arg(long)]
    programs: PathBuf,
}

/// What a measurement starts of this program.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Writes this many bytes in lines to standard output
    Generate { bytes: u64, parents: Option<PathBuf> },
    /// Writes the time into a file and ends
    Stamp {
        path: PathBuf,
        /// Waits so many milliseconds before
        #[arg(default_value_t = 0)]
        after_ms: u64,
    },
    /// Opens a store, commits some records one by one, says so and holds it open until it is killed
    Commit { database: Database, path: PathBuf, records: u64 },
    /// Commits pairs of records from a number on, says which were acknowledged, until it is killed
    CommitUntilKilled { database: Database, path: PathBuf, first: u64 },
    /// Runs the generator under an engine, follows its log, prints seconds and memory
    Keep { dir: PathBuf, shim: PathBuf, bytes: u64, followers: u32 },
    /// Starts executions that run for long, says so and waits to be killed
    StartMany { dir: PathBuf, shim: PathBuf, count: u64 },
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
        name: "exit",
        about: "from the exit of a command to its durable outcome being known",
        measure: exit::measure,
    },
    Row {
        name: "adopt",
        about: "after kill -9 of a host with 500 live executions",
        measure: adopt::measure,
    },
    Row { name: "idle", about: "the daemon while nothing happens", measure: idle::measure },
    Row { name: "fork", about: "what a fork costs a host of 1 GiB", measure: fork::measure },
    Row { name: "sync", about: "small durable writes", measure: sync::measure },
    Row {
        name: "store",
        about: "records: many writers, many records, a killed writer",
        measure: |bench| store::measure(bench, Database::Sqlite),
    },
    Row {
        name: "store-redb",
        about: "the same on redb",
        measure: |bench| store::measure(bench, Database::Redb),
    },
    Row {
        name: "store-kills",
        about: "kill -9 of who writes, the opening after it, and the search for what is lost",
        measure: kills::measure,
    },
    Row { name: "logs", about: "logs in databases", measure: logs::measure },
    Row { name: "events", about: "what changed, told to many", measure: events::measure },
    Row { name: "output", about: "one command that writes flat out", measure: output::measure },
    Row {
        name: "worktree",
        about: "worktrees of many files, against git",
        measure: worktree::measure,
    },
    Row {
        name: "live-diff",
        about: "a diff as it changes, of many files",
        measure: live_diff::measure,
    },
];

/// How much is measured, and where.
#[derive(Debug)]
struct Bench {
    tenth: bool,
    /// On the disk of the target directory: /tmp may be memory, where a sync costs nothing.
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    windlass: PathBuf,
    shim: PathBuf,
    next: AtomicU32,
}

impl Bench {
    fn new(tenth: bool, programs: &Path) -> Result<Self, Failure> {
        let parent = target().join("bench");
        fs::create_dir_all(&parent).doing(format_args!("make {}", parent.display()))?;
        let dir = tempfile::tempdir_in(&parent)
            .doing(format_args!("make a directory in {}", parent.display()))?;
        let runtime = tokio::runtime::Runtime::new().doing("make a runtime")?;
        let (windlass, shim) = (programs.join("windlass"), programs.join("windlass-shim"));
        Ok(Self { tenth, dir, runtime, windlass, shim, next: AtomicU32::new(0) })
    }

    /// Returns `full`, or a tenth of it, at least 1.
    fn size(&self, full: u64) -> u64 {
        if self.tenth { (full / 10).max(1) } else { full }
    }

    /// How often everything is measured in turn.
    fn rounds(&self) -> u32 {
        if self.tenth { 1 } else { 5 }
    }

    /// Returns a data directory that nobody has used.
    fn data(&self, name: &str) -> Result<Data, Failure> {
        let dir = self.fresh(name);
        fs::create_dir(&dir).doing(format_args!("make {}", dir.display()))?;
        Ok(Data { dir, shim: self.shim.clone() })
    }

    /// Names a path that no row has used.
    fn fresh(&self, name: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.path(&format!("{name}-{number}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.list {
        for row in ROWS {
            println!("{:<11} {}", row.name, row.about);
        }
        return Ok(());
    }
    if let Some(unknown) =
        arguments.only.iter().find(|name| !ROWS.iter().any(|row| row.name == **name))
    {
        return Err(Failure::new(format!("there is no row {unknown}"))
            .with_hint("`cargo xtask bench --list` names them"));
    }
    if arguments.unoptimised {
        println!("An unoptimised build: what is checked counts, the figures do not.");
    }
    let bench = Bench::new(arguments.tenth, &arguments.programs)?;
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
    if arguments.write { report::write(&reports) } else { Ok(()) }
}

pub(crate) fn play(part: &Part) -> Result<(), Failure> {
    match part {
        Part::Generate { bytes, parents } => output::generate(*bytes, parents.as_deref()),
        Part::Stamp { path, after_ms } => exit::stamp(path, Duration::from_millis(*after_ms)),
        Part::Keep { dir, shim, bytes, followers } => {
            let data = Data { dir: dir.clone(), shim: shim.clone() };
            output::keep(&data, *bytes, *followers)
        }
        Part::StartMany { dir, shim, count } => {
            adopt::start_many(&Data { dir: dir.clone(), shim: shim.clone() }, *count)
        }
        Part::Commit { database, path, records } => {
            store::commit_and_wait(*database, path, *records)
        }
        Part::CommitUntilKilled { database, path, first } => {
            kills::commit_until_killed(*database, path, *first)
        }
    }
}
