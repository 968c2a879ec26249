//! The command line that the tests run: named differently from the shipped one, with the shim that is built beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let shim = std::env::current_exe().map(|path| path.with_file_name("windlass-shim-under-test"));
    windlass_cli::main_with(windlass_cli::Options {
        shim: shim.ok(),
        idle: None,
        wrap: Some(windlass_tests::crash_points::wrap),
        wrap_logs: Some(windlass_tests::crash_points::wrap_logs),
    })
}
