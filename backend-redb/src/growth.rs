//! Wakes those who follow a log when it grows, ends or goes. It carries no content: whoever is woken reads.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::log_schema::LogId;

/// Who follows what.
#[derive(Debug, Default)]
pub(crate) struct Growth(Mutex<BTreeMap<LogId, watch::Sender<()>>>);

impl Growth {
    /// Begins to follow a log: what happens from here on wakes. Look at the log after this.
    pub(crate) fn follow(&self, log: LogId) -> watch::Receiver<()> {
        let mut followed = self.followed();
        // Who stopped to follow is forgotten when the next one begins.
        followed.retain(|_, followers| followers.receiver_count() > 0);
        followed.entry(log).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Wakes who follows a log.
    pub(crate) fn wake(&self, log: &LogId) {
        if let Some(followers) = self.followed().get(log) {
            followers.send_replace(());
        }
    }

    /// Wakes everybody, for there will be nothing more.
    pub(crate) fn end(&self) {
        self.followed().clear();
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<LogId, watch::Sender<()>>> {
        // Every state of the map is a valid one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_follows_is_woken_by_his_log_only_and_forgotten_when_he_stops() {
        let growth = Growth::default();
        let (one, other) = (growth.follow([1; 32]), growth.follow([2; 32]));
        growth.wake(&[1; 32]);
        let woken = |follower: &watch::Receiver<()>| follower.has_changed().unwrap();
        assert!(woken(&one) && !woken(&other));
        drop(one);
        let late = growth.follow([2; 32]);
        assert!(growth.followed().keys().eq([&[2; 32]]));
        growth.end();
        assert!(other.has_changed().is_err() && late.has_changed().is_err());
    }
}
