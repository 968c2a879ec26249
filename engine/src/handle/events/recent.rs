//! What was read last of the changes, shared by all who follow them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use windlass_core::process_store::ChangeNumber;

use super::page::Chunk;
use crate::error::EngineError;
use crate::handle::Handle;

/// How many changes are kept for those who are a little slower.
const KEPT: usize = 16_384;

/// What was read last, without a hole.
#[derive(Default)]
struct Kept {
    chunks: VecDeque<Chunk>,
    /// Up to where it goes.
    last: ChangeNumber,
    changes: usize,
}

impl Kept {
    /// Finds the chunk that goes on after a number.
    fn after(&self, after: ChangeNumber) -> Option<Chunk> {
        let at = self.chunks.partition_point(|chunk| chunk.last() <= after);
        self.chunks.get(at).filter(|chunk| chunk.after() <= after).cloned()
    }

    fn push(&mut self, chunk: Chunk) {
        self.last = chunk.last();
        self.changes += chunk.size();
        self.chunks.push_back(chunk);
        while self.changes > KEPT
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.changes -= oldest.size();
        }
    }

    /// Goes on from a number that nobody has kept anything up to.
    fn skip_to(&mut self, last: ChangeNumber) {
        *self = Self { last, ..Self::default() };
    }
}

/// What was read last of the changes.
#[derive(Default)]
pub(in crate::handle) struct Recent {
    kept: Mutex<Kept>,
    /// Held by the one who reads, or waits for, what comes next.
    reading: futures::lock::Mutex<()>,
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing that panics is done under it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what comes after a number by now.
    pub(super) async fn by_now(
        &self,
        handle: &Handle,
        after: ChangeNumber,
    ) -> Result<Option<Chunk>, EngineError> {
        if let Some(chunk) = self.kept().after(after) {
            return Ok(Some(chunk));
        }
        Chunk::read(&handle.ports, after).await
    }

    /// Waits for what comes after a number.
    pub(super) async fn next(
        &self,
        handle: &Handle,
        after: ChangeNumber,
    ) -> Result<Chunk, EngineError> {
        loop {
            if after != self.kept().last {
                if let Some(chunk) = self.by_now(handle, after).await? {
                    return Ok(chunk);
                }
                let mut kept = self.kept();
                if kept.last < after {
                    kept.skip_to(after);
                }
            }
            // Whoever waited here finds what the one before has read.
            let _reading = self.reading.lock().await;
            if after != self.kept().last {
                continue;
            }
            match Chunk::read(&handle.ports, after).await? {
                Some(chunk) => {
                    let mut kept = self.kept();
                    if kept.last == after {
                        kept.push(chunk.clone());
                    }
                    return Ok(chunk);
                }
                None => handle.changed(after).await?,
            }
        }
    }
}
