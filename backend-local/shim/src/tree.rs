//! Who is of the tree, and how to reach them: `/proc`, and pidfds.
//!
//! A process is opened, then verified, then signalled through what was opened, so that a number that changed hands in
//! between is never hit.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use windlass_core::execution::{Survivor, SurvivorReason};
use windlass_core::shim::journal::NAMED_SURVIVORS;

use crate::sys;

/// How often the tree is walked for processes that were made while it was being killed.
const PASSES: usize = 64;

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    name: String,
    state: u8,
    parent: u32,
    group: u32,
    /// Kernel ticks from the boot to its start.
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// Reads it; `None` if there is no such process.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
        // The line is shorter, and the kernel gives it in one piece.
        let mut line = [0; 1024];
        let len = file.read(&mut line).ok()?;
        Self::parse(line.get(..len)?)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        // The name may hold anything, parentheses and spaces included.
        let open = bytes.iter().position(|byte| *byte == b'(')?;
        let close = bytes.iter().rposition(|byte| *byte == b')')?;
        let name = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        Some(Self {
            name,
            state: *fields.next()?.as_bytes().first()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            // After group come sixteen fields that are of no use here.
            start_ticks: fields.nth(16)?.parse().ok()?,
        })
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The kernel's names of where we are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here {
    /// This boot.
    pub(crate) boot: [u8; 16],
    /// The inode of our pid namespace.
    pub(crate) pid_namespace: u64,
}

impl Here {
    /// Reads them, and makes sure that `/proc` shows our own pid namespace: numbers out of another would be those of
    /// strangers.
    pub(crate) fn read() -> io::Result<Self> {
        let shown = fs::read_link("/proc/self")?;
        if shown.to_str().and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
            return Err(io::Error::other("/proc is of another pid namespace"));
        }
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits = text.bytes().filter_map(|byte| char::from(byte).to_digit(16));
        let mut boot = [0; 16];
        let mut count = 0;
        for (place, digit) in digits.enumerate() {
            if let Some(byte) = boot.get_mut(place / 2) {
                *byte = *byte << 4 | u8::try_from(digit).unwrap_or(0);
            }
            count += 1;
        }
        if count != 32 {
            return Err(io::Error::other("the boot id is no UUID"));
        }
        let pid_namespace = fs::metadata("/proc/self/ns/pid")?.ino();
        Ok(Self { boot, pid_namespace })
    }
}

/// The tree below the shim.
#[derive(Debug)]
pub(crate) struct Tree {
    shim: u32,
    leader: u32,
}

impl Tree {
    /// The tree of a command.
    pub(crate) fn new(leader: u32) -> Self {
        Self { shim: std::process::id(), leader }
    }

    /// Reaps every child of ours that has exited, but the leader; returns whether any other lives.
    ///
    /// A process whose parent is gone is our child, so the tree is empty exactly if we have no living child.
    pub(crate) fn reap_strangers(&self) -> bool {
        loop {
            let mut reaped = false;
            let mut alive = false;
            for child in children(self.shim) {
                if child == self.leader {
                    continue;
                }
                if sys::reap(child) {
                    // It may have left children that became ours after we listed them.
                    reaped = true;
                } else {
                    alive = true;
                }
            }
            if alive || !reaped {
                return alive;
            }
        }
    }

    /// Signals every descendant that is not of the leader's group.
    pub(crate) fn signal_rest(&self, signal: libc::c_int) {
        for pid in self.descendants() {
            if let Some((pidfd, stat)) = self.open(pid)
                && stat.group != self.leader
            {
                // It may be out of reach or gone; KILL will tell.
                let _ = sys::signal_pidfd(pidfd.as_fd(), signal);
            }
        }
    }

    /// Kills the group and every descendant, until a walk finds no new one.
    pub(crate) fn kill(&self) {
        let _ = sys::signal_group(self.leader, libc::SIGKILL);
        let mut signalled = BTreeSet::new();
        for _ in 0..PASSES {
            let before = signalled.len();
            for pid in self.descendants() {
                if let Some((pidfd, stat)) = self.open(pid)
                    && signalled.insert((pid, stat.start_ticks))
                {
                    let _ = sys::signal_pidfd(pidfd.as_fd(), libc::SIGKILL);
                }
            }
            if signalled.len() == before {
                return;
            }
        }
    }

    /// Names what lives, and counts what is beyond the names.
    pub(crate) fn survivors(&self, reason: SurvivorReason) -> (Vec<Survivor>, u32) {
        let mut named = Vec::new();
        let mut more = 0;
        for pid in self.descendants() {
            let Some((pidfd, stat)) = self.open(pid) else { continue };
            if named.len() == NAMED_SURVIVORS {
                more += 1;
                continue;
            }
            let denied = sys::signal_pidfd(pidfd.as_fd(), 0)
                .is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
            let reason = match reason {
                SurvivorReason::Left => SurvivorReason::Left,
                SurvivorReason::NotPermitted | SurvivorReason::Unkillable if denied => {
                    SurvivorReason::NotPermitted
                }
                SurvivorReason::NotPermitted | SurvivorReason::Unkillable => reason,
            };
            named.push(Survivor { pid, name: stat.name, reason });
        }
        (named, more)
    }

    /// Opens a listed process and verifies that it lives and is still below us.
    fn open(&self, pid: u32) -> Option<(OwnedFd, Stat)> {
        let pidfd = sys::open_pidfd(pid).ok()?;
        let stat = Stat::read(pid)?;
        if stat.is_dead() || !self.is_below(&stat) {
            return None;
        }
        // Whoever held the number when we read of it holds it still, if what we opened lives.
        match sys::signal_pidfd(pidfd.as_fd(), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => None,
            Ok(()) | Err(_) => Some((pidfd, stat)),
        }
    }

    /// Follows the parents up to us.
    fn is_below(&self, stat: &Stat) -> bool {
        let mut parent = stat.parent;
        // No tree is deeper than the kernel has numbers; a chain that changes under us ends at 1 or 0.
        for _ in 0..1 << 16 {
            if parent == self.shim {
                return true;
            }
            if parent <= 1 {
                return false;
            }
            match Stat::read(parent) {
                Some(above) => parent = above.parent,
                None => return false,
            }
        }
        false
    }

    /// Lists everything below us, dead or alive.
    fn descendants(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = vec![self.shim];
        while let Some(pid) = next.pop() {
            for child in children(pid) {
                if seen.insert(child) {
                    found.push(child);
                    next.push(child);
                }
            }
        }
        found
    }
}

/// Lists the children of a process, of all its threads.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(parse_pid)),
            // A kernel may be built without the file; else the thread has ended meanwhile.
            Err(_) if !fs::exists("/proc/thread-self/children").unwrap_or(false) => {
                return children_by_parent(pid);
            }
            Err(_) => {}
        }
    }
    found
}

fn parse_pid(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// Lists the children of a process where the kernel has no list of them.
fn children_by_parent(pid: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|child| Stat::read(*child).is_some_and(|stat| stat.parent == pid))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"42 (a) b (c)) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat.name, "a) b (c)");
        assert_eq!((stat.state, stat.parent, stat.group, stat.start_ticks), (b'S', 7, 42, 12345));
        assert_eq!(Stat::parse(b"42 (x) S 7"), None);
    }

    #[test]
    fn we_know_where_we_are_and_who_we_are() {
        let here = Here::read().unwrap();
        assert_ne!(here.boot, [0; 16]);
        let own = Stat::read(std::process::id()).unwrap();
        assert!(own.start_ticks > 0 && !own.is_dead());
    }
}
