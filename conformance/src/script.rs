//! Abstract commands: what a case wants to have run, whatever a place makes of it.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::time::Timestamp;

/// What a command does. A place turns it into a [`LaunchSpec`](windlass_core::container_service::LaunchSpec).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// Exits with a code at once.
    Exit(u8),
    /// Kills itself with a signal at once.
    Die(u8),
    /// Prints, first to stdout, then to stderr, and exits with 0.
    Print {
        /// To stdout; no quotes, no newline at the end.
        stdout: &'static str,
        /// To stderr; likewise.
        stderr: &'static str,
    },
    /// Prints `ready` to stdout, waits until it is released, then exits with a code.
    UntilReleased(u8),
    /// Prints `ready` to stdout and runs until it is stopped; dies from TERM.
    Forever,
    /// Prints `ready` to stdout and runs until it is killed; ignores TERM.
    IgnoreTerm,
    /// Prints `ready` to stdout and copies standard input to stdout until it is closed, then exits with 0.
    EchoStdin,
    /// Prints `ready` to stdout and never reads its standard input; runs until it is stopped.
    IgnoreStdin,
    /// Leaves a child behind that runs for ever and holds no pipe, and exits with 0.
    LeaveChild,
    /// Leaves a child behind that runs for ever, in a session of its own, and holds stdout, and exits with 0.
    LeaveEscapee,
    /// Names a program that is not there.
    MissingProgram,
    /// Names a file that may not be executed.
    NotExecutable,
    /// Would exit with 0, in a directory that is not there.
    MissingDirectory,
}

/// Returns an execution id that no other test has, in this process or another one: sweeps look for it.
#[must_use]
pub fn fresh_execution() -> ExecutionId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let mut random = [0; 10];
    random.copy_from_slice(&fresh_bits()[..10]);
    ExecutionId::new(at, random)
}

/// Returns a nonce that no other test has.
#[must_use]
pub fn fresh_nonce() -> Nonce {
    Nonce(Uuid::from_bytes(fresh_bits()))
}

/// Returns random bits: every `RandomState` has keys of its own.
fn fresh_bits() -> [u8; 16] {
    let high = RandomState::new().hash_one(std::process::id());
    let low = RandomState::new().hash_one(SystemTime::now());
    let mut bits = [0; 16];
    bits[..8].copy_from_slice(&high.to_ne_bytes());
    bits[8..].copy_from_slice(&low.to_ne_bytes());
    bits
}
