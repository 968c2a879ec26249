//! Runs the simulation; `cargo xtask sim` builds and calls it.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_tests::simulation::command::main(std::env::args().skip(1).collect())
}
