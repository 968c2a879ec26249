//! The shim that the tests run: named differently from the shipped one, and the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_shim::run()
}
