//! The `windlass` binary; see the crate `windlass-cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Where there is no small shim beside this program, the host starts this one as the shim.
    windlass_shim::main_if_shim();
    windlass_cli::main()
}
