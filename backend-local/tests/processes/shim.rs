//! The shim that the tests of this package run: a program beside the package's own version, found by its path.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_shim::run()
}
