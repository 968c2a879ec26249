//! The crash suite: the host is killed at named points and at random, the shim at random, with executions in flight. What
//! the scripts wrote down themselves is the truth that the records are compared with.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use windlass_tests::crash_points::{CRASH_AT, CRASH_ONCE, CrashPoint};
use windlass_tests::isolated;
use windlass_tests::process;
use windlass_tests::repo::{TempRepo, git_in};
use windlass_tests::sandbox::{Ran, Sandbox, run};

/// How often a command line is repeated while hosts die under it. Each repetition outlives one crash.
const REPEATS: usize = 5;

/// What one script is to do.
#[derive(Clone, Debug)]
struct Job {
    name: String,
    code: u8,
    lines: u32,
    worktree: bool,
    stopped: bool,
}

/// In what records and logs are kept: the flags of a new data directory.
type Kept = &'static [&'static str];

const AS_USUAL: Kept = &[];
const IN_REDB: Kept = &["--store", "redb", "--logs", "store"];
const LOGS_IN_SQLITE: Kept = &["--store", "redb", "--logs", "sqlite"];

/// One sandbox with a host that will be killed.
struct Cycle {
    sandbox: Sandbox,
    repo: TempRepo,
    kept: Kept,
    point: Option<String>,
}

impl Cycle {
    fn new(kept: Kept, point: Option<String>) -> Self {
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_windlass-under-test"));
        Self { sandbox, repo: TempRepo::with_commit(), kept, point }
    }

    /// Crashes hosts at the n-th of these calls, before and after it.
    fn at_each(kept: Kept, calls: &[&str], counts: &[u32]) {
        for call in calls {
            for side in ["before", "after"] {
                for n in counts {
                    let cycle = Self::new(kept, Some(format!("{call}:{side}:{n}")));
                    cycle.play(&jobs(), Self::kill_host);
                    let crashed = cycle.sandbox.path().join("crashed").exists();
                    // Not every host makes every call twice.
                    assert!(crashed || *n > 1, "no host came to {:?}", cycle.point);
                }
            }
        }
    }

    /// Kills hosts while they adopt, so many rounds with the same data directory.
    fn again_and_again(kept: Kept, rounds: u32) {
        let cycle = Self::new(kept, None);
        for round in 0..rounds {
            let mut jobs = jobs();
            jobs.iter_mut().for_each(|job| job.name = format!("{}-{round}", job.name));
            drop(fs::remove_file(cycle.gate()));
            cycle.play(&jobs, |cycle| {
                for _ in 0..4 {
                    cycle.kill_host();
                    // Begins to adopt; the next kill comes somewhere in it.
                    drop(cycle.windlass(&["ps"]));
                }
            });
        }
    }

    fn truth(&self, job: &Job) -> PathBuf {
        self.sandbox.path().join(format!("{}.truth", job.name))
    }

    fn gate(&self) -> PathBuf {
        self.sandbox.path().join("gate")
    }

    /// Runs a command line in the repository; the host that it may start crashes where it is to.
    fn windlass(&self, arguments: &[&str]) -> Ran {
        let mut command = self.sandbox.command([self.kept, arguments].concat());
        command.current_dir(self.repo.path());
        if let Some(point) = &self.point {
            command.env(CRASH_AT, point).env(CRASH_ONCE, self.sandbox.path().join("crashed"));
        }
        run(&mut command)
    }

    /// Runs a command line until no crash comes between: its key makes a repetition the same request.
    #[track_caller]
    fn insist(&self, arguments: &[&str], codes: &[i32]) -> Ran {
        let mut last = None;
        for _ in 0..REPEATS {
            let ran = self.windlass(arguments);
            if ran.code.is_some_and(|code| codes.contains(&code)) {
                return ran;
            }
            last = Some(ran);
        }
        panic!("{arguments:?} at {:?}: {last:?}", self.point)
    }

    /// Starts a job: it notes its start, waits for the gate, writes its lines and notes its end.
    fn submit(&self, job: &Job) -> String {
        let (truth, gate) = (self.truth(job), self.gate());
        let script = format!(
            "echo start >> '{truth}'; echo up; while [ ! -e '{gate}' ]; do sleep 0.02; done; \
             i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo line $i; done; \
             echo work > work.txt; echo end >> '{truth}'; exit {code}",
            truth = truth.display(),
            gate = gate.display(),
            lines = job.lines,
            code = job.code,
        );
        let dir = self.sandbox.path().to_str().unwrap().to_owned();
        let place: &[&str] = if job.worktree { &[] } else { &["--dir", &dir] };
        let key = ["--key", &job.name];
        let arguments = [&["run", "-d"], &key[..], place, &["--", "sh", "-c", &script]].concat();
        self.insist(&arguments, &[0]).text().trim().to_owned()
    }

    /// Kills the host that runs, if one does.
    fn kill_host(&self) {
        let status = self.windlass(&["host", "status", "--json", "--no-start"]);
        if status.code == Some(0) {
            let pid = status.json()["pid"].as_u64().unwrap();
            if let Ok(pidfd) = process::open(u32::try_from(pid).unwrap()) {
                process::signal(&pidfd, Signal::KILL).unwrap();
                assert!(process::ended(&pidfd, process::PATIENCE).unwrap());
            }
        }
    }

    fn show(&self, id: &str) -> Value {
        self.insist(&["show", id, "--json"], &[0]).json()
    }

    /// Finds the shim of an execution: the process that works in its place.
    fn shim_of(&self, id: &str) -> Option<rustix::fd::OwnedFd> {
        let runs = self.sandbox.data_dir().join("runs");
        let name = self.show(id)["id"].as_str().unwrap().to_owned();
        let place = fs::read_dir(runs)
            .unwrap()
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&name))?;
        let pids = process::belonging(&place.path()).unwrap();
        let works_there = |pid: &&u32| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == place.path())
        };
        pids.iter().find(works_there).and_then(|pid| process::open(*pid).ok())
    }

    /// Compares what is recorded with what the script says it did.
    fn check(&self, job: &Job, id: &str) {
        let at = format!("{job:?} at {:?}", self.point);
        let record = self.show(id);
        let truth = fs::read_to_string(self.truth(job)).unwrap_or_default();
        let starts = truth.lines().filter(|line| *line == "start").count();
        let ends = truth.lines().filter(|line| *line == "end").count();
        assert!(starts <= 1, "{at}: started {starts} times\n{record:#}");
        if job.stopped {
            assert_eq!(record["status"], "killed", "{at}: {record:#}");
            return;
        }
        assert_eq!((starts, ends), (1, 1), "{at}: {truth}\n{record:#}");
        assert_eq!(record["outcome"]["kind"], "exited", "{at}: {record:#}");
        assert_eq!(record["exit_code"], job.code, "{at}: {record:#}");
        let lines: String = (1..=job.lines).map(|n| format!("line {n}\n")).collect();
        let expected = format!("up\n{lines}");
        let log = self.insist(&["logs", "--raw", id], &[0]);
        assert!(log.text() == expected, "{at}: the log has {} bytes", log.stdout.len());
        if job.worktree && job.code == 0 {
            let commit = record["committed"].as_str().unwrap_or_else(|| panic!("{at}: {record:#}"));
            let work = git_in(self.repo.path(), ["show", &format!("{commit}:work.txt")]);
            assert_eq!(work, "work", "{at}");
            let count =
                git_in(self.repo.path(), ["rev-list", "--count", &format!("HEAD..{commit}")]);
            assert_eq!(count, "1", "{at}: committed more than once");
        }
    }

    /// Runs jobs, has hosts killed under them, and compares. `kills` is called once while all of them run.
    fn play(&self, jobs: &[Job], kills: impl FnOnce(&Self)) {
        let ids: Vec<String> = thread::scope(|scope| {
            let submit = |job| scope.spawn(move || self.submit(job));
            let threads: Vec<_> = jobs.iter().map(submit).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        kills(self);
        for (job, id) in jobs.iter().zip(&ids) {
            if job.stopped {
                self.insist(&["stop", id, "--grace", "100ms"], &[0, 143]);
            }
            // The same request again: the same execution, and no second start.
            assert_eq!(&self.submit(job), id, "{:?}", self.point);
        }
        fs::write(self.gate(), "").unwrap();
        for (job, id) in jobs.iter().zip(&ids) {
            let code = if job.stopped { 143 } else { i32::from(job.code) };
            self.insist(&["wait", id], &[code]);
            self.check(job, id);
        }
        let attempt = self.show(&ids[0])["attempt_id"].as_str().unwrap().to_owned();
        self.insist(&["rm", &attempt], &[0]);
        let path = self.show(&attempt);
        assert_eq!(path["status"], "removed", "{:?}: {path:#}", self.point);
        assert!(!Path::new(path["worktree"].as_str().unwrap()).exists());
        self.kill_host();
        let mark = self.sandbox.data_dir().join("runs");
        let left = process::belonging(&mark).unwrap();
        assert!(left.is_empty(), "{:?}: processes {left:?} are left", self.point);
    }
}

fn job(name: &str, code: u8, worktree: bool) -> Job {
    Job { name: name.to_owned(), code, lines: 2_000, worktree, stopped: false }
}

fn jobs() -> Vec<Job> {
    let stopped = Job { stopped: true, ..job("stopped", 0, false) };
    vec![job("works", 0, true), job("fails", 3, true), job("plain", 7, false), stopped]
}

isolated! {
    fn a_host_killed_at_each_named_point_loses_nothing() {
        Cycle::at_each(AS_USUAL, &CrashPoint::CALLS, &[1, 2]);
    }

    fn a_host_killed_at_the_points_of_its_store_loses_nothing_in_redb() {
        let calls = ["store.acquire", "store.commit", "containers.launch", "containers.finished"];
        Cycle::at_each(IN_REDB, &calls, &[1]);
    }

    fn a_host_killed_while_it_moves_logs_loses_nothing_and_has_nothing_twice() {
        Cycle::at_each(IN_REDB, &CrashPoint::CALLS_OF_LOGS, &[1, 4]);
        Cycle::at_each(LOGS_IN_SQLITE, &CrashPoint::CALLS_OF_LOGS, &[2]);
    }

    fn a_host_killed_again_and_again_loses_nothing() {
        Cycle::again_and_again(AS_USUAL, 10);
    }

    fn a_host_killed_again_and_again_loses_nothing_in_redb() {
        Cycle::again_and_again(IN_REDB, 4);
    }

    fn a_killed_shim_ends_its_own_execution_as_lost_and_no_other() {
        let cycle = Cycle::new(AS_USUAL, None);
        let mut ended_as_lost = 0;
        for round in 0..12 {
            drop(fs::remove_file(cycle.gate()));
            let [bystander, victim] =
                ["bystander", "victim"].map(|name| job(&format!("{name}-{round}"), 0, false));
            let ids = [cycle.submit(&bystander), cycle.submit(&victim)];
            // Sometimes it runs, sometimes it is just being launched, sometimes the host is gone as well.
            let up = usize::from(round % 2 == 0);
            cycle.insist(&["logs", "-f", "--limit", "1", &ids[up]], &[0]);
            if round % 3 == 0 {
                cycle.kill_host();
            }
            let Some(shim) = cycle.shim_of(&ids[1]) else {
                assert_eq!(up, 0, "it runs without a shim");
                fs::write(cycle.gate(), "").unwrap();
                cycle.insist(&["wait", &ids[1]], &[0]);
                continue;
            };
            process::signal(&shim, Signal::KILL).unwrap();
            cycle.insist(&["wait", &ids[1]], &[125, 126]);
            let record = cycle.show(&ids[1]);
            let truth = fs::read_to_string(cycle.truth(&victim)).unwrap_or_default();
            if record["outcome"]["kind"] == "not_started" {
                // The shim was killed before it let the command go.
                assert_eq!(truth, "", "{record:#}");
            } else {
                assert_eq!(record["outcome"]["kind"], "lost", "{record:#}");
                assert!(!truth.contains("end"), "it went on: {truth}");
                ended_as_lost += 1;
            }
            fs::write(cycle.gate(), "").unwrap();
            cycle.insist(&["wait", &ids[0]], &[0]);
            cycle.check(&bystander, &ids[0]);
        }
        assert!(ended_as_lost > 0, "no shim was killed while its command ran");
    }
}
