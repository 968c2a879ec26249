//! Every recorded transcript gives the entries and the end that were checked by hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use windlass_agents::{Agent, Direction, Shown, Transcript, entries, entries_of_transcript};
use windlass_core::agent::{AgentOutcome, Verdict};

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder)
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fixtures(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The agent is the first part of the name of a transcript.
fn agent(name: &str) -> Agent {
    name.split('-').next().unwrap().parse().unwrap()
}

fn shown(name: &str) -> String {
    let transcript = fs::read(fixtures("transcripts").join(name)).unwrap();
    let mut lines = String::new();
    entries_of_transcript(&agent(name), &transcript, |shown: Shown| {
        lines.push_str(&shown.to_json());
        lines.push('\n');
    });
    lines
}

/// To write down new entries, after reading them: `WINDLASS_BLESS=1`.
#[expect(clippy::disallowed_methods, reason = "the environment of a test run, by hand")]
fn blessing() -> bool {
    std::env::var_os("WINDLASS_BLESS").is_some()
}

#[test]
fn every_transcript_gives_its_entries_and_its_end() {
    let mut wrong = Vec::new();
    for name in names("transcripts") {
        let path = fixtures("entries").join(&name);
        let shown = shown(&name);
        if blessing() {
            fs::write(&path, shown).unwrap();
        } else if fs::read_to_string(&path).unwrap() != shown {
            wrong.push(name);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_golden_file_has_its_transcript() {
    let differ: Vec<String> =
        names("entries").symmetric_difference(&names("transcripts")).cloned().collect();
    assert_eq!(differ, Vec::<String>::new());
}

/// Returns the verdict that was shown.
fn verdict(show: impl FnOnce(&mut dyn FnMut(Shown))) -> Verdict {
    let mut last = None;
    show(&mut |shown| {
        if let Shown::End(verdict) = shown {
            last = Some(*verdict);
        }
    });
    last.unwrap()
}

#[test]
fn what_an_agent_wrote_is_enough_to_tell_a_complete_turn() {
    let mut wrong = Vec::new();
    for name in names("transcripts") {
        let bytes = fs::read(fixtures("transcripts").join(&name)).unwrap();
        let whole = verdict(|show| entries_of_transcript(&agent(&name), &bytes, show));
        let records = Transcript::read(&bytes).records;
        let output: String = records
            .iter()
            .filter(|record| record.direction == Direction::In)
            .map(|record| format!("{}\n", record.line))
            .collect();
        let heard = verdict(|show| entries(&agent(&name), output.as_bytes(), show));
        let session = heard.session_id == whole.session_id;
        // Which session is loaded is said by the client alone.
        let loads = name == "opencode-acp-load.jsonl";
        let complete = AgentOutcome::Completed;
        if (heard.outcome == complete) != (whole.outcome == complete) || !(session || loads) {
            wrong.push((name, whole.outcome, heard.outcome));
        }
    }
    assert_eq!(wrong, []);
}
