//! Runs a command in a new worktree of the repository given as argument, and lets `windlass --data-dir DIR ps` see it.

use std::{env, error::Error, io::Write as _, os::unix::ffi::OsStrExt as _, path::Path, sync::Arc};

use windlass::api::lock::{HostLock, LOCK_FILE};
use windlass::core::{locator::Locator, log_store};
use windlass::request::{Caller, LaunchRequest, RunRequest, WorkspaceRequest};
use windlass::{Backends, Builder, Config, api};
use windlass_local::{DataDirectory, ShimChoice};
use windlass_sqlite::{SqliteOptions, SqliteStore};

fn main() -> Result<(), Box<dyn Error>> {
    windlass_shim::main_if_shim(); // First of all: this program is its own shim.
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args_os().collect();
    let [_, repo, dir] = arguments.as_slice() else {
        return Err("REPOSITORY DATA_DIRECTORY".into());
    };
    std::fs::create_dir_all(dir)?;
    let lock = HostLock::try_take(&Path::new(dir).join(LOCK_FILE))?;
    let _lock = lock.ok_or("another host has this directory")?;
    let data =
        DataDirectory::open(dir, ShimChoice::Hook, env::vars_os().collect::<Vec<_>>()).await?;
    let store =
        SqliteStore::open(data.path().join("windlass.db"), SqliteOptions::default()).await?;
    let (containers, logs, worktrees) =
        (Arc::clone(&data.containers), Arc::clone(&data.logs), Arc::clone(&data.worktrees));
    let backends = Backends { containers, store, logs, worktrees };
    let engine = Builder::new(backends, Config::standard(), data.node).start_on_tokio().await?;
    let (served, path) = (engine.clone(), data.path().to_owned());
    tokio::spawn(
        async move { api::server::serve_embedded(served, &path, std::process::id()).await },
    );

    let repo = Locator::new(repo.as_bytes());
    let workspace = WorkspaceRequest::Worktree { repo, base: None, branch: None, copy: Vec::new() };
    let launch = LaunchRequest::command(["/bin/sh", "-c", "echo hello > greeting; cat greeting"]);
    let request = RunRequest::new(workspace, launch);
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
    Ok(()) // Dropping the handle detaches: what still runs goes on, and the next start finds it.
}
