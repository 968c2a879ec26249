//! Named points at which the host under test kills itself: around every call of a port.
//!
//! `CRASH_AT=store.commit:after:3` lets the third commit happen and kills the process before anybody hears of it. Only
//! the program of the tests has these wrappers; the shipped one does not link this crate.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use windlass::Backends;
use windlass_core::container_service::{
    Adoption, ContainerService, ContainerServiceError, LaunchSpec, Launched, Place, Room,
    StopRequest,
};
use windlass_core::execution::{ExitReport, FinalReport};
use windlass_core::id::{AttemptId, Epoch, ExecutionId, HostId, NodeId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::log_store::{
    LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, ReadOptions, Seq,
};
use windlass_core::process_store::{
    ChangeNumber, ChangePage, CheckReport, Lease, Page, ProcessStore, ProcessStoreError, Query,
    RecordKey, Stored, Write,
};
use windlass_core::vcs_worktree::{
    CreateMode, Creation, Diff, DiffDetail, Found, GitWork, Origin, Planned, Removal, SaveRequest,
    Saved, StepPlan, VcsWorktree, VcsWorktreeError, Verified, WorktreeRequest, WorktreeStatus,
};
use windlass_core::workspace::Worktree;

/// The variable that names the point.
pub const CRASH_AT: &str = "CRASH_AT";
/// The variable that names a file: it is made by the crash, and while it is there nothing crashes any more.
pub const CRASH_ONCE: &str = "CRASH_ONCE";

/// Before or after the effect of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// Where to crash.
#[derive(Debug)]
pub struct CrashPoint {
    call: String,
    side: Side,
    /// How many calls are left until it happens.
    left: AtomicU64,
    /// The file that is made by the crash.
    once: PathBuf,
}

impl CrashPoint {
    /// The calls that are points.
    pub const CALLS: [&str; 13] = [
        "store.acquire",
        "store.commit",
        "containers.prepare",
        "containers.launch",
        "containers.adopt",
        "containers.exited",
        "containers.finished",
        "containers.stop",
        "worktrees.plan",
        "worktrees.create",
        "worktrees.plan_step",
        "worktrees.save",
        "worktrees.remove",
    ];

    /// The calls that are points where the logs are kept in a store of their own.
    pub const CALLS_OF_LOGS: [&str; 2] = ["logs.append", "logs.seal"];

    /// Reads what the environment says; `None` if it says nothing, or the crash has happened.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let once = PathBuf::from(std::env::var_os(CRASH_ONCE)?);
        if once.exists() {
            return None;
        }
        Self::parse(&std::env::var(CRASH_AT).ok()?, once)
    }

    /// Reads `call:before|after:n`; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str, once: PathBuf) -> Option<Self> {
        let mut parts = text.split(':');
        let call = parts.next()?.to_owned();
        let side = match parts.next()? {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return None,
        };
        let left = parts.next()?.parse().ok()?;
        let known = Self::CALLS.iter().chain(&Self::CALLS_OF_LOGS).any(|known| *known == call)
            && parts.next().is_none();
        known.then(|| Self { call, side, left: AtomicU64::new(left), once })
    }

    /// Makes a call, and the process's last one if this is the point.
    async fn around<T>(&self, call: &'static str, made: impl Future<Output = T> + Send) -> T {
        let here = call == self.call && self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if here && self.side == Side::Before {
            self.die();
        }
        let answer = made.await;
        if here { self.die() } else { answer }
    }

    /// Kills this process as nobody can prevent: no destructor runs, no buffer is written.
    fn die(&self) -> ! {
        // Without the file the next host would crash as well, and the test would tell.
        drop(File::create(&self.once));
        let own = rustix::process::getpid();
        // It cannot fail, and the process does not go on to see it.
        let _unseen = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// A port whose calls are points.
struct Crashing<T: ?Sized> {
    point: Arc<CrashPoint>,
    inner: Arc<T>,
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Crashing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Crashing").field(&&self.inner).finish()
    }
}

/// Wraps the ports of a host if the environment names a point.
#[must_use]
pub fn wrap(backends: Backends) -> Backends {
    let Some(point) = CrashPoint::from_env().map(Arc::new) else { return backends };
    let point = || Arc::clone(&point);
    Backends {
        containers: Arc::new(Crashing { point: point(), inner: backends.containers }),
        store: Arc::new(Crashing { point: point(), inner: backends.store }),
        logs: backends.logs,
        worktrees: Arc::new(Crashing { point: point(), inner: backends.worktrees }),
    }
}

/// Wraps the store that keeps the logs of a host if the environment names a point.
#[must_use]
pub fn wrap_logs(logs: Arc<dyn LogStore>) -> Arc<dyn LogStore> {
    match CrashPoint::from_env().map(Arc::new) {
        Some(point) => Arc::new(Crashing { point, inner: logs }),
        None => logs,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LogStore for Crashing<dyn LogStore> {
    async fn append(&self, log: &LogKey, items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        self.point.around("logs.append", self.inner.append(log, items)).await
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.point.around("logs.seal", self.inner.seal(log)).await
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        self.inner.read(log, options).await
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        self.inner.grown(log, after).await
    }

    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError> {
        self.inner.status(log).await
    }

    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.inner.remove(log).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ProcessStore for Crashing<dyn ProcessStore> {
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        self.point.around("store.acquire", self.inner.acquire(host, node)).await
    }

    async fn commit(
        &self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        self.point.around("store.commit", self.inner.commit(batch, lease)).await
    }

    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, query: Query) -> Result<Page, ProcessStoreError> {
        self.inner.list(query).await
    }

    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError> {
        self.inner.changes(after, limit).await
    }

    async fn check(&self) -> Result<CheckReport, ProcessStoreError> {
        self.inner.check().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContainerService for Crashing<dyn ContainerService> {
    async fn prepare(
        &self,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> Result<Place, ContainerServiceError> {
        self.point.around("containers.prepare", self.inner.prepare(execution, nonce)).await
    }

    async fn launch(
        &self,
        place: &Place,
        spec: LaunchSpec,
        epoch: Epoch,
    ) -> Result<Launched, ContainerServiceError> {
        self.point.around("containers.launch", self.inner.launch(place, spec, epoch)).await
    }

    async fn adopt(
        &self,
        execution: ExecutionId,
        place: &Place,
        epoch: Epoch,
    ) -> Result<Adoption, ContainerServiceError> {
        self.point.around("containers.adopt", self.inner.adopt(execution, place, epoch)).await
    }

    async fn exited(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<ExitReport, ContainerServiceError> {
        self.point.around("containers.exited", self.inner.exited(execution, place)).await
    }

    async fn finished(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError> {
        self.point.around("containers.finished", self.inner.finished(execution, place)).await
    }

    async fn stop(
        &self,
        execution: ExecutionId,
        place: &Place,
        request: StopRequest,
    ) -> Result<(), ContainerServiceError> {
        self.point.around("containers.stop", self.inner.stop(execution, place, request)).await
    }

    async fn places(&self) -> Result<Vec<(ExecutionId, Place)>, ContainerServiceError> {
        self.inner.places().await
    }

    async fn discard(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<(), ContainerServiceError> {
        self.inner.discard(execution, place).await
    }

    async fn room(&self) -> Result<Room, ContainerServiceError> {
        self.inner.room().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl VcsWorktree for Crashing<dyn VcsWorktree> {
    async fn plan(&self, request: WorktreeRequest) -> Result<Planned, VcsWorktreeError> {
        self.point.around("worktrees.plan", self.inner.plan(request)).await
    }

    async fn create(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        origin: &Origin,
        mode: CreateMode,
    ) -> Result<Creation, VcsWorktreeError> {
        let create = self.inner.create(attempt, worktree, origin, mode);
        self.point.around("worktrees.create", create).await
    }

    async fn verify(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError> {
        self.inner.verify(attempt, worktree).await
    }

    async fn status(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<WorktreeStatus, VcsWorktreeError> {
        self.inner.status(attempt, worktree).await
    }

    async fn diff(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        detail: DiffDetail,
    ) -> Result<Diff, VcsWorktreeError> {
        self.inner.diff(attempt, worktree, detail).await
    }

    async fn plan_step(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        work: &GitWork,
    ) -> Result<StepPlan, VcsWorktreeError> {
        let planned = self.inner.plan_step(attempt, worktree, work);
        self.point.around("worktrees.plan_step", planned).await
    }

    async fn save(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<Saved, VcsWorktreeError> {
        self.point.around("worktrees.save", self.inner.save(attempt, worktree, request)).await
    }

    async fn remove(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        removal: Removal,
    ) -> Result<(), VcsWorktreeError> {
        self.point.around("worktrees.remove", self.inner.remove(attempt, worktree, removal)).await
    }

    async fn survey(&self, repos: &[Locator]) -> Result<Vec<Found>, VcsWorktreeError> {
        self.inner.survey(repos).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_known_call_a_side_and_a_count() {
        for right in ["store.commit:after:3", "logs.append:before:1"] {
            assert!(CrashPoint::parse(right, PathBuf::new()).is_some(), "{right}");
        }
        for wrong in
            ["store.commit", "store.commit:between:3", "x.y:after:1", "store.commit:after:"]
        {
            assert!(CrashPoint::parse(wrong, PathBuf::new()).is_none(), "{wrong}");
        }
    }
}
