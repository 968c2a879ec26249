//! What was read last of the changes, shared by all who follow them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::channel::oneshot;
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
    /// Somebody reads, or waits for, what comes next.
    is_read: bool,
    /// Those who wait for him.
    waiting: Vec<oneshot::Sender<()>>,
    /// At how many those who went away are looked for.
    waiting_at_most: usize,
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
        self.wake();
    }

    /// Goes on from a number that nobody has kept anything up to.
    fn skip_to(&mut self, last: ChangeNumber) {
        self.chunks.clear();
        (self.last, self.changes) = (last, 0);
        self.wake();
    }

    fn wake(&mut self) {
        for waiting in self.waiting.drain(..) {
            let _gone = waiting.send(());
        }
    }

    fn wait(&mut self) -> oneshot::Receiver<()> {
        // The cost of forgetting those who went away is spread over as many new ones.
        if self.waiting.len() >= self.waiting_at_most {
            self.waiting.retain(|waiting| !waiting.is_canceled());
            self.waiting_at_most = 64.max(2 * self.waiting.len());
        }
        let (waiting, woken) = oneshot::channel();
        self.waiting.push(waiting);
        woken
    }
}

/// What was read last of the changes.
#[derive(Default)]
pub(in crate::handle) struct Recent(Mutex<Kept>);

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

/// What somebody who comes for more finds.
enum Turn<'a> {
    /// It was read before.
    Kept(Chunk),
    /// He reads it himself, for others too.
    Reads(Reading<'a>),
    /// He reads it himself, for nobody else.
    ReadsAlone,
    /// Somebody else reads it.
    Waits(oneshot::Receiver<()>),
}

/// Reading for others; whoever stops leaves it to one of them.
struct Reading<'a>(&'a Recent);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut kept = self.0.kept();
        kept.is_read = false;
        kept.wake();
    }
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing that panics is done under it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what comes after a number by now.
    pub(super) async fn by_now(
        &self,
        handle: &Handle,
        after: ChangeNumber,
    ) -> Result<Option<Chunk>, EngineError> {
        let kept = self.kept().after(after);
        match kept {
            Some(chunk) => Ok(Some(chunk)),
            None => Chunk::read(&handle.ports, after).await,
        }
    }

    /// Waits for what comes after a number.
    pub(super) async fn next(
        &self,
        handle: &Handle,
        after: ChangeNumber,
    ) -> Result<Chunk, EngineError> {
        loop {
            match self.turn(after) {
                Turn::Kept(chunk) => return Ok(chunk),
                Turn::Reads(_reading) => return self.read(handle, after).await,
                Turn::ReadsAlone => {
                    if let Some(chunk) = Chunk::read(&handle.ports, after).await? {
                        return Ok(chunk);
                    }
                    let mut kept = self.kept();
                    if kept.last < after {
                        kept.skip_to(after);
                    }
                }
                // Also when the one who read has left.
                Turn::Waits(woken) => drop(woken.await),
            }
        }
    }

    fn turn(&self, after: ChangeNumber) -> Turn<'_> {
        let mut kept = self.kept();
        if let Some(chunk) = kept.after(after) {
            Turn::Kept(chunk)
        } else if kept.last != after {
            Turn::ReadsAlone
        } else if kept.is_read {
            Turn::Waits(kept.wait())
        } else {
            kept.is_read = true;
            Turn::Reads(Reading(self))
        }
    }

    /// Reads what comes after what is kept, for all.
    async fn read(&self, handle: &Handle, after: ChangeNumber) -> Result<Chunk, EngineError> {
        loop {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(kept: &Kept, after: u64) -> Option<(u64, u64)> {
        let chunk = kept.after(ChangeNumber(after))?;
        Some((chunk.after().0, chunk.last().0))
    }

    #[test]
    fn what_is_kept_has_no_hole_and_an_end() {
        let mut kept = Kept::default();
        kept.push(Chunk::untold(0, 5, KEPT / 2));
        kept.push(Chunk::untold(5, 9, KEPT / 2));
        assert_eq!(numbers(&kept, 0), Some((0, 5)));
        assert_eq!(numbers(&kept, 4), Some((0, 5)));
        assert_eq!(numbers(&kept, 5), Some((5, 9)));
        assert_eq!(numbers(&kept, 9), None);
        kept.push(Chunk::untold(9, 10, 1));
        assert_eq!(numbers(&kept, 4), None, "it reads the store by itself");
        assert_eq!((numbers(&kept, 5), kept.changes), (Some((5, 9)), KEPT / 2 + 1));
        kept.skip_to(ChangeNumber(20));
        assert_eq!((numbers(&kept, 9), kept.last, kept.changes), (None, ChangeNumber(20), 0));
        // A batch is kept, however large: those who come next want it.
        kept.push(Chunk::untold(20, 21, 2 * KEPT));
        assert_eq!(kept.last, ChangeNumber(21));
        assert_eq!(kept.changes, 0);
    }
}
