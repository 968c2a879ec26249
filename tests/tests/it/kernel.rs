//! The virtual kernel against the real one: the same scripts on both, and what can be observed is equal.
//!
//! That is what entitles the simulation to its world. The shim's logic is the same code on both sides; what is compared here
//! is what is below it (processes, signals, pipes, journals, logs) and beside it (the host's side of a start).

mod cases;
mod linux;
mod world;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use windlass_conformance::script::{fresh_execution, fresh_nonce};
use windlass_core::container_service::{
    Adoption, ContainerService, LaunchSpec, Launched, Place, StopCause, StopRequest,
};
use windlass_core::execution::SurvivorReason;
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::input::{Input, InputMessage};
use windlass_core::log_store::{LogItem, LogKey, LogStore, LogStoreExt as _, Seq, Stream};
use windlass_core::outcome::{CompletedBy, Exit, NotStarted, Outcome, StoppedBy};
use windlass_tests::isolated;

use self::cases::{Act, Case};
use self::linux::Linux;
use self::world::Virtual;

/// A machine that runs scripts: the real one or a world.
trait Machine {
    /// Opens the service, its input and its logs. Opening again is a restart of the host.
    fn open(&self) -> Ports;

    /// Says how it runs a script.
    fn spec(&self, case: &Case, execution: ExecutionId) -> LaunchSpec;

    /// Kills the shim of a start, and nothing else.
    fn kill_shim(&self, execution: ExecutionId, place: &Place);

    /// Counts the processes of an execution that live and carry its mark.
    fn alive(&self, execution: ExecutionId) -> usize;
}

/// What a host has.
struct Ports {
    containers: Arc<dyn ContainerService>,
    input: Arc<dyn Input>,
    logs: Arc<dyn LogStore>,
}

/// What can be observed of one execution.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    launched: Result<(), NotStarted>,
    adopted: Option<&'static str>,
    outcome: Outcome,
    exit: Option<Exit>,
    survivors: Vec<SurvivorReason>,
    more_survivors: u32,
    output_incomplete: bool,
    /// Payload bytes, the dropped ones included.
    bytes: u64,
    has_dropped: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    alive: usize,
    /// What the next host finds.
    found_ended: bool,
}

/// Runs a case on a machine.
async fn observe(machine: &(impl Machine + Sync), case: &Case) -> Seen {
    let mut ports = machine.open();
    let execution = fresh_execution();
    let place = ports.containers.prepare(execution, fresh_nonce()).await.unwrap();
    let mut spec = machine.spec(case, execution);
    (case.with)(&mut spec);
    let launched = match ports.containers.launch(&place, spec, Epoch(1)).await.unwrap() {
        Launched::Running(_) => Ok(()),
        Launched::NotStarted { reason, .. } => Err(reason),
    };
    let log = LogKey { execution, place: place.clone() };
    read(&*ports.logs, &log, case.after).await;
    let mut adopted = None;
    match &case.act {
        Act::Watch => {}
        Act::Stop { grace } => stop(&ports, execution, &place, *grace, Epoch(1)).await,
        Act::Complete => {
            let cause = StopCause::Complete { by: CompletedBy::Program };
            let request = StopRequest { cause, grace: cases::GRACE, epoch: Epoch(1) };
            ports.containers.stop(execution, &place, request).await.unwrap();
        }
        Act::KillShim => machine.kill_shim(execution, &place),
        Act::KillShimWithoutHost => {
            drop(ports);
            machine.kill_shim(execution, &place);
            ports = machine.open();
            adopted = Some(adopt(&ports, execution, &place).await);
        }
        Act::Restart => {
            drop(ports);
            ports = machine.open();
            adopted = Some(adopt(&ports, execution, &place).await);
            stop(&ports, execution, &place, cases::GRACE, Epoch(2)).await;
        }
        Act::Feed(messages) => feed(&ports, execution, &place, messages).await,
    }
    let report = ports.containers.finished(execution, &place).await.unwrap();
    let (mut stdout, stderr) = read(&*ports.logs, &log, usize::MAX).await;
    if case.sums_only {
        stdout.clear();
    }
    let alive = machine.alive(execution);
    drop(ports);
    let next = machine.open();
    let found_ended = adopt(&next, execution, &place).await == "ended";
    Seen {
        launched,
        adopted,
        outcome: report.exit.outcome,
        exit: report.exit.exit,
        survivors: report.survivors.iter().map(|survivor| survivor.reason).collect(),
        more_survivors: report.more_survivors,
        output_incomplete: report.output_incomplete,
        bytes: report.bytes,
        has_dropped: report.dropped_bytes > 0,
        stdout,
        stderr,
        alive,
        found_ended,
    }
}

async fn adopt(ports: &Ports, execution: ExecutionId, place: &Place) -> &'static str {
    match ports.containers.adopt(execution, place, Epoch(2)).await.unwrap() {
        Adoption::Running { running: Some(_), exited: None } => "running",
        Adoption::Running { .. } => "leaving",
        Adoption::Ended(_) => "ended",
        Adoption::NeverRan => "never ran",
        Adoption::Unresponsive { .. } => "unresponsive",
        Adoption::Foreign { .. } => "foreign",
        Adoption::Unverifiable { .. } => "unverifiable",
    }
}

async fn stop(ports: &Ports, execution: ExecutionId, place: &Place, grace: Duration, epoch: Epoch) {
    let cause = StopCause::Stop { by: StoppedBy::User };
    let request = StopRequest { cause, grace, epoch };
    ports.containers.stop(execution, place, request).await.unwrap();
}

async fn feed(ports: &Ports, execution: ExecutionId, place: &Place, messages: &[&[u8]]) {
    for (position, bytes) in (0..).zip(messages) {
        let message = InputMessage {
            key: Uuid::from_u128(position + 1),
            position: u64::try_from(position).unwrap(),
            bytes: Bytes::copy_from_slice(bytes),
            secret: false,
            close: usize::try_from(position).unwrap() + 1 == messages.len(),
        };
        ports.input.send(execution, place, message, Epoch(1)).await.unwrap();
    }
}

/// Reads a log until it has so many bytes of output or ends; returns the bytes of both streams.
async fn read(logs: &dyn LogStore, log: &LogKey, at_least: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut cursor = Seq(0);
    loop {
        let page = logs.page_after(log, cursor).await.unwrap();
        cursor = page.next;
        for item in page.items.iter() {
            match item {
                LogItem::Entry { stream: Stream::Stderr, bytes, .. } => stderr.extend(bytes),
                LogItem::Entry { stream: Stream::Stdout, bytes, .. } => stdout.extend(bytes),
                LogItem::Entry { .. } | LogItem::Gap { .. } => {}
            }
        }
        if page.end || stdout.len() + stderr.len() >= at_least {
            return (stdout, stderr);
        }
        logs.grown(log, cursor).await.unwrap();
    }
}

/// Runs every case on both machines, all at once on each, and insists that nothing differs.
fn compare(cases: &[Case]) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (linux, world) = runtime.block_on(async {
        let linux = Linux::new();
        let on_linux = cases.iter().map(|case| observe(&linux, case));
        let on_linux = futures::future::join_all(on_linux).await;
        let mut in_world = Vec::new();
        for case in cases {
            in_world.push(observe(&Virtual::new(), case).await);
        }
        (on_linux, in_world)
    });
    let mut differences = String::new();
    for ((case, linux), world) in cases.iter().zip(&linux).zip(&world) {
        let short = |seen: &Seen| {
            let mut seen = seen.clone();
            seen.stdout.truncate(200);
            seen.stderr.truncate(200);
            format!("{seen:?}")
        };
        if linux != world {
            let name = case.name;
            differences +=
                &format!("{name}:\n  linux {}\n  world {}\n", short(linux), short(world));
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

isolated! {
    fn ends_are_the_same() {
        compare(&cases::ends());
    }

    fn output_is_the_same() {
        compare(&cases::output());
    }

    fn stops_are_the_same() {
        compare(&cases::stops());
    }

    fn trees_are_the_same() {
        compare(&cases::trees());
    }

    fn hosts_and_shims_that_die_are_the_same() {
        compare(&cases::deaths());
    }
}
