//! Runs the simulation; `cargo xtask sim` builds and calls it.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A run makes and drops many small values.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    windlass_tests::simulation::command::main(std::env::args().skip(1).collect())
}
