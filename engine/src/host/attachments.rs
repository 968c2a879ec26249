//! Files that are handed over with requests: kept before anything is recorded. What no record speaks of goes at the next start.

use windlass_core::attachments::{Attachment, Attachments, AttachmentsError, name_for};
use windlass_core::driver::Ports;
use windlass_core::id::AttemptId;
use windlass_core::process_store::{Kind, RecordKey};
use windlass_core::workspace::Workspace;

use super::Host;
use crate::config::AttachmentLimits;
use crate::error::{EngineError, RefusalCode};
use crate::request::AttachRequest;
use crate::runtime::Runtime;

/// Keeps files for an attempt that has others already; returns them as they are to be recorded.
pub(super) async fn keep(
    ports: &Ports,
    limits: AttachmentLimits,
    attempt: AttemptId,
    workspace: &Workspace,
    wanted: &[AttachRequest],
    there: &[Attachment],
) -> Result<Vec<Attachment>, EngineError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let refuse = |reason: String| EngineError::refused(RefusalCode::CannotAttach, reason);
    let Some(port) = &ports.attachments else {
        return Err(refuse("this engine keeps no attachments".to_owned()));
    };
    if workspace.worktree().is_none() {
        return Err(refuse("nothing is put into a directory of yours: name the files".to_owned()));
    }
    let kept = keep_all(&**port, limits, attempt, wanted, there).await;
    if kept.is_err() && there.is_empty() {
        // What is left of it all the same goes at the next start.
        let _left = port.forget(attempt).await;
    }
    kept
}

async fn keep_all(
    port: &dyn Attachments,
    limits: AttachmentLimits,
    attempt: AttemptId,
    wanted: &[AttachRequest],
    there: &[Attachment],
) -> Result<Vec<Attachment>, EngineError> {
    let mut all = there.to_vec();
    for AttachRequest { file, called } in wanted {
        let sum: u64 = all.iter().map(|it| it.bytes).sum();
        let left = limits.attempt_bytes.saturating_sub(sum);
        let kept = match port.keep(attempt, file, limits.file_bytes.min(left)).await {
            Err(AttachmentsError::TooLarge { limit_bytes, .. })
                if limit_bytes < limits.file_bytes =>
            {
                let limit = limits.attempt_bytes;
                let reason = format!("the attachments of an attempt have at most {limit} bytes");
                return Err(EngineError::refused(RefusalCode::CannotAttach, reason));
            }
            kept => kept.map_err(told)?,
        };
        let name = name_for(called, &all);
        let (called, sha256, bytes) = (called.clone(), kept.sha256, kept.bytes);
        all.push(Attachment { name, called, sha256, bytes });
    }
    Ok(all.split_off(there.len()))
}

fn told(error: AttachmentsError) -> EngineError {
    match error {
        AttachmentsError::Backend(error) => error.into(),
        AttachmentsError::Full => EngineError::refused(RefusalCode::Full, error.to_string()),
        AttachmentsError::Unfit { .. }
        | AttachmentsError::TooLarge { .. }
        | AttachmentsError::InTheWay { .. } => {
            EngineError::refused(RefusalCode::CannotAttach, error.to_string())
        }
    }
}

/// Lists the attempts for which anything is kept: before anybody can ask for anything.
pub(super) async fn kept(ports: &Ports) -> Vec<AttemptId> {
    match &ports.attachments {
        // What cannot be listed now is listed at the next start.
        Some(port) => port.attempts().await.unwrap_or_default(),
        None => Vec::new(),
    }
}

impl<R: Runtime> Host<R> {
    /// Removes in the background what was kept for requests that led to no record, of these attempts.
    pub(super) fn sweep_attachments(&self, attempts: Vec<AttemptId>) {
        let ports = self.parts.ports.clone();
        self.parts.runtime.spawn(Box::pin(async move {
            let Some(port) = &ports.attachments else { return };
            for attempt in attempts {
                let key = RecordKey { kind: Kind::Attempt, id: attempt.0 };
                // What cannot be read is never taken for an orphan.
                if matches!(ports.store.get(key).await, Ok(None)) {
                    let _kept = port.forget(attempt).await;
                }
            }
        }));
    }
}
