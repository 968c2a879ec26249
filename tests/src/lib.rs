//! What the tests stand on: repositories, sandboxes for the command line, namespaces, schemas.
//!
//! It knows the product only from outside: programs, files, exit codes. It does not skip: what a machine cannot run is said
//! with [`not_run`], which the test runner's capture does not swallow.

#![expect(clippy::panic, reason = "a test that cannot go on says so by a panic")]

use std::io::{self, Write as _};

pub mod crash_points;
pub mod images;
pub mod namespace;
pub mod power;
pub mod process;
pub mod repo;
pub mod sandbox;
pub mod schema;
pub mod simulation;
pub mod worktrees;

/// Says that something could not be run on this machine, past the capture of test output; `cargo xtask ci` repeats it.
pub fn not_run(reason: &str) {
    // One write, so that lines of tests that run at once do not mix. Nobody to tell is no reason to fail.
    drop(io::stderr().write_all(format!("not run: {reason}\n").as_bytes()));
}
