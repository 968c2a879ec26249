//! `kill -9`: whatever was acknowledged is there, and nothing is there by half.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use windlass_core::process_store::{ChangeNumber, ProcessStore as _};

use crate::{acquire, create, key, open, record, room, run};

/// Set for the process that is to be killed: the path of the store.
const VICTIM: &str = "WINDLASS_STORE_OF_A_VICTIM";
const CYCLES: u64 = 12;
const TASKS: u64 = 8;

#[test]
fn what_was_acknowledged_before_a_kill_is_there() {
    if let Some(path) = std::env::var_os(VICTIM) {
        run(commit_until_killed(Path::new(&path)));
    }
    let (_directory, path) = room();
    let mut acknowledged = BTreeSet::new();
    for cycle in 0..CYCLES {
        let mut victim = start(&path);
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
        run(verify(&path, &acknowledged));
    }
}

/// Runs this test in another process, as the victim.
fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "kill::what_was_acknowledged_before_a_kill_is_there", "--nocapture"])
        .env(VICTIM, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a victim")
}

/// Commits pairs of records in several tasks and says which were acknowledged.
async fn commit_until_killed(path: &Path) {
    let store = open(path).await.expect("a store");
    let lease = acquire(&store).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                for count in 0.. {
                    let n = 2 * ((lease.epoch.0 << 32) + count * TASKS + task);
                    let pair = [create(record(n)), create(record(n + 1))].concat();
                    store.commit(pair, lease).await.expect("a commit");
                    // One write for the whole line: that is what makes it all or nothing.
                    std::io::stdout()
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

async fn verify(path: &Path, acknowledged: &BTreeSet<u64>) {
    let store = open(path).await.expect("a store");
    for &n in acknowledged {
        for n in [n, n + 1] {
            let stored = store.get(key(n)).await.expect("a read").expect("an acknowledged record");
            assert_eq!(stored.record, record(n));
        }
    }
    let page = store.changes(ChangeNumber(0), u32::MAX).await.expect("changes");
    assert_eq!(page.changes.len() as u64, 2 * page.last.0, "half a batch is there");
    let report = store.check().await.expect("a report");
    assert_eq!((report.records, report.problems.len()), (2 * page.last.0, 0), "{report:?}");
    store.close().await;
}
