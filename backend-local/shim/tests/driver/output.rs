//! What goes through the pipes: output exact and in order, input once and in order.

use windlass_core::execution::{Leftovers, OutputMode, Stdin};
use windlass_core::outcome::Outcome;
use windlass_core::shim::frame::Stream;
use windlass_core::shim::message::{InputRefusal, Launch, Notice};

use crate::place::Item;
use crate::{Place, script};

#[test]
fn streams_are_told_apart_and_bytes_are_exact() {
    let place = Place::new();
    let text = r"printf 'a\377\0b\n'; printf 'oops' >&2; printf 'no newline'";
    let report = place.launch(script(text)).finished();
    assert_eq!(place.stream(Stream::Stdout), b"a\xff\0b\nno newline");
    assert_eq!(place.stream(Stream::Stderr), b"oops");
    assert_eq!(report.bytes, 5 + 4 + 10);
    assert!(!report.output_incomplete);
}

#[test]
fn one_pipe_keeps_the_order_of_writing() {
    let place = Place::new();
    let text = "for n in 1 2 3 4 5 6 7 8 9; do echo $n; echo $n >&2; done";
    place.launch(Launch { output: OutputMode::Merged, ..script(text) }).finished();
    assert_eq!(place.stdout(), "1\n1\n2\n2\n3\n3\n4\n4\n5\n5\n6\n6\n7\n7\n8\n8\n9\n9\n");
}

#[test]
fn a_silent_command_leaves_no_segment() {
    let place = Place::new();
    let report = place.launch(script(":")).finished();
    assert_eq!((report.last_seq, report.bytes), (0, 0));
    assert_eq!(place.log(), []);
}

#[test]
fn a_great_deal_of_output_without_a_newline_is_exact() {
    let place = Place::new();
    let report = place.launch(script("head -c 20000000 /dev/zero | tr '\\0' x")).finished();
    assert_eq!(report.bytes, 20_000_000);
    let output = place.stream(Stream::Stdout);
    assert!(output.len() == 20_000_000 && output.iter().all(|byte| *byte == b'x'));
    assert_eq!(place.log().len(), 3, "segments of eight megabytes");
}

#[test]
fn what_was_written_before_a_quick_exit_is_all_there() {
    for _ in 0..20 {
        let place = Place::new();
        let mut host = place.launch(script("seq 1 5000; seq 1 5000 >&2; exit 1"));
        host.exited();
        // Already when the outcome is told, and not only at the end.
        let (segments, _) = place.log_so_far();
        let lines = segments.into_iter().flat_map(|(_, items)| items).map(|item| match item {
            Item::Entry { bytes, .. } => bytes.iter().filter(|byte| **byte == b'\n').count(),
            Item::Gap(gap) => panic!("{gap:?}"),
        });
        assert_eq!(lines.sum::<usize>(), 10_000);
        host.finished();
    }
}

#[test]
fn a_pipe_that_is_held_open_from_outside_is_waited_for_but_not_for_ever() {
    let place = Place::new();
    let fifo = place.make_fifo("fifo");
    let text = format!("read line < {fifo} & exit 0");
    let leave = Launch { leftovers: Leftovers::Leave, ..script(&text) };
    let begun = std::time::Instant::now();
    let report = place.launch(leave).finished();
    let took = begun.elapsed();
    std::fs::write(&fifo, "go\n").unwrap();
    assert!(report.output_incomplete);
    assert_eq!(report.exit.outcome, Outcome::Exited { code: 0 });
    assert!(took.as_millis() >= 500, "{took:?}");
    assert!(took.as_secs() < 20, "{took:?}");
}

#[test]
fn whoever_finishes_within_the_wait_is_heard() {
    let place = Place::new();
    let text = "(sleep 0.1; echo late) & echo early; exit 0";
    let mut host = place.launch(script(text));
    let report = host.finished();
    assert_eq!(place.stdout(), "early\nlate\n");
    assert!(!report.output_incomplete);
}

fn feeding(text: &str) -> Launch {
    Launch { stdin: Stdin::Messages, ..script(text) }
}

#[test]
fn input_is_logged_and_written_once() {
    let place = Place::new();
    let mut host = place.launch(feeding("exec cat"));
    host.started();
    host.feed(0, b"one\n", false, false);
    host.feed(0, b"one\n", false, false);
    host.feed(2, b"three\n", false, false);
    host.feed(1, b"two\n", false, true);
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(match host.hear() {
            Some(Notice::InputTaken { position, .. }) => Ok(position),
            Some(Notice::InputRefused { reason, next, .. }) => Err((reason, next)),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(answers, [Ok(0), Ok(0), Err((InputRefusal::NotNext, 1)), Ok(1)]);
    assert_eq!(host.finished().exit.outcome, Outcome::Exited { code: 0 });
    assert_eq!(place.stdout(), "one\ntwo\n");
    assert_eq!(place.stream(Stream::Stdin), b"one\ntwo\n");
}

#[test]
fn a_secret_is_written_and_only_its_length_is_logged() {
    let place = Place::new();
    let mut host = place.launch(feeding("read word; [ \"$word\" = hunter2 ]"));
    host.started();
    host.feed(0, b"hunter2\n", true, false);
    assert_eq!(host.finished().exit.outcome, Outcome::Exited { code: 0 });
    let items = place.log().into_iter().flat_map(|(_, items)| items).collect::<Vec<_>>();
    let secret =
        Item::Entry { seq: 1, stream: Stream::Stdin, partial: false, bytes: Vec::new(), len: 8 };
    assert_eq!(items, [secret]);
}

#[test]
fn a_command_that_reads_nothing_makes_the_host_wait_and_not_the_shim_grow() {
    let place = Place::new();
    let mut host = place.launch(feeding("sleep 300"));
    host.started();
    let half = vec![b'x'; 600 << 10];
    host.feed(0, &half, false, false);
    host.feed(1, &half, false, false);
    host.feed(2, &half, false, false);
    let mut refused = 0;
    for _ in 0..3 {
        if let Some(Notice::InputRefused { reason: InputRefusal::Full, .. }) = host.hear() {
            refused += 1;
        }
    }
    assert!(refused >= 1);
    host.stop(0);
    host.finished();
}

#[test]
fn input_after_the_reader_closed_is_refused() {
    let place = Place::new();
    let mut host = place.launch(feeding("exec 0<&-; echo >$READY; sleep 300"));
    host.ready();
    host.say(&windlass_core::shim::message::Request::Status);
    host.welcome();
    host.feed(0, b"x", false, false);
    let refused = host.hear();
    assert!(
        matches!(refused, Some(Notice::InputRefused { reason: InputRefusal::Closed, .. })),
        "{refused:?}"
    );
    host.stop(0);
    host.finished();
}
