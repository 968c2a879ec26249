//! `kill -9` of who writes to a store, again and again: what was acknowledged is there, and nothing is there by half.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use windlass::core::process_store::ChangeNumber;

use super::Bench;
use super::databases::{Database, Store, key, record};
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit, Want};
use crate::failure::{Doing, Failure};

/// How many commit at once.
const TASKS: u64 = 8;

/// After how many acknowledgements it is killed: each number in turn.
const ACKNOWLEDGED: u64 = 13;

/// Cycles of one turn.
const CYCLES: u64 = 100;

/// One store that survives whoever writes to it.
struct Victims<'a> {
    bench: &'a Bench,
    database: Database,
    path: std::path::PathBuf,
    /// Everything up to this change was verified.
    verified: ChangeNumber,
    /// The next number that no record has.
    next: u64,
}

impl<'a> Victims<'a> {
    fn new(bench: &'a Bench, database: Database) -> Self {
        let path = bench.path(&format!("kills.{}", database.as_str()));
        Self { bench, database, path, verified: ChangeNumber(0), next: 0 }
    }

    fn turn(&mut self) -> Result<Sample, Failure> {
        let cycles = self.bench.size(CYCLES);
        let begun = Instant::now();
        for cycle in 0..cycles {
            let acknowledged = self.kill_one(1 + cycle % ACKNOWLEDGED)?;
            self.verify(&acknowledged)?;
        }
        Ok(Sample::rate(cycles, begun.elapsed()))
    }

    /// Lets one commit until so many pairs are acknowledged, and kills it; returns all that were.
    fn kill_one(&mut self, count: u64) -> Result<Vec<u64>, Failure> {
        let mut victim = start(self.database, &self.path, self.next)?;
        let pipe = victim.stdout.take().ok_or_else(|| Failure::new("the victim has no pipe"))?;
        let mut acknowledged = Vec::new();
        for line in BufReader::new(pipe).lines() {
            let line = line.doing("hear of the victim")?;
            let number = line.parse::<u64>();
            acknowledged.push(number.map_err(|error| Failure::new(format!("{line:?}: {error}")))?);
            if acknowledged.len() as u64 == count {
                victim.kill().doing("kill the victim")?;
            }
        }
        let status = victim.wait().doing("wait for the victim")?;
        if (acknowledged.len() as u64) < count {
            return Err(Failure::new(format!("the victim ended with {status}")));
        }
        Ok(acknowledged)
    }

    /// Opens the store again, looks for what was acknowledged, and whether anything is there by half.
    fn verify(&mut self, acknowledged: &[u64]) -> Result<(), Failure> {
        let (database, path, after) = (self.database, self.path.clone(), self.verified);
        let page = self.bench.runtime.block_on(async {
            let store = Store::look(database, &path).await?;
            for number in acknowledged.iter().flat_map(|number| [*number, number + 1]) {
                let stored = store.port.get(key(number)).await.doing("read a record")?;
                if stored.is_none_or(|stored| stored.record != record(number)) {
                    return Err(Failure::new(format!("record {number} was lost")));
                }
            }
            let page = store.port.changes(after, u32::MAX).await.doing("read the changes")?;
            store.close().await;
            Ok(page)
        })?;
        let batches = page.last.0 - after.0;
        if page.changes.len() as u64 != 2 * batches {
            let found = page.changes.len();
            return Err(Failure::new(format!("{batches} pairs were committed, {found} records")));
        }
        // Where the next one begins: each task has its own numbers, so that the highest is found among all.
        let highest = page.changes.iter().map(|change| change.key.id.as_u128()).max();
        if let Some(highest) = highest {
            self.next = self.next.max(u64::try_from(highest).unwrap_or(u64::MAX) + 1);
        }
        self.verified = page.last;
        Ok(())
    }
}

fn start(database: Database, path: &Path, first: u64) -> Result<Child, Failure> {
    let program = env::current_exe().doing("find this program")?;
    Command::new(program)
        .args(["part", "commit-until-killed", database.as_str()])
        .arg(path)
        .arg(first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .doing("start a victim")
}

/// Commits pairs of records in several tasks and says which were acknowledged, until it is killed.
pub(super) fn commit_until_killed(
    database: Database,
    path: &Path,
    first: u64,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.doing("make a runtime")?.block_on(async {
        let store = Store::open(database, path).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let store = store.clone();
            tasks.spawn(async move {
                for count in 0.. {
                    let number = first + 2 * (count * TASKS + task);
                    store.create([number, number + 1].into_iter()).await?;
                    // One write for the whole line: that is what makes it all or nothing.
                    let line = format!("{number}\n");
                    std::io::stdout().write_all(line.as_bytes()).doing("say so")?;
                }
                Ok::<_, Failure>(())
            });
        }
        match tasks.join_next().await {
            Some(Ok(ended)) => ended,
            ended => Err(Failure::new(format!("a task died: {ended:?}"))),
        }
    })
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let [mut sqlite, mut redb] = Database::ALL.map(|database| Victims::new(bench, database));
    let taken = interleave(
        bench.rounds(),
        vec![
            Contender::new("sqlite, cycles", || sqlite.turn()),
            Contender::new("redb, cycles", || redb.turn()),
        ],
    )?;
    let mut report = Report::default();
    for one in &taken {
        report.add(one, Unit::Times, None, &[Want::RateAtLeast(40.0)]);
    }
    Ok(report)
}
