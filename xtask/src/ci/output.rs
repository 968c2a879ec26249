//! Runs a command line, shows what it says as it says it, and remembers what it could not run.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use super::Done;
use crate::failure::{Doing, Failure};

/// What a test prints, uncaptured, when this machine lacks what it needs.
const NOT_RUN: &str = "not run: ";

/// Runs `command` to its end; a code other than 0 is a failure.
pub(super) fn require(command: &mut Command) -> Result<Done, Failure> {
    let shown = shown(command);
    println!("    {shown}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(format_args!("start {shown}"))?;
    let stdout =
        child.stdout.take().map(|pipe| thread::spawn(move || copy(pipe, &mut io::stdout())));
    let stderr =
        child.stderr.take().map(|pipe| thread::spawn(move || copy(pipe, &mut io::stderr())));
    let mut not_run = Vec::new();
    for reader in [stdout, stderr].into_iter().flatten() {
        let heard =
            reader.join().map_err(|_| Failure::new(format!("the reader of {shown} died")))?;
        not_run.extend(heard.doing(format_args!("show what {shown} says"))?);
    }
    let status = child.wait().doing(format_args!("wait for {shown}"))?;
    not_run.sort();
    not_run.dedup();
    if status.success() {
        Ok(Done { not_run })
    } else {
        Err(Failure::new(format!("`{shown}` ended with {status}")))
    }
}

/// Copies line by line; returns the reasons for what was not run.
fn copy(from: impl Read, to: &mut impl Write) -> io::Result<Vec<String>> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    let mut not_run = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        // A test may speak while the harness is in the middle of a line of its own.
        let text = String::from_utf8_lossy(&line);
        if let Some(at) = text.find(NOT_RUN) {
            not_run.push(text[at + NOT_RUN.len()..].trim_end().to_owned());
        }
        line.clear();
    }
    Ok(not_run)
}

fn shown(command: &Command) -> String {
    let mut shown = String::from("cargo");
    for argument in command.get_args() {
        shown.push(' ');
        shown.push_str(&argument.to_string_lossy());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_run_is_remembered_and_everything_is_shown() {
        let said = b"running 2 tests\ntest a ... not run: no root here\nok\nnot run: no tmux";
        let mut shown = Vec::new();
        assert_eq!(copy(&said[..], &mut shown).unwrap(), ["no root here", "no tmux"]);
        assert_eq!(shown, said);
    }

    #[test]
    fn a_command_that_fails_is_a_failure() {
        assert!(require(Command::new("true").arg("")).is_ok());
        assert!(require(Command::new("false").arg("")).is_err());
    }
}
