//! Ends what an execution left behind when its shim is dead.
//!
//! A process is taken for a member because it is the recorded command, because it carries the execution's mark in its
//! environment, because it descends from a member, or because it shares a member's process group and session. Every one
//! is opened and verified before it is signalled.
//!
//! Without a cgroup, a descendant that left the group and cleared its environment is not found; nobody can tell it from
//! a stranger.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use tokio::time::Instant;
use windlass_core::execution::{Survivor, SurvivorReason};
use windlass_core::id::ExecutionId;
use windlass_core::shim::adoption::Sweep;

use crate::identity::{Found, Pidfd, ProcessIdentity, Stat, StatRead};
use crate::kernel::{group_lives, register};

/// The variable that marks every process of an execution.
pub(crate) const MARK: &str = "WINDLASS_EXECUTION_ID";

/// How long a killed process may take to be gone before it is named a survivor.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How many looks that find nothing are not believed yet: a process in the midst of an exec has no environment.
const EMPTY_LOOKS: u32 = 2;

/// The most survivors that are named; the rest is counted.
const NAMED_SURVIVORS: usize = 16;

/// Whose remains are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The execution, by which its processes are marked.
    pub(crate) execution: ExecutionId,
    /// How far the sweep may reach.
    pub(crate) scope: Sweep,
    /// The recorded command.
    pub(crate) command: Option<ProcessIdentity>,
    /// A handle to the command from when it lived: it tells whether the group that it led still has members.
    pub(crate) leader: Option<Arc<Pidfd>>,
}

/// What a sweep could not end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survivors {
    /// By name, at most 16.
    pub(crate) named: Vec<Survivor>,
    /// How many more.
    pub(crate) more: u32,
    /// Whether there was anything to end.
    pub(crate) found_any: bool,
}

/// One verified process of the execution.
#[derive(Debug)]
struct Member {
    stat: Stat,
    fd: Pidfd,
}

/// Ends everything that is found: TERM first if there is a grace, then KILL until nothing more is found.
///
/// # Cancel safety
///
/// May be dropped and called again.
pub(crate) async fn end_tree(target: Target, grace: Duration) -> Survivors {
    if target.scope == Sweep::Nothing {
        return Survivors::default();
    }
    let mut found_any = false;
    if !grace.is_zero() {
        let members = find(&target).await;
        let deadline = Instant::now() + grace;
        let asked = signal_all(members, Signal::TERM).reached;
        found_any = !asked.is_empty();
        wait_all(asked, deadline).await;
    }
    let mut survivors = kill_all(&target).await;
    survivors.found_any |= found_any;
    survivors
}

/// Kills until nothing more is found, or what is left does not die.
async fn kill_all(target: &Target) -> Survivors {
    let deadline = Instant::now() + KILL_PATIENCE;
    let mut left: BTreeMap<(u32, u64), Survivor> = BTreeMap::new();
    let mut found_any = false;
    let mut empty_looks = 0;
    loop {
        let mut members = find(target).await;
        members.retain(|member| !left.contains_key(&(member.stat.pid, member.stat.start_ticks)));
        if members.is_empty() && empty_looks < EMPTY_LOOKS {
            empty_looks += 1;
            continue;
        }
        if members.is_empty() || (Instant::now() >= deadline && left.len() > NAMED_SURVIVORS) {
            break;
        }
        (found_any, empty_looks) = (true, 0);
        let signalled = signal_all(members, Signal::KILL);
        let unkillable = wait_all(signalled.reached, deadline).await;
        for (stats, reason) in [
            (unkillable, SurvivorReason::Unkillable),
            (signalled.out_of_reach, SurvivorReason::NotPermitted),
        ] {
            for stat in stats {
                let key = (stat.pid, stat.start_ticks);
                left.insert(key, Survivor { pid: stat.pid, name: stat.name, reason });
            }
        }
    }
    let more = left.len().saturating_sub(NAMED_SURVIVORS);
    Survivors {
        named: left.into_values().take(NAMED_SURVIVORS).collect(),
        more: u32::try_from(more).unwrap_or(u32::MAX),
        found_any,
    }
}

/// What became of signals.
struct Signalled {
    /// These got it.
    reached: Vec<Member>,
    /// These we may not signal.
    out_of_reach: Vec<Stat>,
}

fn signal_all(members: Vec<Member>, signal: Signal) -> Signalled {
    let mut result = Signalled { reached: Vec::new(), out_of_reach: Vec::new() };
    for member in members {
        match member.fd.signal(signal) {
            Ok(()) => result.reached.push(member),
            Err(Errno::SRCH) => {}
            Err(_) => result.out_of_reach.push(member.stat),
        }
    }
    result
}

/// Waits until all are gone or the time is up; returns who is not.
async fn wait_all(members: Vec<Member>, deadline: Instant) -> Vec<Stat> {
    let mut left = Vec::new();
    for Member { stat, fd } in members {
        let gone = tokio::time::timeout_at(deadline, gone(fd.into_fd())).await;
        if !matches!(gone, Ok(Ok(()))) {
            left.push(stat);
        }
    }
    left
}

/// Waits until the process behind a pidfd has ended.
///
/// # Errors
///
/// When the descriptor cannot be waited for.
pub(crate) async fn gone(fd: OwnedFd) -> std::io::Result<()> {
    let fd = register(fd)?;
    fd.readable().await.map(|_| ())
}

/// Finds the members that live, off the async threads.
async fn find(target: &Target) -> Vec<Member> {
    let target = target.clone();
    tokio::task::spawn_blocking(move || find_now(&target)).await.unwrap_or_default()
}

/// Names the processes of an execution that runs: its command, what carries its mark, and their kin. To look at, not to
/// signal: nothing is verified.
pub(crate) fn tree_of(execution: ExecutionId, command: u32) -> BTreeSet<u32> {
    let stats = processes();
    let target = Target { execution, scope: Sweep::Marked, command: None, leader: None };
    let mut members = seeds(&target, &stats);
    members.insert(command);
    add_kin(&mut members, &stats);
    members
}

fn find_now(target: &Target) -> Vec<Member> {
    let stats = processes();
    let mut members = seeds(target, &stats);
    add_kin(&mut members, &stats);
    // Whoever asks is no remains, and neither is what it runs under.
    for pid in lineage(std::process::id(), &stats) {
        members.remove(&pid);
    }
    members.into_iter().filter_map(|pid| verified(stats.get(&pid)?)).collect()
}

/// Adds who descends from a member, or shares the group and session of one.
fn add_kin(members: &mut BTreeSet<u32>, stats: &BTreeMap<u32, Stat>) {
    let kin: Vec<&Stat> = stats.values().collect();
    loop {
        let groups: BTreeSet<(u32, u32)> = members
            .iter()
            .filter_map(|pid| stats.get(pid))
            .map(|stat| (stat.group, stat.session))
            .collect();
        let more: Vec<u32> = kin
            .iter()
            .filter(|stat| !members.contains(&stat.pid))
            .filter(|stat| {
                members.contains(&stat.parent) || groups.contains(&(stat.group, stat.session))
            })
            .map(|stat| stat.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        members.extend(more);
    }
}

/// Opens a process and makes sure that it is still the one that was looked at.
fn verified(stat: &Stat) -> Option<Member> {
    match stat.identity().find() {
        Found::Alive(fd) => Some(Member { stat: stat.clone(), fd }),
        Found::Gone | Found::Unknown => None,
    }
}

/// Returns who is a member by itself.
fn seeds(target: &Target, stats: &BTreeMap<u32, Stat>) -> BTreeSet<u32> {
    let mark = format!("{MARK}={}", target.execution);
    let mut seeds: BTreeSet<u32> =
        stats.keys().copied().filter(|&pid| carries(pid, mark.as_bytes())).collect();
    if target.scope != Sweep::Tree {
        return seeds;
    }
    let Some(command) = target.command else { return seeds };
    match command.find() {
        Found::Alive(_) => {
            seeds.insert(command.pid);
        }
        // The number is the group's as long as the group that the handle means has members.
        Found::Gone if target.leader.as_deref().is_some_and(group_lives) => {
            let of_group = |stat: &&Stat| stat.group == command.pid;
            seeds.extend(stats.values().filter(of_group).map(|stat| stat.pid));
        }
        Found::Gone | Found::Unknown => {}
    }
    seeds
}

/// Says whether a process has an item in its environment.
fn carries(pid: u32, item: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|&byte| byte == 0).any(|found| found == item))
}

/// Looks at every process that lives.
fn processes() -> BTreeMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| match Stat::read(pid) {
            StatRead::Found(stat) if !stat.is_dead() => Some((pid, stat)),
            StatRead::Found(_) | StatRead::Gone | StatRead::Unreadable => None,
        })
        .collect()
}

/// Returns a process and its ancestors.
fn lineage(pid: u32, stats: &BTreeMap<u32, Stat>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = pid;
    while found.insert(next) {
        match stats.get(&next) {
            Some(stat) => next = stat.parent,
            None => break,
        }
    }
    found
}
