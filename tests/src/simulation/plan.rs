//! [`Plan`]: one run of the simulation as a value, with a text form.
//!
//! It says what clients ask for and when, what goes wrong and where, and how likely everything else goes wrong. What it does
//! not say is decided by the seed (see [`windlass_fakes::decision`]).

mod text;

use serde::{Deserialize, Serialize};
use windlass_fakes::faulty::Fault;

pub use text::PlanError;

/// One run of the simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides whatever the rest does not say.
    pub seed: u64,
    /// The name of the scenario that it was made from, for people.
    pub scenario: String,
    /// How the engine is configured, and how long things go wrong.
    pub settings: Settings,
    /// What clients ask for, in the order of their time.
    pub requests: Vec<Request>,
    /// What goes wrong by name, and what else is done to the world.
    pub interventions: Vec<Intervention>,
    /// How likely what goes wrong at a call.
    pub swarm: Swarm,
    /// What is decided whatever the seed says.
    pub fixed: Vec<Fixed>,
}

/// How the engine is configured, and how long things go wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Slots of one named owner.
    pub per_owner: u32,
    /// Slots of the host.
    pub per_host: u32,
    /// How many may wait.
    pub queue: u32,
    /// From TERM to KILL, in milliseconds.
    pub stop_grace_ms: u64,
    /// How long executions beside a chain may run, in milliseconds.
    pub background_timeout_ms: Option<u64>,
    /// How long a commit may take, in milliseconds.
    pub git_timeout_ms: u64,
    /// The most bytes of log that an execution keeps.
    pub log_cap_bytes: u64,
    /// How often cleanup looks, in milliseconds; `None` is on request.
    pub cleanup_period_ms: Option<u64>,
    /// After how long an idle worktree is removed, in milliseconds.
    pub idle_ms: Option<u64>,
    /// After how long a worktree without a record is removed, in milliseconds.
    pub orphan_ms: Option<u64>,
    /// When nothing goes wrong any more, in milliseconds after the start.
    pub heal_ms: u64,
    /// How long it takes until a host that died has a successor, in milliseconds.
    pub restart_ms: u64,
    /// How long things take in the world.
    #[serde(default)]
    pub pace: Pace,
}

/// How long things take in the world, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pace {
    /// From the open gate to the executed program.
    pub exec_ms: u64,
    /// A sync of a journal or a log.
    pub sync_ms: u64,
    /// A batch of the store.
    pub commit_ms: u64,
    /// A batch that its host does not live to see acknowledged is written all the same.
    pub keeps_dropped_commits: bool,
    /// Each step of making, saving or removing a worktree.
    pub worktree_step_ms: u64,
    /// From the creation of a worktree until its files are on the disk.
    pub settle_ms: u64,
}

impl From<Pace> for windlass_fakes::Pace {
    fn from(pace: Pace) -> Self {
        let Pace { exec_ms, sync_ms, commit_ms, keeps_dropped_commits, .. } = pace;
        let Pace { worktree_step_ms, settle_ms, .. } = pace;
        Self { exec_ms, sync_ms, commit_ms, keeps_dropped_commits, worktree_step_ms, settle_ms }
    }
}

impl Default for Settings {
    /// Makes the documented defaults of the engine but for cleanup, which is on request; everything heals after a minute.
    fn default() -> Self {
        Self {
            per_owner: 8,
            per_host: 32,
            queue: 10_000,
            stop_grace_ms: 5_000,
            background_timeout_ms: Some(30 * 60 * 1_000),
            git_timeout_ms: 10 * 60 * 1_000,
            log_cap_bytes: 1 << 30,
            cleanup_period_ms: None,
            idle_ms: Some(72 * 3_600_000),
            orphan_ms: Some(24 * 3_600_000),
            heal_ms: 60_000,
            restart_ms: 200,
            pace: Pace::default(),
        }
    }
}

/// Something that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// When, in milliseconds after the start.
    pub at_ms: u64,
    /// What it is called: later requests name what it started by this. Requests that start something and have the same name
    /// have the same client key.
    pub name: String,
    /// The client; `None` is the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What is asked for.
    pub verb: Verb,
}

/// What a client asks for. Executions and attempts are named by the request that started them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verb {
    /// A new attempt with one execution.
    Run {
        /// Whether it gets a worktree; else it runs in a directory.
        worktree: bool,
        /// Whether what it leaves is committed.
        commit: bool,
        /// The words of what prepares the workspace; empty if nothing does.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        setup: String,
        /// The words of what tidies up; empty if nothing does.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        cleanup: String,
        /// What runs.
        launch: Launch,
    },
    /// One more execution beside the chain of an attempt.
    Exec {
        /// The attempt.
        of: String,
        /// Whether it is a dev server; else a background execution.
        dev_server: bool,
        /// What runs.
        launch: Launch,
    },
    /// A stop of one execution.
    Stop {
        /// The execution.
        of: String,
        /// From TERM to KILL, in milliseconds; `None` is its own.
        grace_ms: Option<u64>,
    },
    /// A stop of everything in an attempt.
    StopAttempt {
        /// The attempt.
        of: String,
    },
    /// The end of an execution as completed.
    Complete {
        /// The execution.
        of: String,
    },
    /// A commit of what is dirty.
    Commit {
        /// The attempt.
        of: String,
    },
    /// The removal of a worktree.
    Remove {
        /// The attempt.
        of: String,
        /// What runs in it is stopped first.
        force: bool,
        /// Its branch goes too.
        branch: bool,
    },
    /// A removed worktree made again.
    Restore {
        /// The attempt.
        of: String,
        /// From this snapshot; `None` is what it was removed as.
        snapshot: Option<u32>,
    },
    /// The removal of a snapshot.
    RemoveSnapshot {
        /// The attempt.
        of: String,
        /// Its number.
        number: u32,
        /// Also if the worktree cannot be made again without it.
        force: bool,
    },
    /// Whether a worktree stays, however long nothing happens in it.
    Keep {
        /// The attempt.
        of: String,
        /// Whether it does.
        keep: bool,
    },
    /// A pass of cleanup.
    Gc {
        /// Only say what would be done.
        dry_run: bool,
    },
    /// A message to standard input.
    Input {
        /// The execution.
        of: String,
        /// What is written.
        text: String,
        /// Whether the stream ends with it.
        close: bool,
    },
    /// A message that starts what the attempt runs once more, with this text to read.
    Send {
        /// The attempt.
        of: String,
        /// The text.
        text: String,
    },
    /// A change of a message that waits.
    Change {
        /// The attempt.
        of: String,
        /// The name of the request that sent it.
        message: String,
        /// What it says from now on; `None` takes it back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// Messages of an attempt start nothing, or do so again.
    Hold {
        /// The attempt.
        of: String,
        /// Whether they are held.
        held: bool,
    },
    /// Another try of what the attempt ran last: what was done since is saved and undone.
    Retry {
        /// The attempt.
        of: String,
    },
    /// A wait for the end of an execution.
    Wait {
        /// The execution.
        of: String,
    },
    /// Its log, read as it grows to its end.
    Follow {
        /// The execution.
        of: String,
    },
    /// The difference between a worktree and its base.
    Diff {
        /// The attempt.
        of: String,
    },
}

/// What runs, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Program and arguments, from the programs of the fakes.
    pub argv: Vec<String>,
    /// Total run time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Longest time without output in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// Leftovers are left running.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leave: bool,
    /// Standard input takes messages.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stdin: bool,
    /// It is refused rather than queued.
    #[serde(default, skip_serializing_if = "is_false")]
    pub refuse_when_full: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Something that is done to the world or its hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervention {
    /// When.
    pub when: When,
    /// What.
    pub what: Blow,
}

/// When something is done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// So many milliseconds after the start.
    At(u64),
    /// At a port call, counted from 1 over all ports.
    AnyCall(u64),
    /// At the n-th call, from 1, of one method about one thing.
    Call {
        /// Port and method, for example `store.commit`.
        site: String,
        /// What it is about: the name of a request, or empty.
        about: String,
        /// Which of them.
        nth: u32,
    },
    /// After the n-th poll, from 1, of the loop of the n-th host, from 1.
    Poll {
        /// Which host.
        life: u32,
        /// Which poll.
        nth: u32,
    },
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Blow {
    /// The call goes wrong; only at a call.
    Fault(Fault),
    /// The host is killed; at a call, before it has any effect.
    KillHost,
    /// The host leaves in good order, and another one comes.
    LeaveHost,
    /// Another host comes while the first one lives.
    SecondHost,
    /// The machine loses its power, and what becomes of what was not synced.
    PowerLoss {
        /// In journals.
        journals: Tail,
        /// In logs.
        logs: Tail,
        /// In the store.
        store: Tail,
        /// In worktrees.
        worktrees: Tail,
    },
    /// The shim of an execution is killed.
    KillShim {
        /// The execution.
        of: String,
    },
    /// The shim of an execution is stopped, as by SIGSTOP, before one of its effects; whoever asks it for something wakes
    /// it.
    StopShim {
        /// The execution.
        of: String,
        /// How many effects it has had before.
        effect: u32,
    },
    /// The disk has so much room.
    Room {
        /// Free bytes; the floor is 1 GiB.
        free_bytes: u64,
    },
    /// A command that waits goes on.
    Release {
        /// The execution.
        of: String,
    },
    /// The user writes a file into the worktree of an attempt.
    Write {
        /// The attempt.
        of: String,
        /// The file.
        path: String,
        /// What it holds.
        text: String,
    },
    /// The user deletes the directory of a worktree.
    DeleteDirectory {
        /// The attempt.
        of: String,
    },
    /// A client asks for something; its `at_ms` is when it happens.
    Ask(Box<Request>),
}

/// What becomes of bytes that were written and not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// They are gone.
    #[default]
    Gone,
    /// They reached the disk.
    Kept,
    /// So many thousandths of them did, the first ones.
    Torn(u16),
    /// So many thousandths of them did; what follows reads as zeros.
    Zeroed(u16),
}

impl From<Tail> for windlass_fakes::Unsynced {
    fn from(tail: Tail) -> Self {
        match tail {
            Tail::Gone => Self::Gone,
            Tail::Kept => Self::Kept,
            Tail::Torn(permille) => Self::Torn { permille },
            Tail::Zeroed(permille) => Self::Zeroed { permille },
        }
    }
}

/// An answer to a question of the simulation itself that the plan fixes, for example in which order tasks run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// Where it is asked.
    pub site: String,
    /// About what.
    pub about: String,
    /// For the how many-th time.
    pub nth: u32,
    /// The answer.
    pub answer: u64,
}

/// What can go wrong at any call or between two polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Calls take a few milliseconds, so that their ends are reordered.
    Latency,
    /// Calls take minutes.
    LongDelay,
    /// Calls do not come back while things go wrong.
    Hang,
    /// Errors before the effect.
    ErrorBefore,
    /// Errors after the effect.
    ErrorAfter,
    /// No room.
    Full,
    /// Calls that are performed twice.
    Twice,
    /// Hosts killed before a call.
    CrashBefore,
    /// Hosts killed after a call, before they hear of it.
    CrashAfter,
    /// Hosts killed between two polls.
    CrashBetween,
    /// Hosts killed while they take over.
    CrashInRecovery,
    /// Power losses.
    PowerLoss,
    /// Second hosts.
    SecondHost,
    /// Hosts that leave in good order.
    LeaveHost,
    /// Shims killed.
    KillShim,
    /// A task that is ready waits behind the others.
    Reorder,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 16] = [
        Self::Latency,
        Self::LongDelay,
        Self::Hang,
        Self::ErrorBefore,
        Self::ErrorAfter,
        Self::Full,
        Self::Twice,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::CrashBetween,
        Self::CrashInRecovery,
        Self::PowerLoss,
        Self::SecondHost,
        Self::LeaveHost,
        Self::KillShim,
        Self::Reorder,
    ];
}

/// How likely each class of fault is, per 10,000 opportunities. A class that is not there is off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Swarm {
    rates: std::collections::BTreeMap<Class, u16>,
}

impl Swarm {
    /// Switches a class on with a rate per 10,000, or off with 0.
    pub fn set(&mut self, class: Class, per_10_000: u16) {
        if per_10_000 == 0 {
            self.rates.remove(&class);
        } else {
            self.rates.insert(class, per_10_000);
        }
    }

    /// Returns the rate of a class, per 10,000.
    #[must_use]
    pub fn rate(&self, class: Class) -> u16 {
        self.rates.get(&class).copied().unwrap_or(0)
    }

    /// Says whether everything is off.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.rates.is_empty()
    }

    /// Returns the classes that are on.
    pub fn classes(&self) -> impl Iterator<Item = Class> + '_ {
        self.rates.keys().copied()
    }
}
