//! A machine in memory on which hosts come and go, with a store that can be made to fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use windlass::core::action::SecretSource;
use windlass::core::admission::Limits;
use windlass::core::attachments::Attachments;
use windlass::core::container_service::{
    Adoption, ContainerService, ContainerServiceError, LaunchSpec, Launched, Place as Room,
    Room as Space, StopRequest,
};
use windlass::core::error::BackendError;
use windlass::core::execution::{ExitReport, FinalReport};
use windlass::core::id::{Epoch, ExecutionId, HostId, NodeId, Nonce};
use windlass::core::locator::Locator;
use windlass::core::log_store::LogStore;
use windlass::core::process_store::{
    ChangeNumber, ChangePage, CheckReport, Lease, Page, ProcessStore, ProcessStoreError, Query,
    RecordKey, Stored, Write,
};
use windlass::core::record::ExecutionRecord;
use windlass::core::time::Timestamp;
use windlass::core::vcs_history::VcsHistory;
use windlass::core::vcs_worktree::GitStep;
use windlass::request::{Accepted, Caller, LaunchRequest, RunRequest, WorkspaceRequest};
use windlass::runtime::{Clock, Entropy, Spawner};
use windlass::{Backends, Builder, Config, Handle};
use windlass_fakes::container_service::MemoryContainers;
use windlass_fakes::faulty::{
    Call, CallNumber, Conductor, Effect, Fault as Wrong, Faulty, Pending, Told,
};
use windlass_fakes::input::MemoryInput;
use windlass_fakes::log_store::MemoryLogs;
use windlass_fakes::process_store::MemoryStore;
use windlass_fakes::vcs_worktree::{MemoryRepositories, MemoryWorktrees};
use windlass_fakes::world::{Time, World};

/// Time that passes only by sleeping, tasks that can be killed, and numbers that never repeat.
#[derive(Debug, Default)]
pub(crate) struct TestRuntime {
    ms: Arc<AtomicU64>,
    /// By how much somebody has set the clock, in milliseconds. Sleeping does not feel it.
    set_by: AtomicI64,
    numbers: AtomicU32,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl TestRuntime {
    /// Returns how many milliseconds were slept.
    pub(crate) fn passed(&self) -> u64 {
        self.ms.load(Ordering::Relaxed)
    }

    /// Waits until every task has ended by itself.
    pub(crate) async fn all_tasks_end(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        for task in tasks {
            task.await.unwrap();
        }
    }
}

impl Clock for TestRuntime {
    fn now(&self) -> Timestamp {
        let passed = 1_000_000_000 + self.ms.load(Ordering::Relaxed);
        Timestamp(passed.saturating_add_signed(self.set_by.load(Ordering::Relaxed)))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let ms = Arc::clone(&self.ms);
        Box::pin(async move {
            tokio::task::yield_now().await;
            ms.fetch_add(u64::try_from(duration.as_millis()).unwrap(), Ordering::Relaxed);
        })
    }
}

impl Spawner for TestRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tasks.lock().unwrap().push(tokio::spawn(task));
    }
}

impl Entropy for TestRuntime {
    fn bytes(&self) -> [u8; 16] {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut bytes = [0; 16];
        bytes.chunks_exact_mut(4).for_each(|chunk| chunk.copy_from_slice(&number));
        bytes
    }
}

/// What happens to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not written, and the caller is told that it may be.
    Before,
    /// It is written, and the caller is told that it may not be.
    After,
}

/// A store in memory that fails as it is told.
#[derive(Debug, Default)]
pub(crate) struct FaultyStore {
    inner: Mutex<Arc<MemoryStore>>,
    /// What happens to the next batch that puts a record in this state.
    faults: Mutex<BTreeMap<String, Fault>>,
    /// Nothing can be taken over.
    down: Mutex<bool>,
    /// What cannot be read.
    damaged: Mutex<Option<RecordKey>>,
}

impl FaultyStore {
    /// Lets the next batch fail that puts a record in `state`.
    pub(crate) fn fail(&self, state: &str, fault: Fault) {
        self.faults.lock().unwrap().insert(state.to_owned(), fault);
    }

    /// Says whether anybody can take over.
    pub(crate) fn set_down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    /// Loses every record, as a user does who deletes the database.
    pub(crate) fn lose_records(&self) {
        *self.inner.lock().unwrap() = Arc::new(MemoryStore::default());
    }

    /// The store that keeps the records now.
    fn inner(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.inner.lock().unwrap())
    }

    /// Damages one record beyond reading.
    pub(crate) fn damage(&self, key: RecordKey) {
        *self.damaged.lock().unwrap() = Some(key);
    }

    fn fault_of(&self, batch: &[Write]) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        batch.iter().find_map(|write| match write {
            Write::Put { record, .. } => faults.remove(&record.state),
            Write::Delete { .. } => None,
        })
    }
}

fn in_doubt() -> ProcessStoreError {
    BackendError::transient("faulty", "commit", "nobody knows").into()
}

#[async_trait]
impl ProcessStore for FaultyStore {
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        if *self.down.lock().unwrap() {
            return Err(in_doubt());
        }
        self.inner().acquire(host, node).await
    }

    async fn commit(
        &self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        match self.fault_of(&batch) {
            None => self.inner().commit(batch, lease).await,
            Some(Fault::Before) => Err(in_doubt()),
            Some(Fault::After) => {
                self.inner().commit(batch, lease).await?;
                Err(in_doubt())
            }
        }
    }

    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError> {
        if *self.damaged.lock().unwrap() == Some(key) {
            return Err(ProcessStoreError::Damaged { key, reason: "as told".to_owned() });
        }
        self.inner().get(key).await
    }

    async fn list(&self, query: Query) -> Result<Page, ProcessStoreError> {
        self.inner().list(query).await
    }

    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError> {
        self.inner().changes(after, limit).await
    }

    async fn check(&self) -> Result<CheckReport, ProcessStoreError> {
        self.inner().check().await
    }
}

/// The same store for one host after the other.
#[derive(Debug)]
struct Shared(Arc<FaultyStore>);

#[async_trait]
impl ProcessStore for Shared {
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        self.0.acquire(host, node).await
    }

    async fn commit(
        &self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        self.0.commit(batch, lease).await
    }

    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError> {
        self.0.get(key).await
    }

    async fn list(&self, query: Query) -> Result<Page, ProcessStoreError> {
        self.0.list(query).await
    }

    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError> {
        self.0.changes(after, limit).await
    }

    async fn check(&self) -> Result<CheckReport, ProcessStoreError> {
        self.0.check().await
    }
}

/// Lets a host die at one of its calls of a port, before or after the effect.
#[derive(Debug)]
pub(crate) struct Doom {
    call: u64,
    fault: Wrong,
    calls: AtomicU64,
    dead: AtomicBool,
    died: Notify,
}

impl Doom {
    pub(crate) fn new(call: u64, after: bool) -> Arc<Self> {
        let fault = if after { Wrong::CrashAfter } else { Wrong::CrashBefore };
        let (calls, dead, died) = (AtomicU64::new(0), AtomicBool::new(false), Notify::new());
        Arc::new(Self { call, fault, calls, dead, died })
    }

    /// Resolves when the call has come.
    pub(crate) async fn came(&self) {
        self.died.notified().await;
    }
}

impl Conductor for Doom {
    fn begin(&self, _: Call, _: &[Write]) -> (CallNumber, Wrong) {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        (CallNumber(number), if number == self.call { self.fault } else { Wrong::None })
    }

    fn performed(&self, _: CallNumber, _: Call, _: Effect<'_>) {}

    fn end(&self, _: CallNumber, _: Call, _: Told) {}

    fn lives(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }

    fn kill(&self, _: CallNumber, _: Call) {
        self.dead.store(true, Ordering::Relaxed);
        self.died.notify_one();
    }

    fn pause(&self, _: u64) -> Pending<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn healed(&self) -> Pending<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// Containers that also know the program of the fakes' git steps.
#[derive(Debug)]
struct WithGit {
    inner: MemoryContainers,
    repositories: MemoryRepositories,
    launches: Arc<AtomicU32>,
}

#[async_trait]
impl ContainerService for WithGit {
    async fn prepare(
        &self,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> Result<Room, ContainerServiceError> {
        self.inner.prepare(execution, nonce).await
    }

    async fn launch(
        &self,
        place: &Room,
        mut spec: LaunchSpec,
        epoch: Epoch,
    ) -> Result<Launched, ContainerServiceError> {
        self.launches.fetch_add(1, Ordering::Relaxed);
        if let Some(repository_lock) = spec.repository_lock.clone() {
            let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            let env = spec.env.iter().map(|(name, value)| (text(&name.0), value.clone()));
            let step = GitStep {
                argv: spec.argv,
                env: env.collect(),
                base_env: Vec::new(),
                cwd: spec.cwd.clone(),
                repository_lock,
            };
            let code = if self.repositories.perform(&step) { "0" } else { "1" };
            spec.argv = vec!["exit".into(), code.into()];
        }
        self.inner.launch(place, spec, epoch).await
    }

    async fn adopt(
        &self,
        execution: ExecutionId,
        place: &Room,
        epoch: Epoch,
    ) -> Result<Adoption, ContainerServiceError> {
        self.inner.adopt(execution, place, epoch).await
    }

    async fn exited(
        &self,
        execution: ExecutionId,
        place: &Room,
    ) -> Result<ExitReport, ContainerServiceError> {
        self.inner.exited(execution, place).await
    }

    async fn finished(
        &self,
        execution: ExecutionId,
        place: &Room,
    ) -> Result<FinalReport, ContainerServiceError> {
        self.inner.finished(execution, place).await
    }

    async fn stop(
        &self,
        execution: ExecutionId,
        place: &Room,
        request: StopRequest,
    ) -> Result<(), ContainerServiceError> {
        self.inner.stop(execution, place, request).await
    }

    async fn places(&self) -> Result<Vec<(ExecutionId, Room)>, ContainerServiceError> {
        self.inner.places().await
    }

    async fn discard(
        &self,
        execution: ExecutionId,
        place: &Room,
    ) -> Result<(), ContainerServiceError> {
        self.inner.discard(execution, place).await
    }

    async fn room(&self) -> Result<Space, ContainerServiceError> {
        self.inner.room().await
    }
}

/// A machine: what survives its hosts.
pub(crate) struct Place {
    runtime: Arc<TestRuntime>,
    pub(crate) world: World,
    pub(crate) repositories: MemoryRepositories,
    pub(crate) store: Arc<FaultyStore>,
    launches: Arc<AtomicU32>,
    /// Where logs are moved to.
    pub(crate) kept: Option<Arc<dyn LogStore>>,
    /// Where attachments are kept.
    pub(crate) attachments: Option<Arc<dyn Attachments>>,
    pub(crate) config: Config,
    /// At which call the next host dies, if at one.
    pub(crate) doom: Option<Arc<Doom>>,
    node: NodeId,
}

impl Place {
    pub(crate) fn new() -> Self {
        let mut config = Config::standard();
        // Time passes only where a test says so.
        config.cleanup_period_ms = None;
        Self {
            runtime: Arc::new(TestRuntime::default()),
            world: World::new(Timestamp(1_000_000_000), Time::Flows),
            repositories: MemoryRepositories::default(),
            store: Arc::new(FaultyStore::default()),
            launches: Arc::new(AtomicU32::new(0)),
            kept: None,
            attachments: None,
            config,
            doom: None,
            node: NodeId(uuid::Uuid::from_u128(7)),
        }
    }

    /// Makes a machine on which so many executions may run and wait.
    pub(crate) fn with_limits(per_host: u32, queue: u32) -> Self {
        let mut place = Self::new();
        place.config.limits = Limits { per_owner: per_host, per_host, dev_servers: 1, queue };
        place
    }

    /// Makes a machine whose commands write into the worktrees of its repositories.
    pub(crate) fn with_files() -> Self {
        let place = Self::new();
        Self { repositories: MemoryRepositories::new(place.world.clone()), ..place }
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, ms: u64) {
        self.runtime.ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Starts a host.
    pub(crate) async fn start(&self) -> Handle {
        let inner = MemoryContainers::new(self.world.clone());
        let repositories = self.repositories.clone();
        let worktrees = Arc::new(MemoryWorktrees::open(&self.repositories, "d"));
        let diff_watch = Arc::clone(&worktrees);
        let history: Arc<dyn VcsHistory> = match &self.doom {
            None => Arc::clone(&worktrees) as _,
            Some(doom) => {
                let worktrees = MemoryWorktrees::open(&self.repositories, "d");
                Arc::new(Faulty::new(worktrees, Arc::clone(doom) as Arc<dyn Conductor>))
            }
        };
        let launches = Arc::clone(&self.launches);
        let containers = WithGit { inner, repositories, launches };
        let store = Arc::clone(&self.store);
        let logs = Arc::new(MemoryLogs::new(self.world.clone()));
        let backends = match &self.doom {
            None => Backends { containers: Arc::new(containers), store, logs, worktrees },
            Some(doom) => {
                let conductor = || Arc::clone(doom) as Arc<dyn Conductor>;
                let worktrees = MemoryWorktrees::open(&self.repositories, "d");
                Backends {
                    containers: Arc::new(Faulty::new(containers, conductor())),
                    store: Arc::new(Faulty::new(Shared(store), conductor())),
                    logs,
                    worktrees: Arc::new(Faulty::new(worktrees, conductor())),
                }
            }
        };
        let builder = Builder::new(backends, self.config.clone(), self.node);
        let builder = builder.diff_watch(diff_watch).history(history);
        let mut builder = builder.input(Arc::new(MemoryInput::new(self.world.clone())));
        if let Some(kept) = &self.kept {
            builder = builder.keep_logs_in(Arc::clone(kept));
        }
        if let Some(attachments) = &self.attachments {
            builder = builder.attachments(Arc::clone(attachments));
        }
        builder.start(Arc::clone(&self.runtime)).await.unwrap()
    }

    /// Sets the clock by so many milliseconds.
    pub(crate) fn set_clock(&self, by_ms: i64) {
        self.runtime.set_by.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Kills the host, wherever it is.
    pub(crate) async fn kill(&self) {
        let tasks = std::mem::take(&mut *self.runtime.tasks.lock().unwrap());
        for task in tasks {
            task.abort();
            let _killed = task.await;
        }
    }

    /// Kills the host and starts another.
    pub(crate) async fn restart(&self) -> Handle {
        self.kill().await;
        self.start().await
    }

    /// Waits until every task of the hosts has ended by itself.
    pub(crate) async fn all_tasks_end(&self) {
        self.runtime.all_tasks_end().await;
    }

    /// Counts the launches so far.
    pub(crate) fn launches(&self) -> u32 {
        self.launches.load(Ordering::Relaxed)
    }

    /// Makes a repository with one commit.
    pub(crate) fn repository(&self) -> Locator {
        let dir = self.repositories.init();
        self.repositories.write(&dir, "file", b"one");
        let author = self.config.identity.clone();
        let _first = self.repositories.commit(&dir, "first", &author);
        dir
    }
}

/// Asks for a command in a directory of the user's.
pub(crate) fn in_directory(argv: &[&str]) -> RunRequest {
    let workspace = WorkspaceRequest::Directory { path: Locator::new("/d") };
    RunRequest::new(workspace, LaunchRequest::command(argv.iter().copied()))
}

/// Asks for a command in a new worktree.
pub(crate) fn in_worktree(repo: &Locator, argv: &[&str]) -> RunRequest {
    let workspace = WorkspaceRequest::Worktree {
        repo: repo.clone(),
        base: None,
        branch: None,
        copy: Vec::new(),
    };
    RunRequest { workspace, ..in_directory(argv) }
}

/// Asks for a command that needs the bare secret `TOKEN`.
pub(crate) fn with_secret(argv: &[&str]) -> RunRequest {
    let mut request = in_directory(argv);
    request.launch.secrets.insert("TOKEN".into(), SecretSource::Memory);
    request.launch.secret_values.insert("TOKEN".into(), "hush".into());
    request
}

pub(crate) fn operator() -> Caller {
    Caller::default()
}

pub(crate) fn keyed(key: &str) -> Caller {
    Caller { owner: None, key: Some(key.to_owned()) }
}

pub(crate) fn owner(name: &str) -> Caller {
    Caller { owner: Some(name.to_owned()), key: None }
}

pub(crate) async fn run(handle: &Handle, request: RunRequest) -> Accepted {
    handle.run(operator(), request).await.unwrap()
}

pub(crate) async fn settled(handle: &Handle, accepted: &Accepted) -> ExecutionRecord {
    handle.settled(&operator(), accepted.execution).await.unwrap()
}

/// Waits, by changes, until an execution is as wanted.
pub(crate) async fn until(
    handle: &Handle,
    accepted: &Accepted,
    wanted: impl Fn(&ExecutionRecord) -> bool,
) -> ExecutionRecord {
    let mut after = ChangeNumber(0);
    loop {
        after = handle.changes(&operator(), after, 1).await.unwrap().last;
        let record = handle.execution(&operator(), accepted.execution).await.unwrap();
        if wanted(&record) {
            return record;
        }
        handle.changed(after).await.unwrap();
    }
}
