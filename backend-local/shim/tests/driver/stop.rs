//! Stops, deadlines, leftovers: after them nothing of the tree lives.

use windlass_core::execution::{Leftovers, SurvivorReason};
use windlass_core::outcome::{Deadline, Exit, Outcome, StoppedBy};
use windlass_core::shim::journal::Record;
use windlass_core::shim::message::{Launch, Notice};

use crate::place::{alive, hear, pids, say, signal, stop};
use crate::{Place, script};

const STOPPED: Outcome = Outcome::Stopped { by: StoppedBy::User };

/// Four shapes of descendant beside the shell: a child, a child in its own session, an orphan, and an orphan in its own
/// session. All write their numbers down, then the shell says that it is ready.
fn family(scratch: &str, then: &str) -> String {
    let member = format!("echo $$ >> {scratch}; exec sleep 300");
    format!(
        "sh -c '{member}' & setsid sh -c '{member}' & (sh -c '{member}' &); (setsid sh -c '{member}' &); \
         while [ $(wc -l < {scratch}) -lt 4 ]; do :; done; {then}"
    )
}

#[test]
fn a_stop_reaches_every_shape_of_descendant() {
    let place = Place::new();
    let scratch = place.scratch();
    std::fs::write(&scratch, "").unwrap();
    let mut host = place.launch(script(&family(&scratch, "echo ready; echo >$READY; wait")));
    host.ready();
    host.stop(100);
    let report = host.finished();
    assert_eq!((report.exit.outcome, report.survivors), (STOPPED, Vec::new()));
    let family = pids(&scratch);
    assert_eq!(family.len(), 4);
    assert!(!family.into_iter().any(alive));
}

#[test]
fn leftovers_of_a_natural_exit_are_ended_and_the_outcome_is_the_commands_own() {
    let place = Place::new();
    let scratch = place.scratch();
    std::fs::write(&scratch, "").unwrap();
    let mut host = place.launch(Launch { grace_ms: 100, ..script(&family(&scratch, "exit 7")) });
    let report = host.finished();
    assert_eq!(report.exit.outcome, Outcome::Exited { code: 7 });
    assert_eq!((report.survivors, report.more_survivors), (Vec::new(), 0));
    assert!(!pids(&scratch).into_iter().any(alive));
}

#[test]
fn leftovers_that_may_stay_live_on_and_are_named() {
    let place = Place::new();
    let scratch = place.scratch();
    std::fs::write(&scratch, "").unwrap();
    let leave = Launch { leftovers: Leftovers::Leave, ..script(&family(&scratch, "exit 0")) };
    let report = place.launch(leave).finished();
    let mut named = report.survivors.iter().map(|survivor| survivor.pid).collect::<Vec<_>>();
    let mut family = pids(&scratch);
    named.sort_unstable();
    family.sort_unstable();
    let living = family.iter().copied().filter(|pid| alive(*pid)).collect::<Vec<_>>();
    for pid in &family {
        signal(*pid, "KILL");
    }
    assert_eq!(living, family);
    assert_eq!(named, family);
    assert!(report.survivors.iter().all(|it| it.reason == SurvivorReason::Left));
    assert!(report.survivors.iter().all(|it| it.name == "sleep"));
    assert!(report.output_incomplete, "they hold the pipes");
}

#[test]
fn what_ignores_term_is_killed_after_the_grace() {
    let place = Place::new();
    let mut host =
        place.launch(script("trap '' TERM; echo ready; echo >$READY; while :; do sleep 300; done"));
    host.ready();
    host.stop(100);
    let report = host.finished();
    assert_eq!((report.exit.outcome, report.exit.exit), (STOPPED, Some(Exit::Signal(9))));
    let journal = place.journal();
    assert!(matches!(
        journal.records[..],
        [Record::Started(_), Record::Stopping(_), Record::Exited(_), Record::Final(_)]
    ));
    assert!(journal.exited().unwrap().after_our_signal);
}

#[test]
fn what_heeds_term_may_tidy_up_and_is_logged_while_it_does() {
    let place = Place::new();
    let tidy = "trap 'echo tidied; exit 5' TERM; echo ready; echo >$READY; while :; do read line <&1; done";
    let mut host = place.launch(script(tidy));
    host.ready();
    host.stop(20_000);
    let report = host.finished();
    assert_eq!((report.exit.outcome, report.exit.exit), (STOPPED, Some(Exit::Code(5))));
    assert_eq!(place.stdout(), "ready\ntidied\n");
}

#[test]
fn an_interrupt_can_come_first() {
    let place = Place::new();
    let mut host = place.launch(script(
        "trap 'exit 6' INT; echo ready; echo >$READY; while :; do read line <&1; done",
    ));
    host.ready();
    host.interrupt(20_000);
    let report = host.finished();
    assert_eq!((report.exit.outcome, report.exit.exit), (STOPPED, Some(Exit::Code(6))));
}

#[test]
fn a_stop_comes_through_the_socket_of_the_place_as_well() {
    let place = Place::new();
    let mut host = place.launch(script("sleep 300"));
    host.started();
    let (mut other, mut received) = (place.connect(), Vec::new());
    say(&mut other, &stop(5, 0));
    assert_eq!(hear(&mut other, &mut received), Some(Notice::StopTaken));
    assert_eq!(host.finished().exit.outcome, STOPPED);
}

#[test]
fn the_total_deadline_holds_though_the_host_is_gone() {
    let place = Place::new();
    let mut host = place.launch(Launch { total_ms: Some(200), ..script("sleep 300") });
    host.started();
    host.die();
    place.wait_for_lock();
    let limit = Deadline::Total;
    assert_eq!(place.journal().finished().unwrap().exit.outcome, Outcome::TimedOut { limit });
}

#[test]
fn the_idle_deadline_waits_for_silence() {
    let place = Place::new();
    let talk = "for n in 1 2 3 4; do echo $n; sleep 0.2; done; sleep 300";
    let report = place.launch(Launch { idle_ms: Some(1_500), ..script(talk) }).finished();
    assert_eq!(report.exit.outcome, Outcome::TimedOut { limit: Deadline::Idle });
    assert_eq!(place.stdout(), "1\n2\n3\n4\n");
}

#[test]
fn a_host_that_dies_harms_nothing() {
    let place = Place::new();
    let fifo = place.make_fifo("fifo");
    let text = format!("read line < {fifo}; echo $line; exit 4");
    let mut host = place.launch(script(&text));
    host.started();
    host.die();
    std::fs::write(&fifo, "went on\n").unwrap();
    place.wait_for_lock();
    assert_eq!(place.journal().finished().unwrap().exit.outcome, Outcome::Exited { code: 4 });
    assert_eq!(place.stdout(), "went on\n");
}

#[test]
fn a_request_to_the_shim_itself_is_a_stop_by_the_host() {
    let place = Place::new();
    let mut host = place.launch(script("echo ready; echo >$READY; sleep 300"));
    let started = host.started();
    signal(started.shim_pid, "TERM");
    let report = host.finished();
    assert_eq!(report.exit.outcome, Outcome::Stopped { by: StoppedBy::Host });
}

#[test]
fn a_tree_that_forks_as_it_dies_is_killed_to_the_last() {
    let place = Place::new();
    let scratch = place.scratch();
    // Each generation leaves its session and its parent, and makes the next one.
    let hop = format!("echo $$ >> {scratch}; trap '' TERM; setsid sh {scratch}.sh & exit 0");
    std::fs::write(format!("{scratch}.sh"), hop).unwrap();
    let mut host =
        place.launch(script(&format!("sh {scratch}.sh; echo ready; echo >$READY; sleep 300")));
    host.ready();
    host.stop(0);
    let report = host.finished();
    assert_eq!((report.exit.outcome, report.survivors), (STOPPED, Vec::new()));
    let last = *pids(&scratch).last().unwrap();
    assert!(!alive(last));
}
