//! The suite of [`Input`].
#![expect(clippy::panic, reason = "a case that fails panics")]

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;
use windlass_core::container_service::{
    ContainerService, LaunchSpec, Launched, Place, StopCause, StopRequest,
};
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::input::{Input, InputError, InputMessage};
use windlass_core::outcome::{Outcome, StoppedBy};

use crate::script::{Script, fresh_execution, fresh_nonce};

/// The two ports of one service.
#[derive(Clone, Debug)]
pub struct Ports {
    /// What runs executions.
    pub containers: Arc<dyn ContainerService>,
    /// What feeds them.
    pub input: Arc<dyn Input>,
}

/// Where a service that takes input keeps its evidence.
#[async_trait]
pub trait InputPlace: Default + Send + Sync {
    /// Opens the service. Opening again, after what was opened is dropped, is a restart.
    async fn open(&self) -> Ports;

    /// Says how to run a script, as
    /// [`ContainerServicePlace::spec`](crate::container_service::ContainerServicePlace::spec) does.
    fn spec(&self, script: &Script, execution: ExecutionId) -> LaunchSpec;

    /// Waits until the log has this many bytes of output at least, or is at its end, and returns the bytes of output in
    /// order, gaps and input left out.
    async fn output(&self, execution: ExecutionId, place: &Place, at_least: usize) -> Vec<u8>;

    /// Returns what the log has of standard input: the bytes of each entry, and the length that it stands for.
    async fn logged_input(&self, execution: ExecutionId, place: &Place) -> Vec<(Vec<u8>, u64)>;
}

/// Expands the suite over places: `input_suite! { local => Local }`.
#[macro_export]
macro_rules! input_suite {
    ($($places:tt)*) => {
        $crate::expand!(input { $($places)* } [
            messages_arrive_in_order_and_in_the_log,
            a_message_that_was_sent_again_is_written_once,
            a_message_that_is_not_next_is_refused,
            a_secret_arrives_and_is_logged_as_its_length,
            the_last_message_closes_the_stream,
            nothing_is_taken_where_there_is_no_stream,
            nothing_is_taken_after_the_end,
            keys_are_known_after_a_restart,
            an_older_epoch_is_superseded,
            too_much_that_waits_is_refused,
        ]);
    };
}

const EPOCH: Epoch = Epoch(1);
const READY: usize = "ready".len();

/// One running script and what it is reached by.
struct Running<'a, P> {
    place: &'a P,
    ports: Ports,
    execution: ExecutionId,
    at: Place,
}

impl<'a, P: InputPlace> Running<'a, P> {
    /// Launches a script, and waits until it reads if it says so.
    async fn new(place: &'a P, script: &Script) -> Self {
        let ports = place.open().await;
        let execution = fresh_execution();
        let at = ports.containers.prepare(execution, fresh_nonce()).await.expect("room");
        let spec = place.spec(script, execution);
        let launched = ports.containers.launch(&at, spec, EPOCH).await.expect("a launch");
        assert!(matches!(launched, Launched::Running(_)), "{launched:?}");
        let running = Self { place, ports, execution, at };
        running.output(READY).await;
        running
    }

    /// Drops the service, opens another one and adopts.
    async fn restarted(self) -> Self {
        let Self { place, ports, execution, at } = self;
        drop(ports);
        let ports = place.open().await;
        ports.containers.adopt(execution, &at, EPOCH).await.expect("an adoption");
        Self { place, ports, execution, at }
    }

    async fn send(&self, message: InputMessage) -> Result<(), InputError> {
        self.ports.input.send(self.execution, &self.at, message, EPOCH).await
    }

    async fn output(&self, at_least: usize) -> Vec<u8> {
        self.place.output(self.execution, &self.at, at_least).await
    }

    async fn logged(&self) -> Vec<(Vec<u8>, u64)> {
        self.place.logged_input(self.execution, &self.at).await
    }

    async fn outcome(&self) -> Outcome {
        let exited = self.ports.containers.exited(self.execution, &self.at).await;
        exited.expect("an exit").outcome
    }

    async fn stop(&self) {
        let cause = StopCause::Stop { by: StoppedBy::User };
        let request = StopRequest { cause, grace: std::time::Duration::ZERO, epoch: EPOCH };
        self.ports.containers.stop(self.execution, &self.at, request).await.expect("a stop");
        assert_eq!(self.outcome().await, Outcome::Stopped { by: StoppedBy::User });
    }
}

fn message(position: u64, text: &str) -> InputMessage {
    InputMessage {
        key: Uuid::from_u128(u128::from(position) + 1),
        position,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        secret: false,
        close: false,
    }
}

fn last(position: u64) -> InputMessage {
    InputMessage { close: true, ..message(position, "") }
}

/// Written once each.
pub async fn messages_arrive_in_order_and_in_the_log(place: impl InputPlace) {
    let run = Running::new(&place, &Script::EchoStdin).await;
    for (position, text) in [(0, "one\n"), (1, "two\n"), (2, "three\n")] {
        run.send(message(position, text)).await.expect("taken");
    }
    run.send(last(3)).await.expect("taken");
    assert_eq!(run.outcome().await, Outcome::Exited { code: 0 });
    assert_eq!(run.output(usize::MAX).await, b"readyone\ntwo\nthree\n");
    let logged: Vec<u8> = run.logged().await.into_iter().flat_map(|(bytes, _)| bytes).collect();
    assert_eq!(logged, b"one\ntwo\nthree\n");
}

/// Whoever does not know whether it was taken sends it again.
pub async fn a_message_that_was_sent_again_is_written_once(place: impl InputPlace) {
    let run = Running::new(&place, &Script::EchoStdin).await;
    for _ in 0..3 {
        run.send(message(0, "once")).await.expect("taken");
    }
    run.send(message(1, " and next")).await.expect("taken");
    run.send(message(0, "once")).await.expect("taken before");
    run.send(last(2)).await.expect("taken");
    assert_eq!(run.outcome().await, Outcome::Exited { code: 0 });
    assert_eq!(run.output(usize::MAX).await, b"readyonce and next");
}

/// A second host cannot slip another message in.
pub async fn a_message_that_is_not_next_is_refused(place: impl InputPlace) {
    let run = Running::new(&place, &Script::EchoStdin).await;
    run.send(message(0, "a")).await.expect("taken");
    for position in [0, 2, 7] {
        let other = InputMessage { key: Uuid::from_u128(99), ..message(position, "x") };
        let refused = run.send(other).await;
        assert!(
            matches!(refused, Err(InputError::NotNext { position: at, next: 1 }) if at == position),
            "{refused:?}"
        );
    }
    run.send(last(1)).await.expect("taken");
    assert_eq!(run.outcome().await, Outcome::Exited { code: 0 });
    assert_eq!(run.output(usize::MAX).await, b"readya");
}

/// The command is to know it, the log is not.
pub async fn a_secret_arrives_and_is_logged_as_its_length(place: impl InputPlace) {
    let run = Running::new(&place, &Script::EchoStdin).await;
    let secret = InputMessage { secret: true, ..message(0, "hunter2") };
    run.send(secret).await.expect("taken");
    run.send(last(1)).await.expect("taken");
    assert_eq!(run.outcome().await, Outcome::Exited { code: 0 });
    assert_eq!(run.output(usize::MAX).await, b"readyhunter2");
    let logged = run.logged().await;
    assert!(logged.iter().all(|(bytes, _)| bytes.is_empty()), "{logged:?}");
    assert_eq!(logged.iter().map(|(_, len)| len).sum::<u64>(), 7);
}

/// And nothing is taken after it.
pub async fn the_last_message_closes_the_stream(place: impl InputPlace) {
    let run = Running::new(&place, &Script::IgnoreStdin).await;
    run.send(InputMessage { close: true, ..message(0, "bye") }).await.expect("taken");
    run.send(InputMessage { close: true, ..message(0, "bye") }).await.expect("taken before");
    let refused = run.send(message(1, "too late")).await;
    assert!(matches!(refused, Err(InputError::Closed { .. })), "{refused:?}");
    run.stop().await;
}

/// Null is null.
pub async fn nothing_is_taken_where_there_is_no_stream(place: impl InputPlace) {
    let run = Running::new(&place, &Script::Forever).await;
    let refused = run.send(message(0, "x")).await;
    assert!(matches!(refused, Err(InputError::Closed { .. })), "{refused:?}");
    run.stop().await;
}

/// Nobody would read it.
pub async fn nothing_is_taken_after_the_end(place: impl InputPlace) {
    let run = Running::new(&place, &Script::EchoStdin).await;
    run.send(last(0)).await.expect("taken");
    run.ports.containers.finished(run.execution, &run.at).await.expect("an end");
    let refused = run.send(message(1, "x")).await;
    assert!(matches!(refused, Err(InputError::Closed { .. })), "{refused:?}");
}

/// The supervisor keeps them, not the host.
pub async fn keys_are_known_after_a_restart(place: impl InputPlace) {
    let run = Running::new(&place, &Script::EchoStdin).await;
    run.send(message(0, "before")).await.expect("taken");
    let run = run.restarted().await;
    run.send(message(0, "before")).await.expect("taken before");
    run.send(message(1, " and after")).await.expect("taken");
    run.send(last(2)).await.expect("taken");
    assert_eq!(run.outcome().await, Outcome::Exited { code: 0 });
    assert_eq!(run.output(usize::MAX).await, b"readybefore and after");
}

/// It has no say.
pub async fn an_older_epoch_is_superseded(place: impl InputPlace) {
    let old = Running::new(&place, &Script::IgnoreStdin).await;
    let new = place.open().await;
    let (execution, at) = (old.execution, &old.at);
    new.containers.adopt(execution, at, Epoch(2)).await.expect("an adoption");
    let refused = old.send(message(0, "x")).await;
    assert!(matches!(refused, Err(InputError::Superseded { held: EPOCH })), "{refused:?}");
    new.input.send(execution, at, message(0, "x"), Epoch(2)).await.expect("taken");
    let cause = StopCause::Stop { by: StoppedBy::User };
    let request = StopRequest { cause, grace: std::time::Duration::ZERO, epoch: Epoch(2) };
    new.containers.stop(execution, at, request).await.expect("a stop");
    new.containers.finished(execution, at).await.expect("an end");
}

/// Memory is bounded, and what was taken before stays taken.
pub async fn too_much_that_waits_is_refused(place: impl InputPlace) {
    let run = Running::new(&place, &Script::IgnoreStdin).await;
    let text = "x".repeat(256 << 10);
    // The limit is at least this, and a pipe may hold some in addition.
    let mut refusals = 0;
    for position in 0..64 {
        match run.send(message(position, &text)).await {
            Ok(()) => {}
            Err(InputError::Full { limit_bytes }) => {
                assert!(position > 0 && limit_bytes > 0);
                refusals += 1;
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(refusals, 1, "16 MiB were taken");
    run.stop().await;
}
