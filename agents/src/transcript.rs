//! Transcripts: what went in and out of an agent, line by line, with what was seen of its process.
//!
//! One JSON object a line: `{"t": seconds, "dir": "in" | "out" | "err" | "meta", "line": text}`. `in` is what the agent
//! wrote, `out` what was written to it. Of the remarks (`meta`) those are understood that say how it was started
//! (`{"argv": […]}`), signalled (`we send SIGTERM to leader`) and how it ended (`leader exit 0`, negative for a signal).

use serde_json::Value;
use windlass_core::agent::Ending;
use windlass_core::log_store::Stream;
use windlass_core::outcome::Exit;

use crate::json::{Look, object};
use crate::protocol::{Agent, Protocol};

/// What the agent writes so long after its exit was another process's: the exit was a launcher's.
const LAUNCHER_MS: u64 = 250;

/// Which way a line went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The agent wrote it to standard output.
    In,
    /// It was written to the agent.
    Out,
    /// The agent wrote it to standard error.
    Err,
    /// A remark.
    Meta,
}

/// One line of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, in milliseconds since the beginning.
    pub at_ms: u64,
    /// Which way.
    pub direction: Direction,
    /// The line, without its end.
    pub line: String,
}

/// A transcript as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Its lines. What is no record is left out.
    pub records: Vec<Record>,
}

impl Transcript {
    /// Reads a transcript. Lines that are no records are passed over.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let record = |line: &[u8]| {
            let value = object(line)?;
            let direction = match value.text("dir")? {
                "in" => Direction::In,
                "out" => Direction::Out,
                "err" => Direction::Err,
                "meta" => Direction::Meta,
                _ => return None,
            };
            let line = match value.at("line") {
                Value::String(line) => line.clone(),
                other => other.to_string(),
            };
            Some(Record { at_ms: milliseconds(value.at("t")), direction, line })
        };
        Self { records: bytes.split(|byte| *byte == b'\n').filter_map(record).collect() }
    }

    /// Tells the protocol: from the arguments, else from the first message.
    #[must_use]
    pub fn protocol(&self, agent: &Agent) -> Protocol {
        let argv = self.records.iter().find_map(|record| {
            let remark =
                (record.direction == Direction::Meta).then(|| object(record.line.as_bytes()))?;
            remark.filter(|remark| remark.has("argv"))
        });
        let argv = argv.as_ref().map_or(&[][..], |remark| remark.list("argv"));
        let told = agent.protocol_of_arguments(argv.iter().filter_map(Value::as_str));
        told.unwrap_or_else(|| {
            let from_agent = self.records.iter().filter(|one| one.direction == Direction::In);
            let first = from_agent.filter_map(|record| object(record.line.as_bytes())).next();
            agent.protocol_of_message(first.as_ref())
        })
    }

    /// Returns the stream of a record; `None` for a remark.
    #[must_use]
    pub fn stream(record: &Record) -> Option<Stream> {
        match record.direction {
            Direction::In => Some(Stream::Stdout),
            Direction::Out => Some(Stream::Stdin),
            Direction::Err => Some(Stream::Stderr),
            Direction::Meta => None,
        }
    }

    /// Says what was seen of the process. An exit after which the agent went on writing was its launcher's.
    #[must_use]
    pub fn ending(&self) -> Ending {
        let mut ending = Ending::default();
        let mut exit_at = None;
        for record in &self.records {
            match record.direction {
                Direction::Meta => {
                    if record.line.starts_with("we send SIG") && exit_at.is_none() {
                        ending.stopped_by_us = true;
                    }
                    if let Some(exit) = exit(&record.line) {
                        ending.exit = Some(exit);
                        exit_at = Some(record.at_ms);
                    }
                }
                Direction::In => {
                    if exit_at.is_some_and(|at| record.at_ms > at.saturating_add(LAUNCHER_MS)) {
                        ending.exit = None;
                    }
                }
                Direction::Out | Direction::Err => {}
            }
        }
        ending
    }
}

fn exit(remark: &str) -> Option<Exit> {
    let number: i16 = remark.strip_prefix("leader exit ")?.trim().parse().ok()?;
    let size = u8::try_from(number.unsigned_abs()).ok()?;
    Some(if number < 0 { Exit::Signal(size) } else { Exit::Code(size) })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn milliseconds(seconds: &Value) -> u64 {
    let seconds = seconds.as_f64().filter(|seconds| (0.0..1e12).contains(seconds));
    seconds.map_or(0, |seconds| (seconds * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(lines: &[&str]) -> Transcript {
        Transcript::read(lines.join("\n").as_bytes())
    }

    #[test]
    fn an_exit_before_the_last_words_was_the_launchers() {
        let lines = [
            r#"{"t":1.0,"dir":"meta","line":"we send SIGKILL to leader"}"#,
            r#"{"t":1.0,"dir":"meta","line":"leader exit -9"}"#,
            r#"{"t":3.0,"dir":"in","line":"{}"}"#,
        ];
        assert_eq!(transcript(&lines).ending(), Ending { exit: None, stopped_by_us: true });
        let ending = Ending { exit: Some(Exit::Signal(9)), stopped_by_us: true };
        assert_eq!(transcript(&lines[..2]).ending(), ending);
    }

    #[test]
    fn words_that_were_still_in_the_pipe_do_not_make_it_a_launcher() {
        let lines = [
            r#"{"t":1.0,"dir":"meta","line":"leader exit 0"}"#,
            r#"{"t":1.01,"dir":"in","line":"{}"}"#,
        ];
        assert_eq!(transcript(&lines).ending().exit, Some(Exit::Code(0)));
    }

    #[test]
    fn what_is_no_record_is_passed_over() {
        assert_eq!(transcript(&["", "x", "{}", r#"{"dir":"sideways","line":""}"#]).records, []);
    }
}
