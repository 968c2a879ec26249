//! `kill -9` of whoever writes: whatever was acknowledged is there, and nothing is there by half.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use windlass_core::process_store::{ChangeNumber, ProcessStore};

use super::{acquire, create, key, record};

/// Set for the processes that a test starts of itself: the directory of the store.
const DIRECTORY: &str = "WINDLASS_KILLED_STORE";
/// Set for the one that is not to write but to look.
const LOOKS: &str = "WINDLASS_KILLED_STORE_LOOKS";
const CYCLES: u64 = 12;
const TASKS: u64 = 8;

/// Kills a process that commits in several tasks, a little later each time, and looks at what it left.
///
/// The processes are this test binary, started again for the test that calls this: `test` is its name with its modules, as
/// `--exact` takes it. `open` opens the store in a directory. What it opened is never closed: that is what a kill does, and
/// each process opens once.
///
/// # Panics
///
/// What was acknowledged is missing, or half of a batch is there.
pub fn what_was_acknowledged_before_a_kill_is_there(
    test: &str,
    open: impl AsyncFn(&Path) -> Arc<dyn ProcessStore>,
) {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let looks = std::env::var_os(LOOKS).is_some();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
        return runtime.block_on(async {
            let store = open(Path::new(&directory)).await;
            if looks { look(&*store).await } else { commit_until_killed(store).await }
        });
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut acknowledged = BTreeSet::new();
    for cycle in 0..CYCLES {
        let mut victim = start(test, directory.path(), None);
        let stdout = BufReader::new(victim.stdout.take().expect("its output"));
        let mut said = 0;
        for line in stdout.lines() {
            let line = line.expect("a line");
            let Some(n) = line.strip_prefix("acknowledged ") else { continue };
            acknowledged.insert(n.parse::<u64>().expect("a number"));
            said += 1;
            if said == 1 + cycle * 7 {
                victim.kill().expect("a kill");
            }
        }
        assert!(said > cycle * 7, "it ended by itself");
        victim.wait().expect("an end");
        let mut looker = start(test, directory.path(), Some(OsStr::new("1")));
        let mut stdin = looker.stdin.take().expect("its input");
        for n in &acknowledged {
            writeln!(stdin, "{n}").expect("somebody who listens");
        }
        drop(stdin);
        let looked = looker.wait_with_output().expect("an end");
        let said = String::from_utf8_lossy(&looked.stdout);
        assert!(looked.status.success(), "after kill {cycle}: {said}");
    }
}

/// Starts the test in another process.
fn start(test: &str, directory: &Path, looks: Option<&OsStr>) -> Child {
    let set = looks.map(|looks| (OsString::from(LOOKS), looks.to_owned()));
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .envs(set)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

/// Commits pairs of records in several tasks and says which were acknowledged.
async fn commit_until_killed(store: Arc<dyn ProcessStore>) {
    let lease = acquire(&*store).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for count in 0.. {
                    let n = 2 * ((lease.epoch.0 << 32) + count * TASKS + task);
                    let pair = vec![create(record(n)), create(record(n + 1))];
                    store.commit(pair, lease).await.expect("a commit");
                    // One write for the whole line: that is what makes it all or nothing.
                    io::stdout()
                        .write_all(format!("acknowledged {n}\n").as_bytes())
                        .expect("a listener");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task without end");
    }
}

/// Looks for what was acknowledged, as standard input says.
async fn look(store: &dyn ProcessStore) {
    let numbers = io::stdin().lines().map(|line| line.expect("a line").parse::<u64>());
    for n in numbers.collect::<Result<Vec<_>, _>>().expect("numbers") {
        for n in [n, n + 1] {
            let stored = store.get(key(n)).await.expect("a read").expect("an acknowledged record");
            assert_eq!(stored.record, record(n));
        }
    }
    let page = store.changes(ChangeNumber(0), u32::MAX).await.expect("changes");
    assert_eq!(page.changes.len() as u64, 2 * page.last.0, "half a batch is there");
    let report = store.check().await.expect("a report");
    assert_eq!((report.records, report.problems.len()), (2 * page.last.0, 0), "{report:?}");
}
