//! What happens on a terminal: a real one, of tmux.

use std::path::PathBuf;
use std::process::Command;

use windlass_tests::isolated;
use windlass_tests::process::PATIENCE;
use windlass_tests::sandbox::Sandbox;

use super::with_repo;

/// A terminal of a tmux server of its own.
pub(super) struct Terminal {
    socket: PathBuf,
    /// What the terminal shows is written here, too.
    seen: std::fs::File,
}

impl Terminal {
    /// Opens one that runs a shell; `None` without tmux.
    pub(super) fn open(sandbox: &Sandbox) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            windlass_tests::not_run("what happens on a terminal: there is no tmux");
            return None;
        }
        let socket = sandbox.path().join("tmux");
        let fifo = sandbox.path().join("seen");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        // Opened for both, so that opening does not wait for a writer.
        let seen = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let terminal = Self { socket, seen };
        let mut shell = sandbox.command(["-c", "exec /bin/sh"]);
        shell.env("PS1", "$ ");
        let environment: Vec<String> = shell
            .get_envs()
            .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value?.to_str()?)))
            .collect();
        let mut arguments = vec![
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "200",
            "-y",
            "50",
            "env",
            "-i",
            "TERM=screen",
        ];
        arguments.extend(environment.iter().map(String::as_str));
        arguments.push("/bin/sh");
        terminal.tmux(&arguments);
        terminal.tmux(&["pipe-pane", &format!("cat > {}", fifo.display())]);
        Some(terminal)
    }

    pub(super) fn tmux(&self, arguments: &[&str]) {
        let output =
            Command::new("tmux").arg("-S").arg(&self.socket).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub(super) fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    /// Reads what the terminal shows until `text` has come; returns all that was read.
    pub(super) fn until(&mut self, text: &str) -> String {
        use std::io::Read as _;
        let mut shown = Vec::new();
        loop {
            let mut fds = [rustix::event::PollFd::new(&self.seen, rustix::event::PollFlags::IN)];
            let timeout =
                rustix::event::Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
            let ready = rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
            assert!(ready > 0, "{text:?} did not come: {}", String::from_utf8_lossy(&shown));
            let mut piece = [0; 4096];
            let count = self.seen.read(&mut piece).unwrap();
            shown.extend(&piece[..count]);
            let all = String::from_utf8_lossy(&shown);
            if all.contains(text) {
                return all.into_owned();
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output());
    }
}

/// Follows a command on a terminal, presses Ctrl-C, answers, and returns the code that the shell saw.
fn interrupt(answer: Option<&str>, flags: &str) -> Option<(i32, String)> {
    let (sandbox, repo) = with_repo();
    let mut terminal = Terminal::open(&sandbox)?;
    let program = env!("CARGO_BIN_EXE_windlass-under-test");
    terminal.line(&format!("cd {}", repo.path().display()));
    terminal.line(&format!(
        "{program} run {flags} -- sh -c 'echo rea''dy; exec sleep 1000'; echo co''de=$?;"
    ));
    terminal.until("ready");
    terminal.tmux(&["send-keys", "C-c"]);
    if let Some(answer) = answer {
        terminal.until("?");
        terminal.line(answer);
    }
    let shown = terminal.until("code=");
    let shown = if shown.ends_with("code=") { shown + &terminal.until("\n") } else { shown };
    let code = shown.rsplit("code=").next().unwrap();
    let code = code.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    let executions = sandbox.run(["ps", "-a", "--json"]).expect(0).json_lines();
    Some((code, executions[0]["status"].as_str().unwrap().to_owned()))
}

isolated! {
    fn lists_fit_a_terminal_and_a_pipe_gets_all() {
        let (sandbox, repo) = with_repo();
        let Some(mut terminal) = Terminal::open(&sandbox) else { return };
        let title = format!("Größe {}", "of many words ".repeat(12));
        let title = title.trim();
        let script = format!("echo x > made; : {title}");
        sandbox.run_in(repo.path(), ["run", "--title", title, "--", "sh", "-c", &script]).expect(0);
        let commands = [["ls", ""], ["ps", "-a"]].map(|words| sandbox.run(words.into_iter().filter(|word| !word.is_empty())).expect(0));
        assert!(commands[0].text().contains(title), "{}", commands[0].text());
        assert!(commands[1].text().contains(&script), "{}", commands[1].text());
        let commit = commands[1].text().lines().find(|line| !line.contains(title) && line.starts_with("x-"));
        assert!(commit.is_some_and(|line| line.ends_with("  commit")), "{}", commands[1].text());
        let json = sandbox.run(["ps", "-a", "--json"]).expect(0).json_lines();
        let argv = json.iter().find(|one| one["run_reason"] == "git").unwrap()["action"]["argv"].as_array().unwrap();
        assert!(argv.len() > 4, "{argv:?}");

        terminal.tmux(&["resize-window", "-x", "72", "-y", "50"]);
        let program = env!("CARGO_BIN_EXE_windlass-under-test");
        terminal.line("stty -echo; PS1=");
        for verb in ["ls", "ps -a"] {
            // The mark is told apart from the line that asks for it.
            terminal.line(&format!("echo be''gin; {program} --color never {verb}; echo e''nd-of-it"));
            let shown = terminal.until("end-of-it");
            let table = shown.rsplit("begin").next().unwrap();
            assert!(table.contains('…') && !table.contains(title), "{table}");
            for line in table.lines() {
                assert!(line.trim_end().chars().count() <= 72, "{line}");
            }
        }
    }

    fn control_c_asks_and_stops() {
        if let Some(seen) = interrupt(Some("s"), "") {
            assert_eq!(seen, (143, "killed".to_owned()));
        }
    }

    fn control_c_asks_and_detaches() {
        if let Some((_, status)) = interrupt(Some("d"), "") {
            assert_eq!(status, "running");
        }
    }

    fn control_c_asks_each_time_and_what_is_said_begins_a_line() {
        let (sandbox, repo) = with_repo();
        let Some(mut terminal) = Terminal::open(&sandbox) else { return };
        let program = env!("CARGO_BIN_EXE_windlass-under-test");
        terminal.line(&format!("cd {}; PS1=", repo.path().display()));
        let gate = sandbox.path().join("gate");
        rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::RWXU).unwrap();
        let script = format!("printf rea''dy; read _ < {}; printf mo''re; exec sleep 1000", gate.display());
        terminal.line(&format!("{program} run -- sh -c \"{script}\"; echo co''de=$?;"));
        terminal.until("ready");
        terminal.tmux(&["send-keys", "C-c"]);
        terminal.until("(Enter)?");
        terminal.line("");
        // What comes now is shown once the answer was taken.
        std::fs::write(&gate, "go\n").unwrap();
        terminal.until("more");
        terminal.tmux(&["send-keys", "C-c"]);
        terminal.until("(Enter)?");
        terminal.line("s");
        let shown = terminal.until("code=143");
        assert!(shown.contains("\nwindlass: x-"), "{shown}");
        terminal.line(&format!("{program} run -- printf no''nl"));
        let shown = terminal.until("completed");
        assert!(shown.contains("nonl\r\nwindlass: x-"), "{shown}");
    }

    fn control_c_stops_without_asking_if_told_so() {
        if let Some(seen) = interrupt(None, "--on-interrupt stop") {
            assert_eq!(seen, (143, "killed".to_owned()));
        }
    }
}
