//! The pure core of Windlass: values, the four ports, the state machines and the driver.
//!
//! Nothing here knows a runtime, a clock, a file system or a database. Time and ids are arguments, effects are values.
//! Without the feature `ports` only what the shim needs is left: ids, outcomes and the modules of [`shim`].

/// Says whether a planted bug is chosen; `false` without the feature `planted`.
#[cfg(feature = "planted")]
#[doc(hidden)]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is($crate::planted::Bug::$bug)
    };
}

/// Says whether a planted bug is chosen; `false` without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[doc(hidden)]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

#[cfg(feature = "planted")]
pub mod planted;

pub mod execution;
pub mod id;
pub mod outcome;
pub mod shim;
pub mod time;

#[cfg(feature = "ports")]
pub mod action;
#[cfg(feature = "ports")]
pub mod admission;
#[cfg(feature = "ports")]
pub mod agent;
#[cfg(feature = "ports")]
pub mod attachments;
#[cfg(feature = "ports")]
pub mod attempt;
#[cfg(feature = "ports")]
pub mod cleanup;
#[cfg(feature = "ports")]
pub mod container_service;
#[cfg(feature = "ports")]
pub mod diff_ledger;
#[cfg(feature = "ports")]
pub mod diff_watch;
#[cfg(feature = "ports")]
pub mod driver;
#[cfg(feature = "ports")]
pub mod error;
#[cfg(feature = "ports")]
pub mod input;
#[cfg(feature = "ports")]
pub mod listeners;
#[cfg(feature = "ports")]
pub mod locator;
#[cfg(feature = "ports")]
pub mod log_store;
#[cfg(feature = "ports")]
pub mod port_block;
#[cfg(feature = "ports")]
pub mod preview;
#[cfg(feature = "ports")]
pub mod process_store;
#[cfg(feature = "ports")]
pub mod record;
#[cfg(feature = "ports")]
pub mod secrets;
#[cfg(feature = "ports")]
pub mod snapshot;
#[cfg(feature = "ports")]
pub mod task;
#[cfg(feature = "ports")]
pub mod vcs_history;
#[cfg(feature = "ports")]
pub mod vcs_worktree;
#[cfg(feature = "ports")]
pub mod workspace;
