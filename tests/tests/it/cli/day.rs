//! A day of work from the command line, on sources that others wrote: what it leaves is the same, however often the host is killed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use windlass_tests::process::{PATIENCE, ended, open, signal};
use windlass_tests::repo::TempRepo;
use windlass_tests::sandbox::Sandbox;
use windlass_tests::{isolated, not_run};

use super::{sandbox, show};

/// Crates that the tests are built with, whose sources are the repositories.
const CRATES: [&str; 3] = ["serde_json", "clap_builder", "futures-util"];
/// How often the host is killed in a day.
const KILLS: usize = 10;

/// Commits what it is told, and leaves something that is not committed. A second run goes on with what the first has left.
const WORK: &str = "mkdir -p notes; n=$(ls notes | wc -l | tr -d ' ')
cat > notes/$n
echo \"edit $n\" >> README.md
git add README.md && git commit --quiet -m \"note $n\"
for file in $(git ls-files 'src/*.rs' | head -n 20); do echo \"// seen $n\" >> $file; done";

/// The host of a sandbox is killed now and then while something happens.
struct Killer<'a> {
    sandbox: &'a Sandbox,
    /// How many changes there are between one kill and the next, by turns.
    gaps: &'a [usize],
    kills: AtomicUsize,
    over: AtomicBool,
}

impl Killer<'_> {
    /// Kills until it was often enough, or the day is over.
    fn work(&self) {
        let mut gaps = self.gaps.iter().cycle();
        let mut left = *gaps.next().expect("a gap");
        while self.kills.load(Ordering::Relaxed) < KILLS {
            let mut events = self.sandbox.start(["events", "-f", "--after", "0"]);
            // What was seen before is counted again: that makes the moments no less random.
            while events.line().is_some() {
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
                left -= 1;
                if left == 0 {
                    left = *gaps.next().expect("a gap");
                    self.kill();
                    break;
                }
            }
        }
    }

    fn kill(&self) {
        let status = self.sandbox.run(["host", "status", "--json", "--no-start"]);
        if status.code != Some(0) {
            return;
        }
        let pid = status.json()["pid"].as_u64().expect("a number");
        let Ok(host) = open(u32::try_from(pid).expect("a number")) else { return };
        if signal(&host, Signal::KILL).is_ok() {
            assert!(ended(&host, PATIENCE).unwrap());
            self.kills.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits until nothing of an attempt runs or waits.
fn rests(sandbox: &Sandbox, id: &str) {
    loop {
        // What is comes first, so nothing that has happened is waited for.
        let mut events = sandbox.start(["events", "--state", "-f", "--json"]);
        while let Some(line) = events.line() {
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["kind"] == "attempt" {
                let view = show(sandbox, id);
                let waiting = view["queue"].as_array().map_or(0, Vec::len);
                if view["status"] == "finished" && waiting == 0 {
                    return;
                }
                assert_ne!(view["status"], "held", "{view}");
            }
        }
    }
}

/// Works a day; returns what each commit of the target holds and says, newest first, and what was written by the commands.
fn work(sandbox: &Sandbox, repo: &TempRepo) -> String {
    let told = |arguments: &[&str]| {
        sandbox.run_in(repo.path(), arguments).expect(0).text().trim().to_owned()
    };
    told(&["project", "add", "--name", "app"]);
    let task = told(&["task", "add", "Take notes", "-p", "app"]);
    let command =
        ["--commit", "--setup", "echo dep > dep.txt", "--cleanup", "echo tidy >> tidy.txt"];
    let run = [&["run", "--task", &task][..], &command, &["--", "sh", "-c", WORK]].concat();
    told(&run);
    let attempts = sandbox.run(["ls", "--json"]).expect(0).json_lines();
    let id = attempts[0]["id"].as_str().unwrap().to_owned();
    for text in ["the second", "the third"] {
        told(&["send", &id, text]);
    }
    rests(sandbox, &id);
    told(&["retry", &id]);
    rests(sandbox, &id);
    assert_eq!(show(sandbox, &id)["dirty"], false);
    repo.write("README.md", "rewritten\n");
    let _ = repo.commit("theirs");
    // Each of the three commits to the file conflicts.
    let mut code = sandbox.run(["rebase", &id]).code;
    while code == Some(4) {
        let resolve = "echo both > README.md; git add README.md";
        told(&["exec", &id, "--", "sh", "-c", resolve]);
        code = sandbox.run(["rebase", &id, "--continue"]).code;
    }
    assert_eq!(code, Some(0));
    told(&["merge", &id, "--squash", "-m", "Take notes"]);
    assert_eq!(sandbox.run(["task", "show", &task, "--json"]).expect(0).json()["status"], "done");
    told(&["rm", "--delete-branch", &id]);
    told(&["gc"]);
    assert_eq!(repo.git(["status", "--porcelain"]), "");
    assert_eq!(repo.git(["branch", "--format=%(refname:short)"]), "main");
    let _ = repo.git(["fsck", "--strict", "--no-dangling"]);
    let told = ["notes", "README.md", "tidy.txt"]
        .map(|path| repo.git(["grep", "-n", "", "main", "--", path]));
    format!("{}\n{}", repo.git(["log", "--format=%T %an %s", "main"]), told.join("\n"))
}

isolated! {
    fn a_day_ends_with_the_same_commits_however_often_the_host_is_killed() {
        for (number, name) in CRATES.into_iter().enumerate() {
            let (Some(calm), Some(wild)) = (TempRepo::of_crate(name), TempRepo::of_crate(name)) else {
                not_run("cargo keeps no sources of crates here");
                return;
            };
            let expected = work(&sandbox(), &calm);
            let sandbox = sandbox();
            let gaps: Vec<_> = (0..KILLS).map(|n| 2 + (n * 5 + number * 3) % 11).collect();
            let (kills, over) = (AtomicUsize::new(0), AtomicBool::new(false));
            let killer = Killer { sandbox: &sandbox, gaps: &gaps, kills, over };
            let found = thread::scope(|scope| {
                scope.spawn(|| killer.work());
                let found = work(&sandbox, &wild);
                killer.over.store(true, Ordering::Relaxed);
                // Something happens once more, for whoever waits for it.
                sandbox.run(["task", "add", "The evening", "-p", "app"]).expect(0);
                found
            });
            assert!(found == expected, "{name} with kills:\n{found}\nwithout:\n{expected}");
            assert_eq!(killer.kills.load(Ordering::Relaxed), KILLS, "{name}");
        }
    }
}
