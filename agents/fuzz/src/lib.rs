//! What every fuzz target checks: nothing panics, any split gives the same, every entry is closed at the end, an open
//! question can be answered or says why not.

use windlass_agents::{Agent, Protocol, Shown, entries, entries_of_transcript};
use windlass_core::agent::{
    ChangeKind, Command, Conversation, Decision, Ending, Fact, Permission, Start, What, Window,
};
use windlass_core::log_store::Stream;
use windlass_core::outcome::Exit;

/// Splits the input into lines of streams: `<` begins one of ours, `!` one of standard error.
fn lines(data: &[u8]) -> Vec<(Stream, Vec<u8>)> {
    let line = |line: &[u8]| match line.split_first() {
        Some((b'<', rest)) => (Stream::Stdin, [rest, b"\n"].concat()),
        Some((b'!', rest)) => (Stream::Stderr, [rest, b"\n"].concat()),
        _ => (Stream::Stdout, [line, b"\n"].concat()),
    };
    data.split(|byte| *byte == b'\n').map(line).collect()
}

fn start() -> Start {
    Start {
        prompt: Some("Do it.".to_owned()),
        prompt_by_protocol: true,
        resume: None,
        cwd: "/w".to_owned(),
        model: Some("m".to_owned()),
        permission: Permission::Plan,
        writable_roots: Vec::new(),
        session_usage: None,
        client: ("fuzz".to_owned(), "0".to_owned()),
    }
}

/// Answers a question in every way there is.
fn decisions() -> [Decision; 6] {
    let reason = Some("no".to_owned());
    [
        Decision::Allow { always: false },
        Decision::Allow { always: true },
        Decision::Deny { reason: reason.clone(), stop: false },
        Decision::Deny { reason, stop: true },
        Decision::Choose { choice: "accept".to_owned() },
        Decision::Reply { answers: vec![("q".to_owned(), "a".to_owned())] },
    ]
}

fn fold(
    protocol: Protocol,
    driven: bool,
    lines: &[(Stream, Vec<u8>)],
    cut: usize,
    code: u8,
) -> String {
    let mut conversation = Conversation::new(protocol.adapter());
    let mut outputs = if driven { conversation.begin(&start()) } else { Vec::new() };
    for (stream, line) in lines {
        for piece in line.chunks(cut) {
            outputs.extend(conversation.piece(1, None, *stream, piece));
        }
    }
    for output in &outputs {
        if let What::Fact(Fact::Asked { approval }) = &output.what {
            for decision in decisions() {
                let _ =
                    conversation.command(&Command::Answer { id: approval.id.clone(), decision });
            }
        }
    }
    for command in [
        Command::Interrupt { key: "k".to_owned() },
        Command::Prompt { key: "k".to_owned(), text: "more".to_owned() },
        Command::Finish,
    ] {
        let _ = conversation.command(&command);
    }
    let exit = Some(Exit::Code(code));
    let (last, verdict) = conversation.finish(Ending { exit, stopped_by_us: false });
    outputs.extend(last);
    let mut window = Window::new(0, u64::MAX);
    let mut next = 0;
    for output in &outputs {
        if let What::Changed(change) = &output.what {
            if let ChangeKind::Added { entry } = &change.kind {
                assert_eq!((change.index, entry.index), (next, next));
                next += 1;
            }
            assert!(change.index < next);
            window.apply(change);
        }
    }
    assert!(window.entries().iter().all(|entry| !entry.open));
    let counts = verdict.approvals;
    assert_eq!(counts.asked, counts.allowed + counts.denied + counts.withdrawn + counts.unanswered);
    let what: Vec<&What> = outputs.iter().map(|output| &output.what).collect();
    format!("{what:?} {verdict:?}")
}

/// Checks a conversation: the first byte says how it is cut and whether we drive it.
pub fn converse(protocol: Protocol, data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let (driven, cut) = (first & 1 == 1, usize::from(first >> 1) + 1);
    let lines = lines(rest);
    let whole = fold(protocol, driven, &lines, usize::MAX, *first);
    assert_eq!(fold(protocol, driven, &lines, cut, *first), whole);
}

/// Checks what is shown of anything: entries in order, all closed, and one verdict at the end.
pub fn show(data: &[u8]) {
    for agent in
        [Agent::Claude, Agent::Codex, Agent::Gemini, Agent::Opencode, Agent::Acp, Agent::Plain]
    {
        for transcript in [true, false] {
            let (mut next, mut ended) = (0, false);
            let each = |shown: Shown| {
                assert!(!ended);
                match &shown {
                    Shown::Entry(entry) => {
                        assert_eq!(entry.index, next);
                        assert!(!entry.open);
                        next += 1;
                    }
                    Shown::End(_) => ended = true,
                }
                assert!(!shown.to_json().contains('\n'));
            };
            if transcript {
                entries_of_transcript(&agent, data, each);
            } else {
                entries(&agent, data, each);
            }
            assert!(ended);
        }
    }
}
