//! The scripts, each as the shell of a real machine has it and as the words of a world.

use std::time::Duration;

use windlass_core::action::{Leftovers, OutputMode, Stdin};
use windlass_core::container_service::LaunchSpec;

/// From TERM to KILL where the command heeds TERM.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// From TERM to KILL where it does not.
const SHORT: Duration = Duration::from_millis(150);
/// From TERM to KILL for what a dead shim left.
pub(super) const ORPHAN_GRACE: Duration = Duration::from_millis(150);

/// One script and what is done to it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) shell: &'static str,
    pub(super) words: Vec<&'static [u8]>,
    pub(super) has_directory: bool,
    pub(super) with: fn(&mut LaunchSpec),
    /// How many bytes of output are waited for before anything is done to it.
    pub(super) after: usize,
    pub(super) act: Act,
    /// Of the output only the sums are compared.
    pub(super) sums_only: bool,
}

/// What is done to a script.
pub(super) enum Act {
    /// Nothing.
    Watch,
    /// It is stopped.
    Stop { grace: Duration },
    /// It is ended as complete.
    Complete,
    /// Its shim is killed while a host watches.
    KillShim,
    /// Its shim is killed while there is no host.
    KillShimWithoutHost,
    /// The host is restarted, adopts it and stops it.
    Restart,
    /// These messages are written to it, the last one with its end.
    Feed(&'static [&'static [u8]]),
}

fn case(name: &'static str, shell: &'static str, words: &[&'static [u8]]) -> Case {
    let (with, after, act): (fn(&mut LaunchSpec), _, _) = (|_| (), 0, Act::Watch);
    let (words, has_directory, sums_only) = (words.to_vec(), true, false);
    Case { name, shell, words, has_directory, with, after, act, sums_only }
}

/// A script that says `ready`, to which something is done then.
fn ready(name: &'static str, shell: &'static str, words: &[&'static [u8]], act: Act) -> Case {
    Case { after: "ready".len(), act, ..case(name, shell, words) }
}

pub(super) fn ends() -> Vec<Case> {
    vec![
        case("a code of 0", "exit 0", &[b"exit", b"0"]),
        case("a code of 42", "exit 42", &[b"exit", b"42"]),
        case("a code of 255", "exit 255", &[b"exit", b"255"]),
        case("its own TERM", "kill -15 $$", &[b"die", b"15"]),
        case("its own KILL", "kill -9 $$", &[b"die", b"9"]),
        case("its own ABRT", "kill -6 $$", &[b"die", b"6"]),
        case("a missing program", "missing", &[b"no-such-program"]),
        case("a file that may not be executed", "not-executable", &[b"not-executable"]),
        Case { has_directory: false, ..case("a missing directory", "exit 0", &[b"exit", b"0"]) },
        Case {
            with: |spec| spec.total = Some(Duration::from_millis(200)),
            ..case("a total deadline", "printf ready; exec sleep 600", &[b"forever"])
        },
        Case {
            with: |spec| spec.total = Some(Duration::from_millis(200)),
            ..case(
                "a total deadline that is not heeded",
                "trap '' TERM; printf ready; exec sleep 600",
                &[b"ignore-term"],
            )
        },
        Case {
            with: |spec| spec.idle = Some(Duration::from_millis(200)),
            ..case("an idle deadline", "printf ready; exec sleep 600", &[b"forever"])
        },
        Case {
            with: |spec| spec.idle = Some(Duration::from_millis(400)),
            ..case(
                "an idle deadline that output puts off",
                "for i in 1 2 3; do printf $i; sleep 0.2; done; exit 4",
                &[
                    b"script",
                    b"out:1",
                    b"sleep:200",
                    b"out:2",
                    b"sleep:200",
                    b"out:3",
                    b"sleep:200",
                    b"exit:4",
                ],
            )
        },
    ]
}

pub(super) fn output() -> Vec<Case> {
    vec![
        case("nothing", ":", &[b"script"]),
        case("both streams", "printf left; printf right >&2", &[b"print", b"left", b"right"]),
        case(
            "a burst of lines",
            "for i in a b c d e; do printf '%s%s%s\\n' $i $i $i; done",
            &[b"script", b"burst:5:3"],
        ),
        case(
            "one huge line",
            "head -c 3000000 /dev/zero | tr '\\0' x",
            &[b"script", b"line:3000000"],
        ),
        case(
            "a character in two parts",
            "printf '\\342'; sleep 0.02; printf '\\202\\254'",
            &[b"script", b"out:\xe2", b"sleep:20", b"out:\x82\xac"],
        ),
        case(
            "a character that never ends",
            "printf '\\342\\202'; sleep 0.1; printf end",
            &[b"script", b"out:\xe2\x82", b"sleep:100", b"out:end"],
        ),
        Case {
            with: |spec| spec.output = OutputMode::Merged,
            ..case(
                "one pipe for both",
                "printf a; printf b >&2; printf c",
                &[b"script", b"out:a", b"err:b", b"out:c"],
            )
        },
        Case {
            with: |spec| spec.log_cap_bytes = 128 << 10,
            // Where entries are cut depends on when they are read, and with it what is kept.
            sums_only: true,
            ..case(
                "more than the log keeps",
                "head -c 1000000 /dev/zero | tr '\\0' x",
                &[b"script", b"line:1000000"],
            )
        },
        Case {
            with: |spec| spec.stdin = Stdin::Messages,
            act: Act::Feed(&[b"one\n", b"two\n", b"three"]),
            ..ready("what is written to it", "printf ready; exec cat", &[b"echo-stdin"], Act::Watch)
        },
        case(
            "a child that writes after the exit",
            "(sleep 0.1; printf late) & printf early; exit 3",
            &[b"script", b"fork", b"sleep:100", b"out:late", b"end", b"out:early", b"exit:3"],
        ),
        case(
            "a child that writes too late",
            "(sleep 30; printf late) & printf early; exit 3",
            &[b"script", b"fork", b"sleep:30000", b"out:late", b"end", b"out:early", b"exit:3"],
        ),
    ]
}

pub(super) fn stops() -> Vec<Case> {
    let stop = |grace| Act::Stop { grace };
    vec![
        ready("TERM", "printf ready; exec sleep 600", &[b"forever"], stop(GRACE)),
        ready(
            "TERM that is ignored",
            "trap '' TERM; printf ready; exec sleep 600",
            &[b"ignore-term"],
            stop(SHORT),
        ),
        ready("no grace", "printf ready; exec sleep 600", &[b"forever"], stop(Duration::ZERO)),
        ready(
            "TERM that is caught",
            "exec 2> /dev/null; trap 'sleep 0.05; exit 7' TERM; printf ready; sleep 600 & wait $!; sleep 600",
            &[b"script", b"delay-term:50:7", b"out:ready", b"forever"],
            stop(GRACE),
        ),
        ready(
            "TERM that is caught for too long",
            "exec 2> /dev/null; trap 'sleep 600' TERM; printf ready; sleep 600 & wait $!",
            &[b"script", b"delay-term:600000:7", b"out:ready", b"forever"],
            stop(SHORT),
        ),
        ready("completion", "printf ready; exec sleep 600", &[b"forever"], Act::Complete),
        ready(
            "a child of the group",
            "sleep 600 & printf ready; wait",
            &[b"script", b"fork", b"forever", b"end", b"out:ready", b"forever"],
            stop(GRACE),
        ),
        ready(
            "a child in a session of its own",
            "setsid sleep 600 & printf ready; wait",
            &[b"script", b"fork", b"setsid", b"forever", b"end", b"out:ready", b"forever"],
            stop(GRACE),
        ),
        ready(
            "a child in a session of its own that ignores TERM",
            "setsid sh -c \"trap '' TERM; printf ready; exec sleep 600\" & wait",
            &[
                b"script",
                b"fork",
                b"setsid",
                b"ignore-term",
                b"out:ready",
                b"forever",
                b"end",
                b"forever",
            ],
            stop(SHORT),
        ),
    ]
}

pub(super) fn trees() -> Vec<Case> {
    let leave: fn(&mut LaunchSpec) = |spec| spec.leftovers = Leftovers::Leave;
    vec![
        case(
            "a child that holds no pipe",
            "sleep 600 > /dev/null 2>&1 & exit 0",
            &[b"leave-child"],
        ),
        case("an escapee that holds the pipes", "setsid sleep 600 & exit 0", &[b"leave-escapee"]),
        case(
            "a grandchild whose parent is gone",
            "(setsid sleep 600 > /dev/null 2>&1 &) ; exit 5",
            &[b"script", b"daemon", b"close", b"forever", b"end", b"exit:5"],
        ),
        case(
            "a child that ignores TERM",
            "sh -c \"trap '' TERM; exec sleep 600\" > /dev/null 2>&1 & sleep 0.1; exit 0",
            &[b"script", b"fork", b"ignore-term", b"close", b"forever", b"end", b"sleep:100"],
        ),
        case(
            "an escapee without a mark",
            "env -i setsid sleep 600 > /dev/null 2>&1 & exit 0",
            &[b"script", b"fork", b"setsid", b"unmark", b"close", b"forever", b"end"],
        ),
        Case {
            with: leave,
            ..case("a child that is left", "sleep 600 > /dev/null 2>&1 & exit 0", &[b"leave-child"])
        },
        Case {
            with: leave,
            ..case(
                "a child that is left with the pipes",
                "sleep 600 & exit 0",
                &[b"script", b"fork", b"forever", b"end"],
            )
        },
        case(
            "a child that ends first",
            "(exit 9) & sleep 0.1; exit 2",
            &[b"script", b"fork", b"exit:9", b"end", b"sleep:100", b"exit:2"],
        ),
    ]
}

pub(super) fn deaths() -> Vec<Case> {
    vec![
        ready("a restart", "printf ready; exec sleep 600", &[b"forever"], Act::Restart),
        ready("a killed shim", "printf ready; exec sleep 600", &[b"forever"], Act::KillShim),
        ready(
            "a killed shim whose command ignores TERM",
            "trap '' TERM; printf ready; exec sleep 600",
            &[b"ignore-term"],
            Act::KillShim,
        ),
        ready(
            "a killed shim with an escapee",
            "setsid sleep 600 & printf ready; wait",
            &[b"script", b"fork", b"setsid", b"forever", b"end", b"out:ready", b"forever"],
            Act::KillShim,
        ),
        ready(
            "a killed shim and no host",
            "printf ready; exec sleep 600",
            &[b"forever"],
            Act::KillShimWithoutHost,
        ),
        ready(
            "a killed shim, a daemon and no host",
            "(setsid sleep 600 > /dev/null 2>&1 &); printf ready; exec sleep 600",
            &[b"script", b"daemon", b"close", b"forever", b"end", b"out:ready", b"forever"],
            Act::KillShimWithoutHost,
        ),
    ]
}
