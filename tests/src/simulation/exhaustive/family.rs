//! The small scenarios: each verb that changes state, with a command that is filled in.

use super::super::plan::{
    Blow, Intervention, Launch, Plan, Request, Settings, Swarm, Tail, Verb, When,
};

/// Makes a plan for a command.
type Make = fn(&[&str]) -> Plan;

/// A scenario by its name.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    make: Make,
}

impl Scenario {
    /// Makes its plan for a command.
    #[must_use]
    pub fn plan(&self, script: &[&str]) -> Plan {
        let mut plan = (self.make)(script);
        plan.scenario = format!("{}: {}", self.name, script.join(" "));
        plan
    }
}

/// The commands that every scenario is run with.
pub const SCRIPTS: &[&[&str]] = &[
    &["forever"],
    &["print", "out\n", "err\n"],
    &["ignore-term"],
    &["leave-child"],
    &["wait", "0"],
    &["exit", "3"],
    &["exit", "0"],
    &["die", "9"],
    &["die", "15"],
    &["print", "no newline", ""],
    &["print", "", "only errors\n"],
    &["echo-stdin"],
    &["ignore-stdin"],
    &["not-executable"],
    &["no-such-program"],
];

/// Every scenario.
pub const FAMILY: &[Scenario] = &[
    Scenario { name: "run", make: run },
    Scenario { name: "run and commit", make: run_and_commit },
    Scenario { name: "two executions, two actions", make: two_by_two },
    Scenario { name: "stop twice", make: stop_twice },
    Scenario { name: "stop the attempt", make: stop_attempt },
    Scenario { name: "complete", make: complete },
    Scenario { name: "remove while it runs", make: remove_while_running },
    Scenario { name: "remove and restore", make: remove_and_restore },
    Scenario { name: "remove, restore, remove again", make: remove_again },
    Scenario { name: "snapshots", make: snapshots },
    Scenario { name: "cleanup", make: cleanup },
    Scenario { name: "kept from cleanup", make: keep },
    Scenario { name: "host restart", make: host_restart },
    Scenario { name: "host leaves", make: host_leaves },
    Scenario { name: "two hosts", make: two_hosts },
    Scenario { name: "power loss", make: power_loss },
    Scenario { name: "dead shim", make: dead_shim },
    Scenario { name: "dead shim of a command that has ended", make: dead_shim_after_the_end },
    Scenario { name: "the same number after a restart", make: same_number },
    Scenario { name: "two hosts and a slow stop", make: slow_stop },
    Scenario { name: "shim stopped at its 6th effect", make: stopped_shim::<6> },
    Scenario { name: "shim stopped at its 7th effect", make: stopped_shim::<7> },
    Scenario { name: "shim stopped at its 8th effect", make: stopped_shim::<8> },
    Scenario { name: "shim stopped at its 9th effect", make: stopped_shim::<9> },
    Scenario { name: "shim stopped at its 10th effect", make: stopped_shim::<10> },
    Scenario { name: "shim stopped at its 11th effect", make: stopped_shim::<11> },
    Scenario { name: "queue limits", make: queue_limits },
    Scenario { name: "refused when full", make: refused },
    Scenario { name: "deadline against exit", make: deadline },
    Scenario { name: "log cap", make: log_cap },
    Scenario { name: "commit on request", make: commit },
    Scenario { name: "the same key twice", make: same_key },
    Scenario { name: "followed", make: followed },
    Scenario { name: "chain", make: chained },
    Scenario { name: "chain with a cleanup that fails", make: untidy },
    Scenario { name: "stop of a chain", make: stopped_chain },
    Scenario { name: "message", make: message },
    Scenario { name: "message held and let go", make: held_message },
    Scenario { name: "retry", make: retry },
];

fn launch(script: &[&str]) -> Launch {
    Launch { argv: script.iter().map(|word| (*word).to_owned()).collect(), ..Launch::default() }
}

fn ask(at_ms: u64, name: &str, verb: Verb) -> Request {
    Request { at_ms, name: name.to_owned(), owner: None, verb }
}

fn worktree(at_ms: u64, name: &str, commit: bool, script: &[&str]) -> Request {
    chain(at_ms, name, commit, "", script, "")
}

fn chain(
    at_ms: u64,
    name: &str,
    commit: bool,
    setup: &str,
    script: &[&str],
    cleanup: &str,
) -> Request {
    let (setup, cleanup) = (setup.to_owned(), cleanup.to_owned());
    let launch = launch(script);
    ask(at_ms, name, Verb::Run { worktree: true, commit, setup, cleanup, launch })
}

fn directory(at_ms: u64, name: &str, script: &[&str]) -> Request {
    let (setup, cleanup) = (String::new(), String::new());
    let launch = launch(script);
    ask(at_ms, name, Verb::Run { worktree: false, commit: false, setup, cleanup, launch })
}

fn exec(at_ms: u64, name: &str, script: &[&str]) -> Request {
    let of = "a".to_owned();
    ask(at_ms, name, Verb::Exec { of, dev_server: false, launch: launch(script) })
}

fn stop(at_ms: u64, name: &str, of: &str, grace_ms: Option<u64>) -> Request {
    ask(at_ms, name, Verb::Stop { of: of.to_owned(), grace_ms })
}

fn remove(at_ms: u64, name: &str, force: bool) -> Request {
    ask(at_ms, name, Verb::Remove { of: "a".to_owned(), force, branch: false })
}

fn restore(at_ms: u64, name: &str) -> Request {
    ask(at_ms, name, Verb::Restore { of: "a".to_owned(), snapshot: None })
}

fn write(at_ms: u64, path: &str) -> Intervention {
    let (of, path, text) = ("a".to_owned(), path.to_owned(), "work\n".to_owned());
    at(at_ms, Blow::Write { of, path, text })
}

fn at(at_ms: u64, what: Blow) -> Intervention {
    Intervention { when: When::At(at_ms), what }
}

/// Makes a plan of what is asked; everything heals soon.
fn plan(requests: Vec<Request>) -> Plan {
    let settings = Settings { heal_ms: 30_000, stop_grace_ms: 1_000, ..Settings::default() };
    Plan {
        // An odd one: worktrees are not all removed and made again at the end, which scenarios of their own do.
        seed: 1,
        scenario: String::new(),
        settings,
        requests,
        interventions: vec![
            at(400, Blow::Release { of: "a".to_owned() }),
            at(900, Blow::Release { of: "b".to_owned() }),
        ],
        swarm: Swarm::default(),
        fixed: Vec::new(),
    }
}

fn with(mut plan: Plan, interventions: impl IntoIterator<Item = Intervention>) -> Plan {
    plan.interventions.extend(interventions);
    plan
}

fn run(script: &[&str]) -> Plan {
    plan(vec![directory(0, "a", script)])
}

fn run_and_commit(script: &[&str]) -> Plan {
    with(plan(vec![worktree(0, "a", true, script)]), [write(20, "new")])
}

fn two_by_two(script: &[&str]) -> Plan {
    let requests = vec![
        worktree(0, "a", false, script),
        exec(50, "b", script),
        stop(600, "stop", "b", None),
        remove(700, "remove", true),
    ];
    with(plan(requests), [write(40, "new")])
}

fn stop_twice(script: &[&str]) -> Plan {
    plan(vec![
        directory(0, "a", script),
        stop(30, "first", "a", None),
        stop(60, "second", "a", Some(0)),
    ])
}

fn stop_attempt(script: &[&str]) -> Plan {
    let of = "a".to_owned();
    let requests = vec![
        worktree(0, "a", true, script),
        exec(10, "b", script),
        ask(30, "stop", Verb::StopAttempt { of }),
    ];
    with(plan(requests), [write(20, "new")])
}

fn complete(script: &[&str]) -> Plan {
    let of = "a".to_owned();
    let requests = vec![worktree(0, "a", true, script), ask(30, "done", Verb::Complete { of })];
    with(plan(requests), [write(20, "new")])
}

fn remove_while_running(script: &[&str]) -> Plan {
    let requests = vec![
        worktree(0, "a", true, script),
        remove(30, "gently", false),
        remove(60, "force", true),
        exec(61, "b", script),
    ];
    with(plan(requests), [write(20, "new")])
}

fn remove_and_restore(script: &[&str]) -> Plan {
    let requests = vec![
        worktree(0, "a", false, script),
        remove(500, "remove", true),
        restore(5_000, "restore"),
        exec(5_500, "b", script),
    ];
    with(plan(requests), [write(20, "new")])
}

fn remove_again(script: &[&str]) -> Plan {
    let requests = vec![
        worktree(0, "a", false, script),
        remove(500, "remove", true),
        // An execution in a removed worktree makes it again.
        exec(5_000, "b", script),
        remove(5_002, "again", true),
    ];
    with(plan(requests), [write(20, "new")])
}

fn snapshots(script: &[&str]) -> Plan {
    let of = || "a".to_owned();
    let drop = |number, force| Verb::RemoveSnapshot { of: of(), number, force };
    let requests = vec![
        worktree(0, "a", false, script),
        remove(500, "remove", true),
        ask(5_000, "too early", drop(1, false)),
        restore(5_001, "restore"),
        ask(5_500, "drop", drop(1, false)),
    ];
    with(plan(requests), [write(20, "new")])
}

fn cleaning(requests: Vec<Request>) -> Plan {
    let mut plan = with(plan(requests), [write(20, "new")]);
    plan.settings.idle_ms = Some(1_000);
    plan.settings.orphan_ms = Some(1_000);
    plan.settings.cleanup_period_ms = Some(5_000);
    plan
}

fn cleanup(script: &[&str]) -> Plan {
    let gc = || Verb::Gc { dry_run: false };
    cleaning(vec![
        worktree(0, "a", false, script),
        ask(6_000, "clean", gc()),
        exec(16_000, "b", script),
    ])
}

fn keep(script: &[&str]) -> Plan {
    let keep = |keep| Verb::Keep { of: "a".to_owned(), keep };
    cleaning(vec![
        worktree(0, "a", false, script),
        ask(100, "keep", keep(true)),
        ask(12_000, "no more", keep(false)),
    ])
}

fn host_restart(script: &[&str]) -> Plan {
    let requests = vec![worktree(0, "a", true, script), stop(800, "stop", "a", None)];
    with(plan(requests), [write(20, "new"), at(100, Blow::KillHost), at(302, Blow::KillHost)])
}

fn host_leaves(script: &[&str]) -> Plan {
    let requests = vec![worktree(0, "a", true, script), exec(100, "b", script)];
    with(plan(requests), [write(20, "new"), at(100, Blow::LeaveHost)])
}

fn two_hosts(script: &[&str]) -> Plan {
    let requests =
        vec![worktree(0, "a", true, script), stop(110, "stop", "a", None), exec(300, "b", script)];
    with(plan(requests), [write(20, "new"), at(100, Blow::SecondHost)])
}

/// A power loss that loses whatever was not synced.
#[must_use]
pub fn power_goes() -> Blow {
    let (journals, logs, store, worktrees) = (Tail::Gone, Tail::Gone, Tail::Gone, Tail::Gone);
    Blow::PowerLoss { journals, logs, store, worktrees }
}

fn power_loss(script: &[&str]) -> Plan {
    let requests = vec![worktree(0, "a", true, script), exec(300, "b", script)];
    with(plan(requests), [write(20, "new"), at(100, power_goes())])
}

fn dead_shim(script: &[&str]) -> Plan {
    let requests = vec![worktree(0, "a", true, script), exec(50, "b", script)];
    with(plan(requests), [at(100, Blow::KillShim { of: "a".to_owned() })])
}

/// What the command left is being stopped, and takes its time, when the shim dies.
fn dead_shim_after_the_end(script: &[&str]) -> Plan {
    let leaves = ["script", "fork", "ignore-term", "forever", "end", "exit:7"];
    let requests = vec![directory(0, "a", &leaves), directory(50, "b", script)];
    with(plan(requests), [at(100, Blow::KillShim { of: "a".to_owned() })])
}

/// As long after the restart as the first one was started after the boot another one is.
fn same_number(script: &[&str]) -> Plan {
    let requests = vec![directory(202, "a", script), directory(700, "b", script)];
    with(plan(requests), [at(500, power_goes())])
}

/// The stop that the first host has begun comes long after the second one has taken over.
fn slow_stop(_: &[&str]) -> Plan {
    let requests = vec![directory(0, "a", &["ignore-term"]), stop(90, "stop", "a", Some(60_000))];
    with(plan(requests), [at(100, Blow::SecondHost)])
}

/// The shim is stopped somewhere between the last output of its command and its own end.
fn stopped_shim<const EFFECT: u32>(_: &[&str]) -> Plan {
    let script = ["script", "wait", "out:last", "exit:0"];
    let stopped = Blow::StopShim { of: "a".to_owned(), effect: EFFECT };
    with(plan(vec![directory(0, "a", &script)]), [at(100, stopped)])
}

fn queue_limits(script: &[&str]) -> Plan {
    let mut plan = plan(vec![
        directory(0, "a", script),
        directory(1, "b", script),
        directory(2, "c", script),
        stop(500, "stop", "a", None),
        stop(3_000, "next", "b", None),
    ]);
    plan.settings.per_host = 1;
    plan
}

fn refused(script: &[&str]) -> Plan {
    let mut full = directory(50, "b", script);
    if let Verb::Run { launch, .. } = &mut full.verb {
        launch.refuse_when_full = true;
    }
    let mut plan = plan(vec![directory(0, "a", script), full, directory(60, "c", script)]);
    plan.settings.per_host = 1;
    plan.settings.queue = 1;
    plan
}

fn deadline(script: &[&str]) -> Plan {
    let mut run = worktree(0, "a", true, script);
    if let Verb::Run { launch, .. } = &mut run.verb {
        launch.timeout_ms = Some(398);
        launch.idle_timeout_ms = Some(2_000);
    }
    with(plan(vec![run]), [write(20, "new")])
}

fn log_cap(script: &[&str]) -> Plan {
    let mut plan = plan(vec![directory(0, "a", script)]);
    plan.settings.log_cap_bytes = 4;
    plan
}

fn commit(script: &[&str]) -> Plan {
    let commit = || Verb::Commit { of: "a".to_owned() };
    let requests = vec![
        worktree(0, "a", false, script),
        ask(30, "early", commit()),
        ask(600, "late", commit()),
        ask(5_000, "again", commit()),
    ];
    with(plan(requests), [write(500, "new")])
}

fn same_key(script: &[&str]) -> Plan {
    let requests =
        vec![directory(0, "a", script), directory(1, "a", script), directory(500, "a", script)];
    plan(requests)
}

fn followed(script: &[&str]) -> Plan {
    let of = "a".to_owned();
    plan(vec![directory(0, "a", script), ask(10, "follow", Verb::Follow { of })])
}

fn chained(script: &[&str]) -> Plan {
    let run = chain(0, "a", true, "file:made.txt:made exit:0", script, "file:tidy.txt:tidy exit:0");
    with(plan(vec![run]), [write(20, "new")])
}

fn untidy(script: &[&str]) -> Plan {
    let run = chain(0, "a", true, "", script, "file:half.txt:half exit:1");
    with(plan(vec![run]), [write(20, "new")])
}

fn stopped_chain(script: &[&str]) -> Plan {
    let run = chain(0, "a", true, "sleep:30 exit:0", script, "file:tidy.txt:tidy exit:0");
    let requests = vec![run, stop(35, "stop", "a", None)];
    with(plan(requests), [write(20, "new")])
}

fn send(at_ms: u64, name: &str) -> Request {
    let (of, text) = ("a".to_owned(), "more".to_owned());
    ask(at_ms, name, Verb::Send { of, text })
}

fn message(script: &[&str]) -> Plan {
    plan(vec![worktree(0, "a", true, script), send(30, "m1"), send(600, "m2")])
}

fn held_message(script: &[&str]) -> Plan {
    let hold = |held| Verb::Hold { of: "a".to_owned(), held };
    let (of, message) = ("a".to_owned(), "m1".to_owned());
    plan(vec![
        directory(0, "a", script),
        ask(10, "hold", hold(true)),
        send(30, "m1"),
        send(31, "m2"),
        ask(40, "change", Verb::Change { of, message, text: Some("other".to_owned()) }),
        ask(700, "release", hold(false)),
        ask(710, "stop", Verb::StopAttempt { of: "a".to_owned() }),
    ])
}

fn retry(script: &[&str]) -> Plan {
    let retry = || Verb::Retry { of: "a".to_owned() };
    let run = chain(0, "a", true, "", script, "file:tidy.txt:tidy exit:0");
    let requests = vec![run, ask(700, "t1", retry()), ask(5_000, "t2", retry())];
    with(plan(requests), [write(20, "new"), write(650, "later")])
}
