//! The shim: the small parent of one execution.
//!
//! It spawns the command behind a gate, records it, keeps its output, watches its deadlines, stops it, and outlives the
//! host that started it. What it decides is [`windlass_core::shim::machine`]; this crate is the loop around it and the
//! system calls. It has one thread, no runtime, and knows no store, no worktree and no other execution.
//!
//! # How it is started
//!
//! By posix_spawn, with [`SHIM_MARK`] as first argument, and
//!
//! - as standard input one end of a Unix stream socket pair, over which the host sends
//!   [`Request::Launch`](windlass_core::shim::message::Request::Launch) and which then is its first control connection;
//! - as standard output the repository's lock, a regular file that the host has locked by `flock` and that the command
//!   inherits, or `/dev/null`;
//! - as standard error the file [`STDERR_FILE`] of the place, opened for appending;
//! - as current directory the place, in which the host has written [`JOURNAL_FILE`] (see
//!   [`Header::encode`](windlass_core::shim::journal::Header::encode)). The shim makes what else it needs.
//!
//! If the connection ends before the launch message is whole, nothing runs and nothing is written. The shim answers with
//! `Started`, or `ExecFailed` and `Final`; if it closes the connection without a word, the place's lock and journal tell.
//!
//! # Signals that others send to it
//!
//! - SIGTERM ends the execution as stopped by the host, by TERM, grace and KILL as any stop: a service manager or a
//!   shutdown that ends all processes gets an outcome on record.
//! - SIGHUP, SIGINT and the like are ignored: a terminal that is closed is no reason to end anything.
//! - SIGKILL cannot be answered: the execution is lost, and the next host ends what is left of it.
//! - While it is stopped (SIGSTOP), it keeps no deadline, takes no output and records no end; the command runs on until
//!   its pipes are full. Once it is continued it makes up for all of that. A stop by the host continues it first.

/// Says something in the place's file for it. A disk without room for that must not end the shim, as `eprintln` would.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "windlass-shim: {}", format_args!($($argument)*));
    }};
}

#[cfg(target_os = "linux")]
mod background_sync;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod journal;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod output;
#[cfg(target_os = "linux")]
mod spawn;
#[cfg(target_os = "linux")]
mod stdin;
#[cfg(target_os = "linux")]
mod supervisor;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod tree;

/// Where a system is not supported yet, nothing is started.
#[cfg(not(target_os = "linux"))]
mod supervisor {
    pub(crate) fn supervise() -> u8 {
        say!("this system is not supported yet");
        1
    }
}

use std::ffi::OsStr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

pub use windlass_core::shim::message::PROTOCOL_VERSION;

/// The journal's name in a place.
pub const JOURNAL_FILE: &str = "journal";
/// The name in a place of the file whose `flock` the shim, or a host that adopts, holds. Made by whoever comes first.
pub const LOCK_FILE: &str = "lock";
/// The name in a place of the control socket.
pub const CONTROL_SOCKET: &str = "ctl";
/// The name in a place of the file that the shim says things in.
pub const STDERR_FILE: &str = "stderr";
/// The first argument of a process that is to be a shim. What follows is for people who look at process lists.
pub const SHIM_MARK: &str = "--windlass-shim";
/// The argument that makes the small binary print [`version_line`] and end.
pub const VERSION_ARGUMENT: &str = "--version";
/// This package's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns what the small binary prints when asked for its version, without the newline.
#[must_use]
pub fn version_line() -> String {
    format!("windlass-shim {VERSION} protocol {PROTOCOL_VERSION}")
}

/// Whether [`main_if_shim`] was called in this process.
static HOOKED: AtomicBool = AtomicBool::new(false);

/// Says whether this program would be a shim if it were started as one: whether it called [`main_if_shim`].
#[must_use]
pub fn is_hooked() -> bool {
    HOOKED.load(Ordering::Relaxed)
}

/// Becomes the shim and never returns, if this process was started as one; else returns at once.
///
/// A program that is its own shim calls it first in `main`, before it starts a thread or opens a file.
pub fn main_if_shim() {
    HOOKED.store(true, Ordering::Relaxed);
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(SHIM_MARK)) {
        std::process::exit(i32::from(supervisor::supervise()));
    }
}

/// Runs the small binary: the shim, or its version.
#[must_use]
pub fn run() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(mark) if mark == SHIM_MARK => ExitCode::from(supervisor::supervise()),
        Some(argument) if argument == VERSION_ARGUMENT => {
            println!("{}", version_line());
            ExitCode::SUCCESS
        }
        Some(_) | None => {
            say!("is started by a windlass host, not by hand");
            ExitCode::from(2)
        }
    }
}
