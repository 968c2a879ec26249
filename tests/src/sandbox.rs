//! The command line in a data directory of its own.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{PATIENCE, sweep, wait};

/// A data directory, a home and the program that is tested. Whatever ran in it is killed when it is dropped.
#[derive(Debug)]
pub struct Sandbox {
    dir: TempDir,
    program: PathBuf,
}

/// What a command line came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ran {
    /// Returns standard output as text.
    ///
    /// # Panics
    ///
    /// When it is not text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("standard output in UTF-8")
    }

    /// Returns each line of standard output as JSON.
    ///
    /// # Panics
    ///
    /// When a line is not JSON.
    #[must_use]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.text().lines().map(parse).collect()
    }

    /// Returns standard output as one JSON value.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the kind of the error that `--json` printed on standard error.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn error(&self) -> Value {
        let line = self.stderr.lines().rev().find(|line| line.starts_with("{\"error\""));
        let line = line.unwrap_or_else(|| panic!("no error in {self:?}"));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Passes it on if it ended with `code`.
    ///
    /// # Panics
    ///
    /// When it ended otherwise.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{}\n{}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }
}

impl Sandbox {
    /// Makes one for `program`, the path that cargo gives a test for a program of its package.
    ///
    /// # Panics
    ///
    /// When the disk refuses.
    #[must_use]
    pub fn new(program: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("home")).expect("a home");
        Self { dir, program: program.into() }
    }

    /// Returns the data directory, which the program makes.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns a directory for whatever the test writes; it goes with the sandbox.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Prepares a command line. The environment is bare: a path, a home, a language, the data directory.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path().join("home"))
            .env("LANG", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("WINDLASS_DATA_DIR", self.data_dir())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command line to its end.
    ///
    /// # Panics
    ///
    /// When it cannot be started or does not end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Runs a command line in a directory, to its end.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    pub fn run_in<A: AsRef<OsStr>>(
        &self,
        dir: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Ran {
        run(self.command(arguments).current_dir(dir))
    }

    /// Starts a command line and goes on.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        Running::start(&mut self.command(arguments))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = sweep(self.dir.path()) {
            // A second panic would hide the first.
            drop(writeln!(io::stderr(), "a sandbox was not swept: {error}"));
        }
    }
}

/// Runs a prepared command line to its end.
///
/// # Panics
///
/// When it cannot be started or does not end.
pub fn run(command: &mut Command) -> Ran {
    // Files, not pipes: a host that it starts might hold a pipe open, and its end is what counts.
    let mut files = [0; 2].map(|_| tempfile::tempfile().expect("a file for output"));
    let handle = |file: &File| file.try_clone().expect("a second handle");
    let mut child = command
        .stdout(handle(&files[0]))
        .stderr(handle(&files[1]))
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let status = wait(&mut child);
    let [stdout, stderr] = files.each_mut().map(|file| {
        let mut bytes = Vec::new();
        file.rewind().expect("the start of the output");
        file.read_to_end(&mut bytes).expect("the output");
        bytes
    });
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    match status {
        Ok(status) => Ran { code: status.code(), stdout, stderr },
        Err(error) => {
            panic!("{command:?}: {error}\n{}\n{stderr}", String::from_utf8_lossy(&stdout))
        }
    }
}

/// A command line that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

impl Running {
    /// Starts a prepared command line.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// Returns its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line of standard output, without its newline; `None` at the end.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub fn line(&mut self) -> Option<String> {
        next(&self.stdout)
    }

    /// Waits for the next line of standard error.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub fn error_line(&mut self) -> Option<String> {
        next(&self.stderr)
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// When it cannot be signalled.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pidfd =
            crate::process::open(self.child.id()).expect("a process that was not waited for");
        crate::process::signal(&pidfd, signal).expect("a signal to one's own child");
    }

    /// Waits for its end; returns what was not read before.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[must_use]
    pub fn wait(mut self) -> Ran {
        let status = wait(&mut self.child).expect("its end");
        let rest = |lines: &Receiver<Vec<u8>>| lines.iter().flatten().collect::<Vec<u8>>();
        let stderr = String::from_utf8_lossy(&rest(&self.stderr)).into_owned();
        Ran { code: status.code(), stdout: rest(&self.stdout), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads a pipe on a thread of its own, so that nothing waits for us to read.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        loop {
            let mut line = Vec::new();
            match pipe.read_until(b'\n', &mut line) {
                Ok(1..) if send.send(line).is_ok() => {}
                _ => return,
            }
        }
    });
    receive
}

fn next(lines: &Receiver<Vec<u8>>) -> Option<String> {
    match lines.recv_timeout(PATIENCE) {
        Ok(line) => Some(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("no line came for {PATIENCE:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_told_apart_by_code_and_streams() {
        let sandbox = Sandbox::new("/bin/sh");
        let ran = sandbox.run(["-c", "echo out; echo err >&2; exit 3"]);
        assert_eq!(ran, Ran { code: Some(3), stdout: b"out\n".to_vec(), stderr: "err\n".into() });
    }

    #[test]
    fn what_still_runs_is_ended_with_the_sandbox() {
        let sandbox = Sandbox::new("/bin/sh");
        let left = sandbox.run(["-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]);
        let pidfd = crate::process::open(left.text().trim().parse().unwrap()).unwrap();
        drop(sandbox);
        assert!(crate::process::ended(&pidfd, PATIENCE).unwrap());
    }

    #[test]
    fn lines_come_while_it_runs() {
        let sandbox = Sandbox::new("/bin/sh");
        let mut running = sandbox.start(["-c", "echo one; exec sleep 1000"]);
        assert_eq!(running.line().as_deref(), Some("one"));
        running.signal(rustix::process::Signal::TERM);
        assert_eq!(running.wait().code, None);
    }
}
