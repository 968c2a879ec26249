//! Entries as the command line shows them: one JSON object a line, the last one a verdict.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use windlass_core::agent::{
    Change, ChangeKind, Conversation, Ending, Entry, Output, Verdict, What, Window,
};
use windlass_core::log_store::Stream;

use crate::json::object;
use crate::protocol::{Agent, AnyAdapter, Protocol};
use crate::transcript::Transcript;

/// How much is read at once.
const PIECE_BYTES: usize = 64 << 10;

/// A line to show.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// An entry that will not change any more. They come in order.
    Entry(Box<Entry>),
    /// The verdict; nothing follows.
    End(Box<Verdict>),
}

impl Shown {
    /// Returns it as one line of JSON, without the line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Self::Entry(entry) => json(entry),
            Self::End(verdict) => {
                let mut line = json!({ "kind": "end" });
                if let (Value::Object(line), Ok(Value::Object(fields))) =
                    (&mut line, serde_json::to_value(verdict))
                {
                    line.extend(fields);
                }
                line.to_string()
            }
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Gives the entries of what an agent wrote to standard output, and the verdict. Nothing is known of its process.
pub fn entries(agent: &Agent, output: &[u8], mut show: impl FnMut(Shown)) {
    let first = output.split(|byte| *byte == b'\n').take(1000).find_map(object);
    let mut shower = Shower::new(agent.protocol_of_message(first.as_ref()));
    for (number, piece) in (1..).zip(output.chunks(PIECE_BYTES)) {
        let outputs = shower.conversation.piece(number, None, Stream::Stdout, piece);
        shower.take(outputs, &mut show);
    }
    shower.end(Ending::default(), &mut show);
}

/// Gives the entries of a transcript, and the verdict.
pub fn entries_of_transcript(agent: &Agent, bytes: &[u8], mut show: impl FnMut(Shown)) {
    let transcript = Transcript::read(bytes);
    let mut shower = Shower::new(transcript.protocol(agent));
    for (number, record) in (1..).zip(&transcript.records) {
        if let Some(stream) = Transcript::stream(record) {
            let line = format!("{}\n", record.line);
            let at = Some(record.at_ms);
            let outputs = shower.conversation.piece(number, at, stream, line.as_bytes());
            shower.take(outputs, &mut show);
        }
    }
    shower.end(transcript.ending(), &mut show);
}

/// Holds entries back until they are as they will be.
struct Shower {
    conversation: Conversation<AnyAdapter>,
    held: BTreeMap<u64, Window>,
}

impl Shower {
    fn new(protocol: Protocol) -> Self {
        Self { conversation: Conversation::new(protocol.adapter()), held: BTreeMap::new() }
    }

    fn apply(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            if let What::Changed(change) = output.what {
                self.change(&change);
            }
        }
    }

    fn change(&mut self, change: &Change) {
        match change.kind {
            ChangeKind::Added { .. } => {
                let mut window = Window::new(change.index, 1);
                window.apply(change);
                self.held.insert(change.index, window);
            }
            ChangeKind::Appended { .. } | ChangeKind::Replaced { .. } => {
                if let Some(window) = self.held.get_mut(&change.index) {
                    window.apply(change);
                }
            }
        }
    }

    fn take(&mut self, outputs: Vec<Output>, show: &mut impl FnMut(Shown)) {
        self.apply(outputs);
        self.give(self.conversation.settled_below(), show);
    }

    fn give(&mut self, below: u64, show: &mut impl FnMut(Shown)) {
        let later = self.held.split_off(&below);
        for (_, window) in std::mem::replace(&mut self.held, later) {
            for entry in window.entries() {
                show(Shown::Entry(Box::new(entry.clone())));
            }
        }
    }

    fn end(mut self, ending: Ending, show: &mut impl FnMut(Shown)) {
        let conversation = self.conversation.clone();
        let (outputs, verdict) = conversation.finish(ending);
        self.apply(outputs);
        self.give(u64::MAX, show);
        show(Shown::End(Box::new(verdict)));
    }
}
