//! [`Executor`]: tasks and timers on one thread, in the time of a world, in an order that a seed decides.
//!
//! Tasks belong to groups, which can be killed: their futures are dropped wherever they wait.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;
use windlass_core::time::Timestamp;
use windlass_fakes::World;

/// Names a group of tasks that live and die together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u32);

/// The tasks that no host's death touches.
pub const OUTSIDE: Group = Group(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TaskId(u64);

/// Puts a task into the line when it is woken.
#[derive(Debug)]
struct Awake {
    task: TaskId,
    line: Arc<Mutex<VecDeque<TaskId>>>,
}

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut line = lock(&self.line);
        // The line is short: it holds what became ready since the last turn.
        if !line.contains(&self.task) {
            line.push_back(self.task);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Task {
    group: Group,
    future: BoxFuture<'static, ()>,
    waker: Waker,
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<TaskId, Task>,
    timers: BTreeMap<(Timestamp, u64), Waker>,
    last: u64,
    /// The task that is being polled, and whether its group was killed meanwhile.
    current: Option<(Group, bool)>,
}

/// Runs tasks.
pub struct Executor {
    world: World,
    inner: Mutex<Inner>,
    line: Arc<Mutex<VecDeque<TaskId>>>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("tasks", &lock(&self.inner).tasks.len()).finish()
    }
}

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A task of this group was polled.
    Polled(Group),
    /// Time moved to the next timer.
    Moved,
    /// Nothing is ready and nothing ever will be.
    Idle,
}

impl Executor {
    /// Makes one that moves the time of a world.
    #[must_use]
    pub fn new(world: World) -> Arc<Self> {
        let line = Arc::new(Mutex::new(VecDeque::new()));
        Arc::new(Self { world, inner: Mutex::new(Inner::default()), line })
    }

    /// Adds a task.
    pub fn spawn(&self, group: Group, future: BoxFuture<'static, ()>) {
        let mut inner = lock(&self.inner);
        inner.last += 1;
        let id = TaskId(inner.last);
        let waker = Waker::from(Arc::new(Awake { task: id, line: Arc::clone(&self.line) }));
        inner.tasks.insert(id, Task { group, future, waker });
        drop(inner);
        lock(&self.line).push_back(id);
    }

    /// Drops every task of a group; the one that is being polled as soon as it returns.
    pub fn kill(&self, group: Group) {
        let mut inner = lock(&self.inner);
        if let Some((running, killed)) = &mut inner.current
            && *running == group
        {
            *killed = true;
        }
        let dead: Vec<_> = inner.tasks.extract_if(.., |_, task| task.group == group).collect();
        drop(inner);
        // What they hold may wake others.
        drop(dead);
    }

    /// Drops every task: what they hold holds the executor.
    pub fn clear(&self) {
        loop {
            let tasks = std::mem::take(&mut lock(&self.inner).tasks);
            if tasks.is_empty() {
                return;
            }
            drop(tasks);
        }
    }

    /// Returns a future that resolves at a time.
    #[must_use]
    pub fn time_reached(self: &Arc<Self>, at: Timestamp) -> Sleep {
        Sleep { executor: Arc::clone(self), at, armed: None }
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.world.now()
    }

    /// Polls the next task, as `late` says: it is asked for each task that is ready whether it waits behind the others. If
    /// none is ready, moves time to whatever is due first, up to `limit`.
    pub fn turn(&self, limit: Timestamp, mut late: impl FnMut(Group) -> bool) -> Turn {
        while let Some(id) = self.next(&mut late) {
            let mut inner = lock(&self.inner);
            // It may have ended, or been killed.
            let Some(mut task) = inner.tasks.remove(&id) else { continue };
            inner.current = Some((task.group, false));
            drop(inner);
            let polled = task.future.as_mut().poll(&mut Context::from_waker(&task.waker));
            let mut inner = lock(&self.inner);
            let killed = inner.current.take().is_some_and(|(_, killed)| killed);
            let group = task.group;
            if polled.is_pending() && !killed {
                inner.tasks.insert(id, task);
            } else {
                drop(inner);
                drop(task);
            }
            return Turn::Polled(group);
        }
        self.advance(limit)
    }

    fn next(&self, late: &mut impl FnMut(Group) -> bool) -> Option<TaskId> {
        let mut line = lock(&self.line);
        let first = line.pop_front()?;
        if line.is_empty() {
            return Some(first);
        }
        let group = lock(&self.inner).tasks.get(&first).map(|task| task.group);
        match group {
            Some(group) if late(group) => {
                line.push_back(first);
                line.pop_front()
            }
            Some(_) | None => Some(first),
        }
    }

    fn advance(&self, limit: Timestamp) -> Turn {
        let timer = lock(&self.inner).timers.first_key_value().map(|((at, _), _)| *at);
        let due = [timer, self.world.next_timer()].into_iter().flatten().min();
        let Some(due) = due.filter(|due| *due <= limit) else { return Turn::Idle };
        let now = self.world.now().max(due);
        self.world.set_now(now);
        let mut inner = lock(&self.inner);
        let later = inner.timers.split_off(&(Timestamp(now.0 + 1), 0));
        let fired = std::mem::replace(&mut inner.timers, later);
        drop(inner);
        fired.into_values().for_each(Waker::wake);
        Turn::Moved
    }
}

/// Resolves at a time.
#[derive(Debug)]
pub struct Sleep {
    executor: Arc<Executor>,
    at: Timestamp,
    armed: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.now() >= self.at {
            return Poll::Ready(());
        }
        let at = self.at;
        let mut inner = lock(&self.executor.inner);
        let number = match self.armed {
            Some(number) => number,
            None => {
                inner.last += 1;
                inner.last
            }
        };
        inner.timers.insert((at, number), context.waker().clone());
        drop(inner);
        self.armed = Some(number);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.armed {
            lock(&self.executor.inner).timers.remove(&(self.at, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_fakes::Time;

    use super::*;

    fn run(executor: &Executor) {
        while executor.turn(Timestamp(u64::MAX), |_| false) != Turn::Idle {}
    }

    #[test]
    fn time_moves_when_nothing_is_ready() {
        let executor = Executor::new(World::new(Timestamp(1_000), Time::Stands));
        let log = Arc::new(Mutex::new(Vec::new()));
        for (name, after) in [("late", 500), ("early", 20)] {
            let (log, at) = (Arc::clone(&log), Timestamp(1_000 + after));
            let sleep = executor.time_reached(at);
            let clock = Arc::clone(&executor);
            let task = async move {
                sleep.await;
                lock(&log).push((name, clock.now().0));
            };
            executor.spawn(OUTSIDE, Box::pin(task));
        }
        run(&executor);
        assert_eq!(*lock(&log), [("early", 1_020), ("late", 1_500)]);
    }

    #[test]
    fn a_killed_group_does_nothing_more() {
        let executor = Executor::new(World::new(Timestamp(0), Time::Stands));
        let done = Arc::new(Mutex::new(Vec::new()));
        for group in [Group(1), Group(2)] {
            let (done, sleep) = (Arc::clone(&done), executor.time_reached(Timestamp(10)));
            let task = async move {
                sleep.await;
                lock(&done).push(group);
            };
            executor.spawn(group, Box::pin(task));
        }
        assert_eq!(executor.turn(Timestamp(5), |_| false), Turn::Polled(Group(1)));
        executor.kill(Group(1));
        run(&executor);
        assert_eq!(*lock(&done), [Group(2)]);
        assert!(lock(&executor.inner).timers.is_empty(), "a dropped sleep leaves its timer");
    }
}
