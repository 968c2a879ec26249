//! Runs a command in a new worktree of the repository given as argument; without one, in a plain directory.

use std::{env, error::Error, io::Write as _, os::unix::ffi::OsStrExt as _, time::Duration};

use windlass::core::{id::NodeId, locator::Locator, log_store, record::CommitPolicy};
use windlass::request::{Caller, LaunchRequest, RunRequest, WorkspaceRequest};
use windlass::{Backends, Builder, Config};
use windlass_local::{FileLogs, GitOptions, GitWorktrees, LocalContainers, LocalOptions};
use windlass_local::{Provenance, ShimChoice};
use windlass_sqlite::{SqliteOptions, SqliteStore};

fn main() -> Result<(), Box<dyn Error>> {
    windlass_shim::main_if_shim(); // First of all: this program is its own shim.
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let data = tempfile::tempdir()?; // A program keeps its own: what still runs is found again by it.
    let runs_dir = data.path().join("runs");
    let git = GitOptions::new("example", data.path().join("worktrees"), env::vars_os());
    let backends = Backends {
        logs: FileLogs::open(&runs_dir)?,
        containers: LocalContainers::open(LocalOptions {
            runs_dir,
            shim: ShimChoice::Hook,
            disk_floor_bytes: 1 << 30,
            orphan_grace: Duration::from_secs(5),
            provenance: Provenance::InPlace,
        })?,
        store: SqliteStore::open(data.path().join("db"), SqliteOptions::default()).await?,
        worktrees: GitWorktrees::open(git).await?,
    };
    let node = NodeId(uuid::Uuid::from_u128(1)); // Names this machine in the records, the same at each start.
    let engine = Builder::new(backends, Config::standard(), node).start_on_tokio().await?;

    let locator = |path: &std::ffi::OsStr| Locator::new(path.as_bytes());
    let workspace = match env::args_os().nth(1) {
        Some(repo) => WorkspaceRequest::Worktree { repo: locator(&repo), base: None, branch: None },
        None => WorkspaceRequest::Directory { path: locator(data.path().as_os_str()) },
    };
    let launch = LaunchRequest::command(["/bin/sh", "-c", "echo hello > greeting; cat greeting"]);
    let request = RunRequest { workspace, title: None, commit: CommitPolicy::Commit, launch };
    let (me, id) = (Caller::default(), engine.run(Caller::default(), request).await?.execution);

    let ended = engine.settled(&me, id).await?;
    let from = log_store::From::After(log_store::Seq(0));
    let options = log_store::ReadOptions { from, max_items: 1_000, max_bytes: 1 << 20 };
    for item in engine.log_page(&me, id, options).await?.items.iter() {
        if let log_store::LogItem::Entry { bytes, .. } = item {
            std::io::stdout().write_all(bytes)?;
        }
    }
    println!("{:?}, committed: {:?}", ended.outcome, ended.committed);
    Ok(())
}
