//! Forwards standard input to an execution: keyed messages until its end, then a close.

use std::io::Read as _;
use std::time::Duration;

use tokio::sync::mpsc;
use windlass::api::client::{Client, ClientError};
use windlass::core::id::ExecutionId;
use windlass::core::locator::OsBytes;
use windlass::request::InputRequest;

use crate::context::random_uuid;
use crate::error::CliError;
use crate::signals::Asked;

/// How much is sent at once.
const CHUNK_BYTES: usize = 32 << 10;

/// How long to wait before sending again what a command that does not read left no room for: first, and at most.
const FULL_WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Reads standard input in a thread of its own, which ends with the process. Answers to questions are not forwarded.
#[must_use]
pub(crate) fn read(asked: Asked) -> mpsc::Receiver<Vec<u8>> {
    let (sender, chunks) = mpsc::channel(4);
    let _reader = std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match stdin.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // What cannot be read any more has ended.
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    let typed = &chunk[..length];
                    if !asked.take(typed) && sender.blocking_send(typed.to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    chunks
}

/// Sends what comes, in order, then closes the execution's standard input. Returns early when it takes no more.
///
/// # Errors
///
/// The host's.
pub(crate) async fn forward(
    client: Client,
    execution: ExecutionId,
    mut chunks: mpsc::Receiver<Vec<u8>>,
) -> Result<(), CliError> {
    while let Some(chunk) = chunks.recv().await {
        if !send(&client, execution, chunk, false).await? {
            return Ok(());
        }
    }
    send(&client, execution, Vec::new(), true).await.map(drop)
}

/// Sends one message; says whether the execution takes more.
async fn send(
    client: &Client,
    execution: ExecutionId,
    chunk: Vec<u8>,
    close: bool,
) -> Result<bool, CliError> {
    let request = InputRequest {
        execution,
        key: random_uuid()?,
        bytes: OsBytes(chunk),
        secret: false,
        close,
    };
    let (mut wait, longest) = FULL_WAIT;
    loop {
        match client.input(request.clone()).await {
            Ok(()) => return Ok(true),
            Err(ClientError::Api { view, .. }) if view.kind == "no_input" => return Ok(false),
            Err(ClientError::Api { view, .. }) if view.kind == "input_full" => {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
