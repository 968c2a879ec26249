//! Hosts of worktrees and nothing else, for tests that kill them.
//!
//! `serve DATA_DIRECTORY` is such a host; `days OPERATIONS SEED` is who gives them work and kills them.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use windlass_tests::worktrees::{Days, serve};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<Option<&str>> = arguments.iter().map(|argument| argument.to_str()).collect();
    match words.as_slice() {
        [Some("serve"), _] => match serve(Path::new(&arguments[1])) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error.to_string()),
        },
        [Some("days"), Some(operations), Some(seed)] => match (operations.parse(), seed.parse()) {
            (Ok(operations), Ok(seed)) => days(operations, seed),
            _ => failed("OPERATIONS and SEED are numbers"),
        },
        _ => failed("serve DATA_DIRECTORY, or days OPERATIONS SEED"),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

fn days(operations: u32, seed: u64) -> ExitCode {
    let (Ok(program), Ok(room)) = (std::env::current_exe(), tempfile::tempdir()) else {
        return failed("no program or no room");
    };
    let Ok(path) = room.path().canonicalize() else { return failed("no room") };
    let host = |data: &Path| {
        let mut command = Command::new(&program);
        command.arg("serve").arg(data);
        command
    };
    let tally = Days::new(&host, &path, seed).run(operations, &mut |done, tally| {
        if done % 100 == 0 {
            eprintln!("{done} of {operations}: {tally:?}");
        }
    });
    println!("seed {seed}, {operations} operations, nothing lost: {tally:?}");
    ExitCode::SUCCESS
}
