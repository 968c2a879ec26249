//! The scenarios, and what their clients ask for.

use super::{Dice, commands};
use crate::simulation::plan::{
    Blow, Intervention, Launch, Plan, Request, Settings, Swarm, Verb, When,
};

/// One kind of plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One execution, perhaps stopped.
    One,
    /// Two executions and two requests about each.
    TwoByTwo,
    /// More than may run or wait.
    Limits,
    /// Deadlines against exits.
    Deadlines,
    /// More output than is kept.
    LogCap,
    /// Worktrees with work in them that are committed, removed and made again.
    Worktrees,
    /// The same keys again and again.
    Keys,
    /// What outlives its execution.
    Survivors,
    /// Messages to standard input.
    Input,
    /// Cleanup by itself and on request.
    Cleanup,
    /// Scripts around commands that change something.
    Chains,
    /// Messages that wait, are changed, held and let go.
    Messages,
    /// What was done is undone and tried again.
    Retries,
    /// A bit of everything.
    Everything,
}

/// Every scenario.
pub const FAMILY: [Scenario; 14] = [
    Scenario::One,
    Scenario::TwoByTwo,
    Scenario::Limits,
    Scenario::Deadlines,
    Scenario::LogCap,
    Scenario::Worktrees,
    Scenario::Keys,
    Scenario::Survivors,
    Scenario::Input,
    Scenario::Cleanup,
    Scenario::Chains,
    Scenario::Messages,
    Scenario::Retries,
    Scenario::Everything,
];

impl Scenario {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::TwoByTwo => "two by two",
            Self::Limits => "limits",
            Self::Deadlines => "deadlines",
            Self::LogCap => "log cap",
            Self::Worktrees => "worktrees",
            Self::Keys => "keys",
            Self::Survivors => "survivors",
            Self::Input => "input",
            Self::Cleanup => "cleanup",
            Self::Chains => "chains",
            Self::Messages => "messages",
            Self::Retries => "retries",
            Self::Everything => "everything",
        }
    }
}

/// Collects what clients ask for.
struct Script<'a> {
    dice: &'a mut Dice,
    plan: Plan,
    others: u32,
}

impl Script<'_> {
    fn ask(&mut self, at_ms: u64, name: &str, owner: Option<&str>, verb: Verb) {
        let owner = owner.map(str::to_owned);
        self.plan.requests.push(Request { at_ms, name: name.to_owned(), owner, verb });
    }

    /// Asks for something that starts nothing, under a name of its own.
    fn then(&mut self, at_ms: u64, verb: Verb) {
        self.others += 1;
        let name = format!("q{}", self.others);
        self.ask(at_ms, &name, None, verb);
    }

    fn run(&mut self, at_ms: u64, name: &str, worktree: bool, launch: Launch) {
        let commit = worktree && self.dice.happens(60);
        let (setup, cleanup) = (String::new(), String::new());
        self.ask(at_ms, name, None, Verb::Run { worktree, commit, setup, cleanup, launch });
    }

    /// A run in a worktree with scripts around it, of which what it changes is mostly committed.
    fn chain(&mut self, at_ms: u64, name: &str, launch: Launch) {
        let commit = self.dice.happens(75);
        let setup = if self.dice.happens(60) { commands::setup(self.dice) } else { "" };
        let cleanup = if self.dice.happens(75) { commands::cleanup(self.dice) } else { "" };
        let (setup, cleanup) = (setup.to_owned(), cleanup.to_owned());
        let verb = Verb::Run { worktree: true, commit, setup, cleanup, launch };
        self.ask(at_ms, name, None, verb);
    }

    fn message(&mut self, at_ms: u64, name: &str, of: &str) {
        let (of, text) = (of.to_owned(), format!("the text of {name}"));
        self.ask(at_ms, name, None, Verb::Send { of, text });
    }

    fn exec(&mut self, at_ms: u64, name: &str, of: &str, launch: Launch) {
        let dev_server = self.dice.happens(30);
        let of = of.to_owned();
        self.ask(at_ms, name, None, Verb::Exec { of, dev_server, launch });
    }

    fn strike(&mut self, at_ms: u64, what: Blow) {
        self.plan.interventions.push(Intervention { when: When::At(at_ms), what });
    }

    /// Something about an attempt, of what changes its state.
    fn about(&mut self, at_ms: u64, of: &str) {
        let of = of.to_owned();
        let grace_ms = *self.dice.pick(&[None, None, Some(0), Some(800)]);
        let (force, branch) = (self.dice.happens(50), self.dice.happens(15));
        let keep = self.dice.happens(50);
        let verb = match self.dice.below(13) {
            0 | 1 => Verb::Stop { of, grace_ms },
            2 => Verb::StopAttempt { of },
            3 => Verb::Complete { of },
            4 => Verb::Commit { of },
            5 | 6 => Verb::Remove { of, force, branch },
            7 => Verb::Restore { of, snapshot: None },
            8 => Verb::Keep { of, keep },
            9 => Verb::Diff { of },
            10 => Verb::Wait { of },
            11 => Verb::RemoveSnapshot { of, number: 1, force },
            _ => Verb::Follow { of },
        };
        self.then(at_ms, verb);
    }

    fn moment(&mut self) -> u64 {
        // Most of what matters happens around the beginning.
        match self.dice.below(4) {
            0 => self.dice.between(0, 30),
            1 => self.dice.between(0, 900),
            2 => self.dice.between(0, 6_000),
            _ => self.dice.between(0, 30_000),
        }
    }
}

/// Makes the plan of a scenario, with nothing going wrong yet.
pub(super) fn plan(seed: u64, scenario: Scenario, dice: &mut Dice) -> Plan {
    let plan = Plan {
        seed,
        scenario: scenario.name().to_owned(),
        settings: Settings::default(),
        requests: Vec::new(),
        interventions: Vec::new(),
        swarm: Swarm::default(),
        fixed: Vec::new(),
    };
    let mut script = Script { dice, plan, others: 0 };
    match scenario {
        Scenario::One => one(&mut script),
        Scenario::TwoByTwo => two_by_two(&mut script),
        Scenario::Limits => limits(&mut script),
        Scenario::Deadlines => deadlines(&mut script),
        Scenario::LogCap => log_cap(&mut script),
        Scenario::Worktrees => worktrees(&mut script),
        Scenario::Keys => keys(&mut script),
        Scenario::Survivors => survivors(&mut script),
        Scenario::Input => input(&mut script),
        Scenario::Cleanup => cleanup(&mut script),
        Scenario::Chains => chains(&mut script),
        Scenario::Messages => messages(&mut script),
        Scenario::Retries => retries(&mut script),
        Scenario::Everything => everything(&mut script),
    }
    let mut plan = script.plan;
    plan.requests.sort_by_key(|request| request.at_ms);
    plan
}

fn one(script: &mut Script<'_>) {
    let launch = commands::any(script.dice);
    let worktree = script.dice.happens(60);
    script.run(0, "r1", worktree, launch);
    script.then(1, Verb::Follow { of: "r1".to_owned() });
    if script.dice.happens(60) {
        let at = script.moment();
        script.about(at, "r1");
    }
}

fn two_by_two(script: &mut Script<'_>) {
    let launch = commands::any(script.dice);
    script.run(0, "r1", true, launch);
    let launch = commands::any(script.dice);
    if script.dice.happens(50) {
        let worktree = script.dice.happens(50);
        script.run(20, "r2", worktree, launch);
    } else {
        script.exec(20, "r2", "r1", launch);
    }
    for name in ["r1", "r1", "r2", "r2"] {
        let at = script.moment();
        script.about(at, name);
    }
}

fn limits(script: &mut Script<'_>) {
    let settings = &mut script.plan.settings;
    settings.per_owner = u32::try_from(script.dice.between(1, 2)).unwrap_or(1);
    settings.per_host = u32::try_from(script.dice.between(1, 3)).unwrap_or(1);
    settings.queue = u32::try_from(script.dice.between(1, 4)).unwrap_or(1);
    for n in 1..=script.dice.between(3, 6) {
        let mut launch = commands::any(script.dice);
        launch.refuse_when_full = script.dice.happens(20);
        let owner = *script.dice.pick(&[None, Some("ann"), Some("bob")]);
        let (at, name) = (script.dice.between(0, 2_000), format!("r{n}"));
        let worktree = script.dice.happens(20);
        let (setup, cleanup) = (String::new(), String::new());
        let verb = Verb::Run { worktree, commit: false, setup, cleanup, launch };
        script.ask(at, &name, owner, verb);
        if script.dice.happens(50) {
            let at = script.moment();
            script.then(at, Verb::Stop { of: name, grace_ms: None });
        }
    }
}

fn deadlines(script: &mut Script<'_>) {
    for name in ["r1", "r2"] {
        let mut launch = commands::any(script.dice);
        let ms = *script.dice.pick(&[1, 300, 700, 2_000, 9_000]);
        if script.dice.happens(60) {
            launch.timeout_ms = Some(ms);
        } else {
            launch.idle_timeout_ms = Some(ms);
        }
        let worktree = script.dice.happens(30);
        script.run(0, name, worktree, launch);
        if script.dice.happens(40) {
            // About when the deadline fires.
            script.then(ms.saturating_sub(1), Verb::Stop { of: name.to_owned(), grace_ms: None });
        }
    }
}

fn log_cap(script: &mut Script<'_>) {
    script.plan.settings.log_cap_bytes = *script.dice.pick(&[1_000, 20_000, 150_000]);
    let argv = ["script", "burst:300:80", "sleep:50", "line:150000", "burst:30:90", "exit:0"];
    let argv = argv.map(str::to_owned).to_vec();
    script.run(0, "r1", false, Launch { argv, ..Launch::default() });
    script.then(1, Verb::Follow { of: "r1".to_owned() });
    let launch = commands::ending(script.dice);
    script.run(5, "r2", false, launch);
    script.then(6, Verb::Follow { of: "r2".to_owned() });
}

fn worktrees(script: &mut Script<'_>) {
    for name in ["r1", "r2"] {
        let launch = commands::writing(script.dice);
        script.run(0, name, true, launch);
        for _ in 0..script.dice.between(1, 4) {
            let at = script.moment();
            let of = name.to_owned();
            let force = script.dice.happens(60);
            let verb = match script.dice.below(6) {
                0 | 1 => Verb::Remove { of, force, branch: script.dice.happens(20) },
                2 | 3 => Verb::Restore { of, snapshot: None },
                4 => Verb::Commit { of },
                _ => Verb::RemoveSnapshot { of, number: 1, force },
            };
            script.then(at, verb);
        }
        if script.dice.happens(40) {
            let at = script.moment();
            let (path, text) = ("mine.txt".to_owned(), "by hand".to_owned());
            script.strike(at, Blow::Write { of: name.to_owned(), path, text });
        }
        if script.dice.happens(20) {
            let at = script.moment();
            let launch = commands::ending(script.dice);
            script.exec(at, &format!("{name}x"), name, launch);
        }
        if script.dice.happens(8) {
            let at = script.moment();
            script.strike(at, Blow::DeleteDirectory { of: name.to_owned() });
        }
    }
}

fn keys(script: &mut Script<'_>) {
    let launch = commands::any(script.dice);
    let worktree = script.dice.happens(40);
    let (setup, cleanup) = (String::new(), String::new());
    let verb = Verb::Run { worktree, commit: false, setup, cleanup, launch };
    for _ in 0..script.dice.between(2, 4) {
        let at = script.moment();
        script.ask(at, "r1", None, verb.clone());
    }
    let launch = commands::any(script.dice);
    let verb = Verb::Exec { of: "r1".to_owned(), dev_server: false, launch };
    for _ in 0..2 {
        let at = script.moment();
        script.ask(at, "r2", None, verb.clone());
    }
}

fn survivors(script: &mut Script<'_>) {
    let scripts: [&[&str]; 5] = [
        &["leave-child"],
        &["leave-escapee"],
        &["script", "fork", "stuck", "forever", "end", "exit:0"],
        &["script", "daemon", "ignore-term", "forever", "end", "forever"],
        &["script", "fork", "setsid", "sleep:50000", "end", "sleep:1000", "exit:0"],
    ];
    for name in ["r1", "r2"] {
        let argv = script.dice.pick(&scripts).iter().map(|word| (*word).to_owned()).collect();
        let leave = script.dice.happens(40);
        let worktree = script.dice.happens(40);
        script.run(0, name, worktree, Launch { argv, leave, ..Launch::default() });
        let at = script.moment();
        script.about(at, name);
    }
}

fn input(script: &mut Script<'_>) {
    script.run(0, "r1", false, commands::echo());
    script.then(1, Verb::Follow { of: "r1".to_owned() });
    for n in 0..script.dice.between(1, 4) {
        let at = script.moment();
        let (of, text, close) = ("r1".to_owned(), format!("message {n}\n"), false);
        script.then(at, Verb::Input { of, text, close });
    }
    if script.dice.happens(60) {
        let at = script.moment();
        let (of, text) = ("r1".to_owned(), String::new());
        script.then(at, Verb::Input { of, text, close: true });
    }
}

fn cleanup(script: &mut Script<'_>) {
    let settings = &mut script.plan.settings;
    settings.cleanup_period_ms = Some(script.dice.between(2_000, 8_000));
    settings.idle_ms = Some(script.dice.between(3_000, 12_000));
    settings.orphan_ms = Some(4_000);
    for name in ["r1", "r2"] {
        let launch = commands::writing(script.dice);
        script.run(0, name, true, launch);
        let at = script.moment();
        script.about(at, name);
        if script.dice.happens(40) {
            let at = script.moment();
            let dry_run = script.dice.happens(40);
            script.then(at, Verb::Gc { dry_run });
        }
    }
}

fn chains(script: &mut Script<'_>) {
    for name in ["r1", "r2"] {
        let launch = match script.dice.happens(80) {
            true => commands::writing(script.dice),
            false => commands::any(script.dice),
        };
        script.chain(0, name, launch);
        for _ in 0..script.dice.between(0, 2) {
            let at = script.moment();
            script.about(at, name);
        }
        if script.dice.happens(40) {
            let at = script.moment();
            script.message(at, &format!("{name}m"), name);
        }
        if script.dice.happens(20) {
            let at = script.moment();
            let launch = commands::ending(script.dice);
            script.exec(at, &format!("{name}x"), name, launch);
        }
    }
}

fn messages(script: &mut Script<'_>) {
    let launch = match script.dice.below(4) {
        0 => commands::writing(script.dice),
        1 => commands::any(script.dice),
        _ => commands::reading(),
    };
    if script.dice.happens(50) {
        script.chain(0, "r1", launch);
    } else {
        let worktree = script.dice.happens(60);
        script.run(0, "r1", worktree, launch);
    }
    let mut sent = Vec::new();
    for n in 1..=script.dice.between(1, 4) {
        let at = script.moment();
        let name = format!("m{n}");
        script.message(at, &name, "r1");
        sent.push((at, name));
    }
    for _ in 0..script.dice.between(0, 3) {
        let (after, message) = script.dice.pick(&sent).clone();
        let at = after + script.dice.below(400);
        let of = "r1".to_owned();
        let verb = match script.dice.below(4) {
            0 => Verb::Change { of, message, text: Some("something else".to_owned()) },
            1 => Verb::Change { of, message, text: None },
            _ => Verb::Hold { of, held: script.dice.happens(50) },
        };
        script.then(at, verb);
    }
    for _ in 0..script.dice.between(0, 2) {
        let at = script.moment();
        script.about(at, "r1");
    }
    if script.dice.happens(60) {
        let (at, of) = (script.moment(), "r1".to_owned());
        script.then(at, Verb::Hold { of, held: false });
    }
}

fn retries(script: &mut Script<'_>) {
    let launch = match script.dice.happens(75) {
        true => commands::writing(script.dice),
        false => commands::any(script.dice),
    };
    script.chain(0, "r1", launch);
    for n in 1..=script.dice.between(1, 3) {
        let at = script.dice.between(200, 20_000);
        script.ask(at, &format!("t{n}"), None, Verb::Retry { of: "r1".to_owned() });
    }
    if script.dice.happens(50) {
        let at = script.moment();
        let (path, text) = ("mine.txt".to_owned(), "by hand".to_owned());
        script.strike(at, Blow::Write { of: "r1".to_owned(), path, text });
    }
    if script.dice.happens(50) {
        let at = script.moment();
        script.message(at, "m1", "r1");
    }
    for _ in 0..script.dice.between(0, 2) {
        let at = script.moment();
        script.about(at, "r1");
    }
}

fn everything(script: &mut Script<'_>) {
    let names = ["r1", "r2", "r3"];
    for name in names {
        let launch = commands::any(script.dice);
        let at = script.moment();
        let worktree = script.dice.happens(60);
        script.run(at, name, worktree, launch);
    }
    for n in 0..script.dice.between(2, 8) {
        let at = script.moment();
        let name = *script.dice.pick(&names);
        if script.dice.happens(25) {
            let launch = commands::any(script.dice);
            script.exec(at, &format!("x{n}"), name, launch);
        } else {
            script.about(at, name);
        }
    }
}
