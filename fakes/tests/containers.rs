//! The suites of `ContainerService`, `LogStore` and `Input` over one [`World`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use windlass_conformance::container_service::ContainerServicePlace;
use windlass_conformance::input::{InputPlace, Ports};
use windlass_conformance::log_store::LogStorePlace;
use windlass_conformance::script::{Script, fresh_execution, fresh_nonce};
use windlass_core::action::{Leftovers, OutputMode, Stdin};
use windlass_core::container_service::{ContainerService, LaunchSpec, Place};
use windlass_core::id::ExecutionId;
use windlass_core::locator::Locator;
use windlass_core::log_store::{From, LogItem, LogKey, LogStore, ReadOptions, Seq, Stream};
use windlass_core::time::Timestamp;
use windlass_fakes::{MemoryContainers, MemoryInput, MemoryLogs, Time, World};

/// A world in which time flows.
struct Memory {
    world: World,
}

impl Default for Memory {
    fn default() -> Self {
        let world = World::new(Timestamp(1_700_000_000_000), Time::Flows);
        world.remove_directory(&nowhere());
        Self { world }
    }
}

fn nowhere() -> Locator {
    Locator::new("memory:nowhere")
}

/// Says how the world calls a script.
fn words(script: &Script) -> Vec<String> {
    let words: &[&str] = match script {
        Script::Exit(code) => &["exit", &code.to_string()],
        Script::Die(signal) => &["die", &signal.to_string()],
        Script::Print { stdout, stderr } => &["print", stdout, stderr],
        Script::UntilReleased(code) => &["wait", &code.to_string()],
        Script::Forever => &["forever"],
        Script::IgnoreTerm => &["ignore-term"],
        Script::EchoStdin => &["echo-stdin"],
        Script::IgnoreStdin => &["ignore-stdin"],
        Script::LeaveChild => &["leave-child"],
        Script::LeaveEscapee => &["leave-escapee"],
        Script::MissingProgram => &["no-such-program"],
        Script::NotExecutable => &["not-executable"],
        Script::MissingDirectory => &["exit", "0"],
    };
    words.iter().map(|&word| word.to_owned()).collect()
}

fn spec(script: &Script, execution: ExecutionId) -> LaunchSpec {
    let reads = matches!(script, Script::EchoStdin | Script::IgnoreStdin);
    LaunchSpec {
        execution,
        argv: words(script).into_iter().map(Into::into).collect(),
        env: Vec::new(),
        cwd: match script {
            Script::MissingDirectory => nowhere(),
            _ => Locator::new("memory:workspace"),
        },
        stdin: if reads { Stdin::Messages } else { Stdin::Null },
        output: OutputMode::Separate,
        leftovers: Leftovers::Stop,
        total: None,
        idle: None,
        grace: Duration::from_secs(5),
        log_cap_bytes: 1 << 30,
        repository_lock: None,
    }
}

impl Memory {
    async fn output_of(&self, execution: ExecutionId, place: &Place, at_least: usize) -> Vec<u8> {
        let log = LogKey { execution, place: place.clone() };
        MemoryLogs::new(self.world.clone()).output(&log, at_least).await
    }
}

#[async_trait]
impl ContainerServicePlace for Memory {
    async fn open(&self) -> Arc<dyn ContainerService> {
        Arc::new(MemoryContainers::new(self.world.clone()))
    }

    fn spec(&self, script: &Script, execution: ExecutionId) -> LaunchSpec {
        spec(script, execution)
    }

    async fn release(&self, execution: ExecutionId) {
        self.world.release(execution);
    }

    async fn output(&self, execution: ExecutionId, place: &Place, at_least: usize) -> Vec<u8> {
        self.output_of(execution, place, at_least).await
    }

    async fn alive(&self, execution: ExecutionId) -> usize {
        self.world.alive(execution)
    }

    async fn kill_supervisor(&self, execution: ExecutionId, _place: &Place) {
        assert!(self.world.kill_shim(execution), "there is no shim to kill");
    }

    async fn damage(&self, execution: ExecutionId, place: &Place) {
        self.world.damage(execution, place.nonce);
    }
}

#[async_trait]
impl InputPlace for Memory {
    async fn open(&self) -> Ports {
        Ports {
            containers: Arc::new(MemoryContainers::new(self.world.clone())),
            input: Arc::new(MemoryInput::new(self.world.clone())),
        }
    }

    fn spec(&self, script: &Script, execution: ExecutionId) -> LaunchSpec {
        spec(script, execution)
    }

    async fn output(&self, execution: ExecutionId, place: &Place, at_least: usize) -> Vec<u8> {
        self.output_of(execution, place, at_least).await
    }

    async fn logged_input(&self, execution: ExecutionId, place: &Place) -> Vec<(Vec<u8>, u64)> {
        let log = LogKey { execution, place: place.clone() };
        let options =
            ReadOptions { from: From::After(Seq(0)), max_items: u32::MAX, max_bytes: u64::MAX };
        let page = MemoryLogs::new(self.world.clone()).read(&log, options).await.expect("a page");
        let input = |item: &LogItem| match item {
            LogItem::Entry { stream: Stream::Stdin, bytes, len, .. } => {
                Some((bytes.to_vec(), *len))
            }
            LogItem::Entry { .. } | LogItem::Gap { .. } => None,
        };
        page.items.iter().filter_map(input).collect()
    }
}

#[async_trait]
impl LogStorePlace for Memory {
    async fn open(&self) -> Arc<dyn LogStore> {
        Arc::new(MemoryLogs::new(self.world.clone()))
    }

    async fn create(&self, _store: &dyn LogStore) -> LogKey {
        let log = self.missing().await;
        MemoryLogs::new(self.world.clone()).create(&log);
        log
    }

    async fn missing(&self) -> LogKey {
        let (execution, nonce) = (fresh_execution(), fresh_nonce());
        let place = MemoryContainers::new(World::new(Timestamp(0), Time::Stands))
            .prepare(execution, nonce)
            .await
            .expect("room in another world");
        LogKey { execution, place }
    }

    async fn write(&self, store: &dyn LogStore, log: &LogKey, items: &[LogItem]) {
        store.append(log, items.to_vec()).await.expect("an append");
    }

    async fn finish(&self, store: &dyn LogStore, log: &LogKey) {
        store.seal(log).await.expect("a seal");
    }

    async fn tear(&self, _store: &dyn LogStore, _log: &LogKey, _item: &LogItem) {
        // An append in memory is one step: a writer that dies in the midst of it has not begun.
    }
}

windlass_conformance::container_service_suite! { memory_containers => super::Memory }
windlass_conformance::input_suite! { memory_input => super::Memory }
windlass_conformance::log_store_suite! { memory_logs => super::Memory }
windlass_conformance::log_store_append_suite! { memory_logs_that_are_fed => super::Memory }
windlass_conformance::log_store_histories! { memory_logs_histories => super::Memory }
