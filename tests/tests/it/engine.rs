//! The library over its real backends, as an embedding program uses it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use windlass::core::admission::Limits;
use windlass::core::container_service::ContainerService;
use windlass::core::id::{ExecutionId, NodeId};
use windlass::core::input::Input;
use windlass::core::locator::Locator;
use windlass::core::log_store::{From, LogItem, ReadOptions, Seq};
use windlass::core::outcome::{CompletedBy, Outcome, StoppedBy};
use windlass::core::record::ExecutionRecord;
use windlass::core::vcs_worktree::DiffDetail;
use windlass::error::RefusalCode;
use windlass::request::{
    Caller, LaunchRequest, RemoveOptions, RunRequest, StopTarget, WhenFull, WorkspaceRequest,
};
use windlass::{Backends, Builder, Config, EngineError, Handle};
use windlass_local::{
    FileLogs, GitOptions, GitWorktrees, LocalContainers, LocalOptions, OpenFiles, Provenance,
    ShimChoice,
};
use windlass_sqlite::{SqliteOptions, SqliteStore};
use windlass_tests::process::sweep;
use windlass_tests::repo::{TempRepo, git_in};

/// A data directory; what ran in it is ended with it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    async fn backends(&self) -> (Backends, Arc<dyn Input>) {
        let runs_dir = self.path().join("runs");
        let options = LocalOptions {
            runs_dir: runs_dir.clone(),
            shim: ShimChoice::Path(env!("CARGO_BIN_EXE_windlass-shim-under-test").into()),
            disk_floor_bytes: 0,
            orphan_grace: Duration::from_millis(500),
            provenance: Provenance::InPlace,
            open_files: OpenFiles::Keep,
        };
        let containers = LocalContainers::open(options).unwrap();
        let git = GitOptions::new("test", self.path().join("worktrees"), std::env::vars_os());
        let backends = Backends {
            containers: Arc::clone(&containers) as Arc<dyn ContainerService>,
            store: SqliteStore::open(&self.path().join("db"), SqliteOptions::default())
                .await
                .unwrap(),
            logs: FileLogs::open(&runs_dir).unwrap(),
            worktrees: GitWorktrees::open(git).await.unwrap(),
        };
        (backends, containers)
    }

    async fn start(&self, config: Config) -> Handle {
        let (backends, input) = self.backends().await;
        let node = NodeId(uuid::Uuid::from_u128(1));
        Builder::new(backends, config, node).input(input).start_on_tokio().await.unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        sweep(self.path()).unwrap();
    }
}

fn script(text: &str) -> LaunchRequest {
    let mut launch = LaunchRequest::command(["sh", "-c", text]);
    launch.env.insert("PATH".into(), std::env::var("PATH").unwrap().into());
    launch
}

fn locator(path: &Path) -> Locator {
    use std::os::unix::ffi::OsStrExt as _;
    Locator::new(path.as_os_str().as_bytes())
}

fn in_directory(path: &Path, launch: LaunchRequest) -> RunRequest {
    let workspace = WorkspaceRequest::Directory { path: locator(path) };
    RunRequest::new(workspace, launch)
}

fn in_worktree(repo: &TempRepo, launch: LaunchRequest) -> RunRequest {
    let repo = locator(repo.path());
    let workspace = WorkspaceRequest::Worktree { repo, base: None, branch: None, copy: Vec::new() };
    RunRequest::new(workspace, launch)
}

async fn run(engine: &Handle, request: RunRequest) -> ExecutionRecord {
    let accepted = engine.run(Caller::default(), request).await.unwrap();
    engine.settled(&Caller::default(), accepted.execution).await.unwrap()
}

async fn output(engine: &Handle, id: ExecutionId) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut cursor = Seq(0);
    loop {
        let from = From::After(cursor);
        let options = ReadOptions { from, max_items: 100, max_bytes: 1 << 20 };
        let page = engine.log_page(&Caller::default(), id, options).await.unwrap();
        for item in page.items.iter() {
            if let LogItem::Entry { bytes: payload, .. } = item {
                bytes.extend_from_slice(payload);
            }
        }
        cursor = page.next;
        if page.end {
            return bytes;
        }
        engine.log_grown(&Caller::default(), id, cursor).await.unwrap();
    }
}

fn exited(code: u8) -> Option<Outcome> {
    Some(Outcome::Exited { code })
}

#[tokio::test]
async fn a_command_in_a_directory_ends_with_its_code_and_output() {
    let place = Place::new();
    let engine = place.start(Config::standard()).await;
    let record = run(&engine, in_directory(place.path(), script("echo hello; exit 3"))).await;
    assert_eq!(record.outcome, exited(3));
    assert_eq!(output(&engine, record.id).await, b"hello\n");
    assert_eq!(record.preview.as_deref(), Some("hello\n"));
}

#[tokio::test]
async fn what_a_command_changed_in_a_worktree_is_committed() {
    let (place, repo) = (Place::new(), TempRepo::with_commit());
    let engine = place.start(Config::standard()).await;
    let record = run(&engine, in_worktree(&repo, script("echo hello > new.txt"))).await;
    assert_eq!(record.outcome, exited(0));
    let commit = record.committed.unwrap();
    assert_eq!(git_in(repo.path(), ["show", &format!("{commit}:new.txt")]), "hello");
    let diff = engine.diff(&Caller::default(), record.attempt, DiffDetail::Files).await.unwrap();
    assert_eq!(diff.files.len(), 1);
    engine.remove(Caller::default(), record.attempt, RemoveOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_host_that_comes_later_finds_what_ended_meanwhile() {
    let place = Place::new();
    let engine = place.start(Config::standard()).await;
    let gate = place.path().join("gate");
    let text =
        format!("while [ ! -e '{}' ]; do sleep 0.01; done; echo after; exit 9", gate.display());
    let accepted =
        engine.run(Caller::default(), in_directory(place.path(), script(&text))).await.unwrap();
    engine.shut_down().await.unwrap();
    drop(engine);
    std::fs::write(&gate, "").unwrap();
    let engine = place.start(Config::standard()).await;
    let record = engine.settled(&Caller::default(), accepted.execution).await.unwrap();
    assert_eq!(record.outcome, exited(9));
    assert_eq!(output(&engine, record.id).await, b"after\n");
}

#[tokio::test]
async fn a_stop_ends_the_tree_and_a_completion_is_no_failure() {
    let place = Place::new();
    let engine = place.start(Config::standard()).await;
    let caller = Caller::default;
    for complete in [false, true] {
        let request = in_directory(place.path(), script("echo up; exec sleep 1000"));
        let id = engine.run(caller(), request).await.unwrap().execution;
        engine.log_grown(&caller(), id, Seq(0)).await.unwrap();
        let expected = if complete {
            engine.complete(caller(), id).await.unwrap();
            Outcome::Completed { by: CompletedBy::Program }
        } else {
            engine.stop(caller(), StopTarget::Execution(id), None).await.unwrap();
            Outcome::Stopped { by: StoppedBy::User }
        };
        assert_eq!(engine.settled(&caller(), id).await.unwrap().outcome, Some(expected));
    }
}

#[tokio::test]
async fn the_same_key_is_the_same_execution_and_another_request_under_it_is_refused() {
    let place = Place::new();
    let engine = place.start(Config::standard()).await;
    let caller = || Caller { owner: None, key: Some("k".into()) };
    let request = |text| in_directory(place.path(), script(text));
    let (first, second) = tokio::join!(
        engine.run(caller(), request("exit 1")),
        engine.run(caller(), request("exit 1"))
    );
    assert_eq!(first.unwrap(), second.unwrap());
    let refused = engine.run(caller(), request("exit 2")).await;
    let Err(EngineError::Refused { code: RefusalCode::KeyReused, .. }) = refused else {
        panic!("{refused:?}")
    };
}

#[tokio::test]
async fn what_is_refused_for_want_of_a_slot_leaves_nothing_and_what_waits_runs_later() {
    let place = Place::new();
    let limits = Limits { per_owner: 1, per_host: 1, dev_servers: 1, queue: 10 };
    let engine = place.start(Config { limits, ..Config::standard() }).await;
    let gate = place.path().join("gate");
    let text = format!("while [ ! -e '{}' ]; do sleep 0.01; done", gate.display());
    let caller = Caller::default;
    let first = engine.run(caller(), in_directory(place.path(), script(&text))).await.unwrap();
    let second = engine.run(caller(), in_directory(place.path(), script("exit 4"))).await.unwrap();
    let mut request = in_directory(place.path(), script("exit 5"));
    request.launch.when_full = WhenFull::Refuse;
    let refused = engine.run(caller(), request).await;
    let Err(EngineError::Refused { code: RefusalCode::LimitExecutions, reason }) = refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains(&first.attempt.short()), "{reason}");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(engine.settled(&caller(), first.execution).await.unwrap().outcome, exited(0));
    assert_eq!(engine.settled(&caller(), second.execution).await.unwrap().outcome, exited(4));
    let all = windlass::handle::ListFilter { all: true, ..Default::default() };
    assert_eq!(engine.executions(&caller(), all).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_shim_that_its_command_stopped_heeds_a_stop() {
    let place = Place::new();
    let engine = place.start(Config::standard()).await;
    let [gate, said] = ["gate", "said"].map(|name| place.path().join(name));
    for fifo in [&gate, &said] {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, fifo, mode).unwrap();
    }
    let text = format!(
        "read -r go < '{}'; kill -STOP $PPID; echo > '{}'; exec sleep 1000",
        gate.display(),
        said.display()
    );
    let request = in_directory(place.path(), script(&text));
    let id = engine.run(Caller::default(), request).await.unwrap().execution;
    engine.started(&Caller::default(), id).await.unwrap();
    tokio::task::spawn_blocking(move || {
        std::fs::write(gate, "go\n").unwrap();
        // The command writes when its shim is stopped.
        std::fs::read(said).unwrap();
    })
    .await
    .unwrap();
    engine.stop(Caller::default(), StopTarget::Execution(id), None).await.unwrap();
    let record = engine.settled(&Caller::default(), id).await.unwrap();
    assert_eq!(record.outcome, Some(Outcome::Stopped { by: StoppedBy::User }));
}

#[tokio::test]
async fn a_stopped_command_is_let_go_on_to_heed_its_stop() {
    let place = Place::new();
    let engine = place.start(Config::standard()).await;
    let said = place.path().join("said");
    let text = format!(
        "trap 'echo heard > {}; exit 0' TERM; echo up; kill -STOP $$; sleep 1000",
        said.display()
    );
    let id = engine
        .run(Caller::default(), in_directory(place.path(), script(&text)))
        .await
        .unwrap()
        .execution;
    engine.log_grown(&Caller::default(), id, Seq(0)).await.unwrap();
    engine.stop(Caller::default(), StopTarget::Execution(id), None).await.unwrap();
    engine.settled(&Caller::default(), id).await.unwrap();
    assert_eq!(std::fs::read_to_string(said).unwrap(), "heard\n");
}

#[tokio::test]
async fn a_variable_that_the_engine_sets_cannot_be_given() {
    let place = Place::new();
    let engine = place.start(Config::standard()).await;
    let mut launch = script("true");
    launch.env.insert("WINDLASS_EXECUTION_ID".into(), "mine".into());
    let refused = engine.run(Caller::default(), in_directory(place.path(), launch)).await;
    let Err(EngineError::Invalid { reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("WINDLASS_EXECUTION_ID"), "{reason}");
}

#[tokio::test]
async fn a_worktree_is_not_removed_below_a_process_that_was_left_running_in_it() {
    let (place, repo) = (Place::new(), TempRepo::with_commit());
    let engine = place.start(Config::standard()).await;
    let mut launch = script("sleep 1000 > /dev/null 2>&1 &");
    launch.leftovers = windlass::core::action::Leftovers::Leave;
    let record = run(&engine, in_worktree(&repo, launch)).await;
    let [survivor] = record.survivors.as_slice() else { panic!("{record:?}") };
    let refused = engine
        .remove(
            Caller::default(),
            record.attempt,
            RemoveOptions { force: true, ..RemoveOptions::default() },
        )
        .await;
    let Err(EngineError::Refused { code: RefusalCode::Busy, reason }) = refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains(&format!("process {} (sleep)", survivor.pid)), "{reason}");
    let left = windlass_tests::process::open(survivor.pid).unwrap();
    windlass_tests::process::signal(&left, rustix::process::Signal::KILL).unwrap();
    assert!(windlass_tests::process::ended(&left, windlass_tests::process::PATIENCE).unwrap());
    engine.remove(Caller::default(), record.attempt, RemoveOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_command_that_stops_its_shim_before_anybody_is_told_of_its_start_is_stopped_all_the_same()
{
    let place = Place::new();
    let engine = place.start(Config::standard()).await;
    let said = place.path().join("said");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &said, mode).unwrap();
    let text = format!("kill -STOP $PPID; echo > '{}'; exec sleep 1000", said.display());
    let request = in_directory(place.path(), script(&text));
    let id = engine.run(Caller::default(), request).await.unwrap().execution;
    tokio::task::spawn_blocking(move || std::fs::read(said)).await.unwrap().unwrap();
    engine.stop(Caller::default(), StopTarget::Execution(id), None).await.unwrap();
    let record = engine.settled(&Caller::default(), id).await.unwrap();
    assert_eq!(record.outcome, Some(Outcome::Stopped { by: StoppedBy::User }));
}
