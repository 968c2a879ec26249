//! Tells when the host has nothing to do: nothing unfinished, and no client, for some time.

use std::time::Duration;

use tokio::sync::watch;
use windlass::EngineError;
use windlass::core::process_store::ChangeNumber;
use windlass::core::record::AttemptStatus;
use windlass::handle::{Handle, ListFilter};
use windlass::request::Caller;

/// The states of an attempt in which something is still to be done with it.
const ACTIVE: [AttemptStatus; 5] = [
    AttemptStatus::Creating,
    AttemptStatus::Running,
    AttemptStatus::Committing,
    AttemptStatus::Parked,
    AttemptStatus::Removing,
];

/// Waits until there was nothing to do for `limit`.
///
/// Any change of the records and any client begins the time anew; only when it is over is looked whether something is
/// unfinished.
///
/// # Errors
///
/// The engine's, when it has ended.
pub async fn idle(
    handle: &Handle,
    clients: &mut watch::Receiver<usize>,
    limit: Duration,
) -> Result<(), EngineError> {
    let mut seen = ChangeNumber(0);
    loop {
        seen = latest(handle, seen).await?;
        if clients.wait_for(|&clients| clients == 0).await.is_err() {
            return Err(EngineError::Closing);
        }
        tokio::select! {
            biased;
            // An error says that the server is gone; then nobody comes any more.
            _ = clients.wait_for(|&clients| clients > 0) => continue,
            changed = handle.changed(seen) => {
                changed?;
                continue;
            }
            () = tokio::time::sleep(limit) => {}
        }
        if is_unfinished(handle).await? {
            // It ends with a change.
            handle.changed(seen).await?;
        } else {
            return Ok(());
        }
    }
}

/// Returns the number of the last change.
async fn latest(handle: &Handle, seen: ChangeNumber) -> Result<ChangeNumber, EngineError> {
    Ok(handle.changes(&Caller::default(), seen, 1).await?.last)
}

/// Says whether anything is unfinished.
async fn is_unfinished(handle: &Handle) -> Result<bool, EngineError> {
    let operator = Caller::default();
    let one = ListFilter { limit: Some(1), ..ListFilter::default() };
    if !handle.executions(&operator, one.clone()).await?.is_empty() {
        return Ok(true);
    }
    for status in ACTIVE {
        let filter =
            ListFilter { all: true, status: Some(status.as_str().to_owned()), ..one.clone() };
        if !handle.attempts(&operator, filter).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
