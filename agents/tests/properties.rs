//! What holds for any input: any split gives the same, reading again is following, nothing makes an adapter panic.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use windlass_agents::{AnyAdapter, Direction, Protocol, Transcript};
use windlass_core::agent::{
    Conversation, Ending, Entry, Index, Output, PatchOp, Verdict, What, Window, patch,
};
use windlass_core::log_store::{LogItem, Seq, Stream};
use windlass_core::time::Timestamp;

/// Some recorded transcripts, one for each protocol and kind of trouble.
const SAMPLES: [(&str, Protocol); 8] = [
    ("claude-tools.jsonl", Protocol::Claude),
    ("codex-appserver-approvals.jsonl", Protocol::CodexAppServer),
    ("codex-appserver-errors.jsonl", Protocol::CodexAppServer),
    ("codex-exec-patch.jsonl", Protocol::CodexExec),
    ("gemini-stream-json-auto-edit.jsonl", Protocol::Gemini),
    ("gemini-acp-approvals.jsonl", Protocol::Acp),
    ("opencode-acp-approvals.jsonl", Protocol::Acp),
    ("opencode-run-json-ask-denied.jsonl", Protocol::Opencode),
];

fn transcript(name: &str) -> Transcript {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/transcripts");
    Transcript::read(&fs::read(folder.join(name)).unwrap())
}

/// Everything of a transcript as runs of bytes of one stream each.
fn runs(name: &str) -> Vec<(Stream, Vec<u8>)> {
    let mut runs: Vec<(Stream, Vec<u8>)> = Vec::new();
    for record in transcript(name).records {
        let Some(stream) = Transcript::stream(&record) else { continue };
        let line = format!("{}\n", record.line).into_bytes();
        match runs.last_mut() {
            Some((last, bytes)) if *last == stream => bytes.extend(line),
            _ => runs.push((stream, line)),
        }
    }
    runs
}

/// Puts runs into log items, cut at some places.
fn items(runs: &[(Stream, Vec<u8>)], cuts: &[usize]) -> Vec<LogItem> {
    let mut items = Vec::new();
    let mut cuts = cuts.iter().copied().cycle();
    for (stream, bytes) in runs {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let at = cuts.next().map_or(rest.len(), |cut| cut.clamp(1, rest.len()));
            let (piece, after) = rest.split_at(at);
            items.push(entry(items.len() as u64 + 1, *stream, piece));
            rest = after;
        }
    }
    items
}

fn entry(seq: u64, stream: Stream, piece: &[u8]) -> LogItem {
    LogItem::Entry {
        seq: Seq(seq),
        at: Timestamp(0),
        stream,
        partial: !piece.ends_with(b"\n"),
        bytes: bytes::Bytes::copy_from_slice(piece),
        len: piece.len() as u64,
    }
}

/// Folds items; returns what came out, without the numbers that depend on how it was cut.
fn fold(protocol: Protocol, items: &[LogItem]) -> (Vec<What>, Verdict) {
    let mut conversation = Conversation::new(protocol.adapter());
    let mut outputs: Vec<Output> = items.iter().flat_map(|item| conversation.item(item)).collect();
    let (last, verdict) = conversation.finish(Ending::default());
    outputs.extend(last);
    (outputs.into_iter().map(|output| without_seq(output.what)).collect(), verdict)
}

fn without_seq(what: What) -> What {
    use windlass_core::agent::ChangeKind::{Added, Appended, Replaced};
    let What::Changed(mut change) = what else { return what };
    match &mut change.kind {
        Added { entry } | Replaced { entry } => entry.seq = 0,
        Appended { .. } => {}
    }
    What::Changed(change)
}

/// All entries, by applying every change.
fn entries(outputs: &[What]) -> Vec<Entry> {
    let mut window = Window::new(0, u64::MAX);
    for what in outputs {
        if let What::Changed(change) = what {
            window.apply(change);
        }
    }
    window.entries().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_split_of_the_bytes_gives_the_same(
        sample in 0..SAMPLES.len(),
        cuts in prop::collection::vec(1usize..3000, 1..20),
    ) {
        let (name, protocol) = SAMPLES[sample];
        let runs = runs(name);
        let whole = fold(protocol, &items(&runs, &[]));
        prop_assert!(!whole.0.is_empty());
        prop_assert_eq!(fold(protocol, &items(&runs, &cuts)), whole);
    }

    #[test]
    fn a_replay_from_any_checkpoint_gives_the_same(
        sample in 0..SAMPLES.len(),
        at in 0usize..400,
    ) {
        let (name, protocol) = SAMPLES[sample];
        let items = items(&runs(name), &[700]);
        let at = at.min(items.len());
        let mut live = Conversation::new(protocol.adapter());
        for item in &items[..at] {
            live.item(item);
        }
        let mut resumed = live.clone();
        let one: Vec<Output> = items[at..].iter().flat_map(|item| live.item(item)).collect();
        let two: Vec<Output> = items[at..].iter().flat_map(|item| resumed.item(item)).collect();
        prop_assert_eq!(&one, &two);
        let mut again = Conversation::new(protocol.adapter());
        let all: Vec<Output> = items.iter().flat_map(|item| again.item(item)).collect();
        prop_assert_eq!(&all[all.len() - one.len()..], &one[..]);
        prop_assert_eq!(live.finish(Ending::default()), again.finish(Ending::default()));
    }

    #[test]
    fn what_is_cut_off_anywhere_ends_without_success_or_as_it_was(
        sample in 0..SAMPLES.len(),
        kept in 0usize..100_000,
    ) {
        let (name, protocol) = SAMPLES[sample];
        let mut left = kept;
        let mut cut = Vec::new();
        for (stream, bytes) in runs(name) {
            let take = left.min(bytes.len());
            left -= take;
            cut.push((stream, bytes[..take].to_vec()));
        }
        let (outputs, verdict) = fold(protocol, &items(&cut, &[500]));
        prop_assert!(entries(&outputs).iter().all(|entry| !entry.open));
        prop_assert_eq!(verdict.approvals.asked,
            verdict.approvals.allowed + verdict.approvals.denied
            + verdict.approvals.withdrawn + verdict.approvals.unanswered);
    }

    #[test]
    fn changed_bytes_and_gaps_harm_nothing_else(
        sample in 0..SAMPLES.len(),
        changes in prop::collection::vec((0usize..200_000, any::<u8>()), 1..30),
        gap in 0usize..500,
    ) {
        let (name, protocol) = SAMPLES[sample];
        let mut runs = runs(name);
        let mut total = 0;
        for (_, bytes) in &mut runs {
            for (at, byte) in &changes {
                if let Some(slot) = at.checked_sub(total).and_then(|at| bytes.get_mut(at)) {
                    *slot = *byte;
                }
            }
            total += bytes.len();
        }
        let mut items = items(&runs, &[900]);
        let at = gap.min(items.len() - 1);
        let first = items[at].first_seq();
        items[at] = LogItem::Gap {
            first,
            last: Some(first),
            bytes: 900,
            cause: windlass_core::log_store::GapCause::Power,
        };
        let (outputs, _) = fold(protocol, &items);
        let entries = entries(&outputs);
        prop_assert!(entries.iter().all(|entry| !entry.open));
        prop_assert!(entries.iter().enumerate().all(|(index, entry)| entry.index == index as u64));
    }

    #[test]
    fn any_lines_of_json_are_taken(
        protocol in prop::sample::select(Protocol::ALL.to_vec()),
        lines in prop::collection::vec((0..3usize, json()), 0..40),
    ) {
        let streams = [Stream::Stdout, Stream::Stderr, Stream::Stdin];
        let runs: Vec<(Stream, Vec<u8>)> = lines
            .iter()
            .map(|(stream, value)| (streams[*stream], format!("{value}\n").into_bytes()))
            .collect();
        let (outputs, _) = fold(protocol, &items(&runs, &[]));
        prop_assert!(entries(&outputs).iter().all(|entry| !entry.open));
    }

    #[test]
    fn any_bytes_are_taken(
        protocol in prop::sample::select(Protocol::ALL.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let (outputs, _) = fold(protocol, &items(&[(Stream::Stdout, bytes)], &[7, 100]));
        prop_assert!(entries(&outputs).iter().all(|entry| !entry.open));
    }
}

/// Words that the protocols use.
const WORDS: [&str; 51] = [
    "type",
    "method",
    "params",
    "id",
    "result",
    "error",
    "item",
    "item.started",
    "item/completed",
    "session/update",
    "session/prompt",
    "update",
    "sessionUpdate",
    "tool_call",
    "tool_call_update",
    "toolCallId",
    "status",
    "completed",
    "message",
    "content",
    "assistant",
    "user",
    "text",
    "control_request",
    "can_use_tool",
    "request",
    "request_id",
    "subtype",
    "stream_event",
    "event",
    "turn/started",
    "turn/completed",
    "turn",
    "session/request_permission",
    "stopReason",
    "end_turn",
    "tool_use",
    "tool_result",
    "part",
    "state",
    "step_finish",
    "reason",
    "stop",
    "role",
    "init",
    "turn.completed",
    "usage",
    "control_response",
    "response",
    "session/load",
    "initialize",
];

/// Objects made of the words that the protocols use, in any wrong place.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let word = prop::sample::select(WORDS.to_vec());
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        word.clone().prop_map(Into::into),
    ];
    let tree = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((word.clone(), inner), 0..5).prop_map(|fields| {
                serde_json::Value::Object(
                    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                )
            }),
        ]
    });
    tree.prop_filter("an object", serde_json::Value::is_object)
}

/// Applies operations as RFC 6902 says, as far as they are used.
fn apply(document: &mut serde_json::Value, op: &PatchOp) {
    let (parent, last) = op.path.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        serde_json::Value::Array(items) => match (op.op.as_str(), last) {
            ("add", "-") => items.push(op.value.clone()),
            ("add", at) => items.insert(at.parse().unwrap(), op.value.clone()),
            ("replace", at) => items[at.parse::<usize>().unwrap()] = op.value.clone(),
            other => panic!("{other:?}"),
        },
        serde_json::Value::Object(fields) => {
            assert_eq!(op.op, "add");
            fields.insert(last.to_owned(), op.value.clone());
        }
        other => panic!("{other}"),
    }
}

#[test]
fn patches_build_the_same_entries() {
    for (name, protocol) in SAMPLES {
        let (outputs, _) = fold(protocol, &items(&runs(name), &[400]));
        let mut document = serde_json::json!({ "pages": {} });
        for what in &outputs {
            if let What::Changed(change) = what {
                for op in patch(change) {
                    apply(&mut document, &op);
                }
            }
        }
        let pages = document["pages"].as_object().unwrap();
        let mut all: Vec<&serde_json::Value> = Vec::new();
        for page in 0..pages.len() {
            all.extend(pages[&page.to_string()].as_array().unwrap());
        }
        let expected = entries(&outputs);
        assert_eq!(all.len(), expected.len(), "{name}");
        for (built, entry) in all.into_iter().zip(&expected) {
            assert_eq!(built, &serde_json::to_value(entry).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_growing_text_costs_its_size_and_not_its_square() {
    let line = |text: &str| {
        format!(r#"{{"type":"message","role":"assistant","content":"{text}","delta":true}}"#) + "\n"
    };
    let mut conversation = Conversation::new(Protocol::Gemini.adapter());
    let (mut told, mut written) = (0, 0);
    for number in 1..2000_u64 {
        let piece = line("twenty characters .. ");
        written += piece.len();
        for output in conversation.piece(number, None, Stream::Stdout, piece.as_bytes()) {
            if let What::Changed(change) = output.what {
                told += patch(&change).iter().map(|op| op.value.to_string().len()).sum::<usize>();
            }
        }
    }
    assert!(told < written, "{told} bytes of patches for {written} bytes");
}

#[test]
fn a_page_far_inside_is_read_from_a_checkpoint() {
    let line = |number: u64| {
        format!(
            r#"{{"type":"item.completed","item":{{"id":"i{number}","type":"agent_message","text":"{number}"}}}}"#
        ) + "\n"
    };
    let items: Vec<LogItem> =
        (1..=20_000).map(|number| entry(number, Stream::Stdout, line(number).as_bytes())).collect();
    let mut conversation = Conversation::new(Protocol::CodexExec.adapter());
    let mut index = Index::default();
    for item in &items {
        conversation.item(item);
        index.note(item.last_seq(), &conversation);
    }
    let (cursor, mut from) = index.before(15_000).unwrap();
    assert!(cursor.0 > 10_000, "{cursor:?}");
    let mut window = Window::new(15_000, 64);
    let mut read = 0;
    for item in items.iter().filter(|item| item.first_seq() > cursor) {
        for output in from.item(item) {
            if let What::Changed(change) = output.what {
                window.apply(&change);
            }
        }
        read += 1;
        if window.is_settled(from.settled_below()) {
            break;
        }
    }
    assert!(read < 5_000, "{read}");
    assert_eq!(window.entries().len(), 64);
    assert_eq!(window.entries()[0].index, 15_000);
}

#[test]
fn what_is_held_has_a_limit_whatever_comes() {
    let mut conversation: Conversation<AnyAdapter> =
        Conversation::new(Protocol::CodexExec.adapter());
    let big = "x".repeat(200_000);
    for number in 1..2000_u64 {
        let line = format!(
            r#"{{"type":"item.started","item":{{"id":"{number}","type":"command_execution","command":"{big}","aggregated_output":"{big}"}}}}"#
        ) + "\n";
        conversation.piece(number, None, Stream::Stdout, line.as_bytes());
    }
    let held = conversation.weight();
    assert!(held < 64 << 20, "{held} bytes");
}

#[test]
fn a_line_of_a_hundred_megabytes_is_counted_and_kept_in_part() {
    let mut conversation = Conversation::new(Protocol::Claude.adapter());
    let piece = vec![b'x'; 1 << 20];
    for number in 1..=100 {
        assert_eq!(conversation.piece(number, None, Stream::Stdout, &piece), []);
        assert!(conversation.weight() <= 17 << 20);
    }
    let mut outputs = conversation.piece(101, None, Stream::Stdout, b"\n");
    outputs.extend(conversation.finish(Ending::default()).0);
    let entries = entries(&outputs.into_iter().map(|output| output.what).collect::<Vec<_>>());
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    let windlass_core::agent::Content::Raw { text, bytes, .. } = &entry.content else {
        panic!("{entry:?}")
    };
    assert_eq!(*bytes, 100 << 20);
    assert_eq!(text.len() as u64 + entry.dropped_bytes, 100 << 20);
}

#[test]
fn every_transcript_can_be_cut_off_after_any_line() {
    for (name, protocol) in SAMPLES {
        let transcript = transcript(name);
        for end in 0..transcript.records.len() {
            let mut conversation = Conversation::new(protocol.adapter());
            for record in &transcript.records[..end] {
                let (stream, line) = (Transcript::stream(record), format!("{}\n", record.line));
                if record.direction != Direction::Meta {
                    conversation.piece(1, None, stream.unwrap(), line.as_bytes());
                }
            }
            let (_, verdict) = conversation.finish(Ending::default());
            assert!(verdict.turns < 20);
        }
    }
}
