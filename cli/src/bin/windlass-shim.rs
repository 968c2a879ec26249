//! The small parent of one execution; see the crate `windlass-shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_shim::run()
}
