//! The driver: performs effects through the ports and feeds back what happened.
//!
//! It has no policy and no runtime: it owns the futures of the operations that are under way and is polled by whoever
//! calls [`Driver::event`]. Effects of one attempt are performed in order, and a [`Effect::Persist`] holds back those
//! behind it; attempts do not wait for each other.

mod history;
mod operations;
mod queues;

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream};

use crate::attachments::Attachments;
use crate::attempt::{Effect, Fact, Operation, Reply, RequestId, Slot};
use crate::container_service::ContainerService;
use crate::id::{AttemptId, ExecutionId, Nonce};
use crate::log_store::LogStore;
use crate::process_store::{ChangeNumber, Lease, ProcessStore, ProcessStoreError, Write};
use crate::secrets::Secrets;
use crate::time::Timestamp;
use crate::vcs_history::VcsHistory;
use crate::vcs_worktree::VcsWorktree;

pub use operations::{Fresh, perform};
pub use queues::Queues;

/// The ports that the driver works through.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Starts and watches process trees.
    pub containers: Arc<dyn ContainerService>,
    /// Keeps the records.
    pub store: Arc<dyn ProcessStore>,
    /// Keeps the logs.
    pub logs: Arc<dyn LogStore>,
    /// Makes and removes worktrees.
    pub worktrees: Arc<dyn VcsWorktree>,
    /// Does something with the commits of worktrees, where the host can.
    pub history: Option<Arc<dyn VcsHistory>>,
    /// Keeps attachments, where the host can.
    pub attachments: Option<Arc<dyn Attachments>>,
    /// Resolves secrets.
    pub secrets: Arc<dyn Secrets>,
}

/// Gives random bits and the time for new ids; seeded in the simulation.
pub trait IdSource: Send {
    /// Returns a new execution id.
    fn execution(&mut self) -> ExecutionId;
    /// Returns a new nonce.
    fn nonce(&mut self) -> Nonce;
}

/// What the host hears from the driver.
#[derive(Debug)]
pub enum Event {
    /// Something happened to an attempt.
    Fact {
        /// Which.
        attempt: AttemptId,
        /// What.
        fact: Fact,
    },
    /// A batch of an attempt is durable.
    Persisted {
        /// Which attempt.
        attempt: AttemptId,
        /// The batch's number.
        number: ChangeNumber,
        /// What was written.
        writes: Vec<Write>,
    },
    /// An attempt wants to be woken.
    WakeAt {
        /// Which.
        attempt: AttemptId,
        /// When.
        at: Timestamp,
    },
    /// A request is answered.
    Reply {
        /// Which.
        request: RequestId,
        /// With what.
        reply: Reply,
    },
    /// An attempt wants a slot.
    TakeSlot {
        /// Which.
        slot: Slot,
        /// Of which client.
        owner: Option<String>,
        /// It counts, whatever the limits say.
        adopted: bool,
        /// The attempt to tell.
        attempt: AttemptId,
    },
    /// A slot is free.
    ReleaseSlot(Slot),
    /// A message is to be written to the standard input of an execution.
    Feed {
        /// Whose execution it is.
        attempt: AttemptId,
        /// Which.
        execution: ExecutionId,
    },
    /// A batch was refused or is in doubt: the machines are ahead of the store and must be built again from it.
    Trouble {
        /// Whose batch.
        attempt: AttemptId,
        /// Why.
        error: ProcessStoreError,
    },
}

/// What a future of the driver ends with.
enum Done {
    Fact(AttemptId, Option<Fact>),
    Persisted(AttemptId, Vec<Write>, Result<ChangeNumber, ProcessStoreError>),
}

/// Performs effects.
pub struct Driver {
    ports: Ports,
    lease: Lease,
    ids: Box<dyn IdSource>,
    queues: Queues,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    ready: VecDeque<Event>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("lease", &self.lease)
            .field("under_way", &self.running.len())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// Makes a driver that writes under `lease`.
    #[must_use]
    pub fn new(ports: Ports, lease: Lease, ids: Box<dyn IdSource>) -> Self {
        Self {
            ports,
            lease,
            ids,
            queues: Queues::default(),
            running: FuturesUnordered::new(),
            ready: VecDeque::new(),
        }
    }

    /// Takes the effects of one step of an attempt's machine.
    pub fn submit(&mut self, attempt: AttemptId, effects: Vec<Effect>) {
        let due = self.queues.submit(attempt, effects);
        self.perform(attempt, due);
    }

    /// Says whether nothing is under way for an attempt but waiting for the ends of executions.
    #[must_use]
    pub fn is_quiet(&self, attempt: AttemptId) -> bool {
        self.queues.is_quiet(attempt)
    }

    /// Says whether no batch is under way or held back.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.queues.is_empty() && self.ready.is_empty()
    }

    fn perform(&mut self, attempt: AttemptId, due: Vec<Effect>) {
        for effect in due {
            match effect {
                Effect::Persist { writes } => self.persist(attempt, writes),
                Effect::Begin(operation) => self.begin(attempt, operation),
                Effect::WakeAt(at) => self.ready.push_back(Event::WakeAt { attempt, at }),
                Effect::Reply { request, reply } => {
                    self.ready.push_back(Event::Reply { request, reply });
                }
            }
        }
    }

    fn persist(&mut self, attempt: AttemptId, writes: Vec<Write>) {
        let store = Arc::clone(&self.ports.store);
        let lease = self.lease;
        self.running.push(Box::pin(async move {
            let result = store.commit(writes.clone(), lease).await;
            Done::Persisted(attempt, writes, result)
        }));
    }

    fn begin(&mut self, attempt: AttemptId, operation: Operation) {
        match operation {
            Operation::TakeSlot { slot, owner, adopted } => {
                self.ready.push_back(Event::TakeSlot { slot, owner, adopted, attempt });
            }
            Operation::ReleaseSlot(slot) => self.ready.push_back(Event::ReleaseSlot(slot)),
            Operation::Feed { execution } => {
                self.ready.push_back(Event::Feed { attempt, execution });
            }
            operation => {
                let fresh = Fresh {
                    nonce: self.ids.nonce(),
                    execution: self.ids.execution(),
                    epoch: self.lease.epoch,
                };
                let ports = self.ports.clone();
                self.running.push(Box::pin(async move {
                    Done::Fact(attempt, perform(&ports, attempt, operation, fresh).await)
                }));
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Fact(_, None) => {}
            Done::Fact(attempt, Some(fact)) => self.ready.push_back(Event::Fact { attempt, fact }),
            Done::Persisted(attempt, writes, result) => {
                match self.queues.committed(attempt, result) {
                    Ok((number, due)) => {
                        self.ready.push_back(Event::Persisted { attempt, number, writes });
                        self.perform(attempt, due);
                    }
                    Err(error) => self.ready.push_back(Event::Trouble { attempt, error }),
                }
            }
        }
    }

    /// Returns what happened next; pending while nothing does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future loses nothing: what is under way is owned by the driver. Dropping the driver drops
    /// the operations; what they did is found again by recovery.
    pub fn event(&mut self) -> impl Future<Output = Event> + Send + '_ {
        std::future::poll_fn(move |context| self.poll_next(context))
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(event);
            }
            match Pin::new(&mut self.running).poll_next(context) {
                Poll::Ready(Some(done)) => self.on_done(done),
                // Woken again by the next submission: the caller polls after each.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}
