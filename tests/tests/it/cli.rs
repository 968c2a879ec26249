//! The command line from outside: programs, exit codes, output, files.

use std::path::Path;
use std::sync::LazyLock;

use rustix::process::Signal;
use serde_json::Value;
use windlass_tests::process::{PATIENCE, ended, open, signal};
use windlass_tests::repo::TempRepo;
use windlass_tests::sandbox::{Ran, Sandbox};
use windlass_tests::schema::Schemas;

mod attach;
mod attempts;
mod chains;
mod day;
mod dev;
mod events;
mod executions;
mod full_disk;
mod hooks;
mod host;
mod keep;
mod live_diff;
mod logs;
mod merge;
mod moved;
mod presence;
mod project;
mod refusals;
mod retry;
mod run;
mod send;
mod stores;
mod task;
mod terminal;
mod words;

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_windlass-under-test"))
}

/// A sandbox and a repository with one commit.
fn with_repo() -> (Sandbox, TempRepo) {
    (sandbox(), TempRepo::with_commit())
}

/// Runs a shell script as an attempt in a worktree of `repo`, in the foreground.
fn run_script(sandbox: &Sandbox, repo: &TempRepo, flags: &[&str], script: &str) -> Ran {
    let arguments = [&["run"], flags, &["--", "sh", "-c", script]].concat();
    sandbox.run_in(repo.path(), arguments)
}

/// Kills the host as nobody would, and waits until it is gone.
fn kill_host(sandbox: &Sandbox) {
    let status = sandbox.run(["host", "status", "--json"]).expect(0).json();
    schemas().assert("host-status.json", &status);
    let host = open(u32::try_from(status["pid"].as_u64().unwrap()).unwrap()).unwrap();
    signal(&host, Signal::KILL).unwrap();
    assert!(ended(&host, PATIENCE).unwrap());
}

/// Starts a shell script as an attempt in the background; returns the id that was printed.
fn run_detached(sandbox: &Sandbox, repo: &TempRepo, flags: &[&str], script: &str) -> String {
    let flags = [&["-d"], flags].concat();
    run_script(sandbox, repo, &flags, script).expect(0).text().trim().to_owned()
}

/// Starts something that runs for long; returns when it runs.
fn run_until_ready(sandbox: &Sandbox, repo: &TempRepo) -> String {
    let id = run_detached(sandbox, repo, &[], "echo ready; exec sleep 1000");
    let mut follower = sandbox.start(["logs", "-f", &id]);
    assert_eq!(follower.line().as_deref(), Some("ready"));
    id
}

/// Reads everything about an attempt or execution.
fn show(sandbox: &Sandbox, id: &str) -> Value {
    sandbox.run(["show", id, "--json"]).expect(0).json()
}

/// The schemas that the documents promise.
fn schemas() -> &'static Schemas {
    static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
        Schemas::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema"))
    });
    &SCHEMAS
}
