//! Any other command: its output is what it says, its exit is how it ended. It has no turns.

use windlass_core::agent::{
    Adapter, AgentOutcome, Command, Event, Failure, FailureReason, Line, Message, Refusal, Role,
    Sink, Start, TextMode, Verdict,
};
use windlass_core::log_store::Stream;
use windlass_core::outcome::Exit;

use crate::one_shot::{self, Prompt};

/// Output is cut into entries of about this size.
const ENTRY_BYTES: usize = 32 << 10;

/// The adapter of a command that speaks no protocol.
#[derive(Clone, Debug, Default)]
pub struct Plain {
    prompt: Prompt,
    /// How much went into the entry under way.
    written: usize,
}

impl Adapter for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn begin(&mut self, start: &Start, sink: &mut Sink) {
        one_shot::send_prompt(start, sink);
    }

    fn line(&mut self, line: &Line<'_>, sink: &mut Sink) {
        match line.stream {
            Stream::Stdin => self.prompt.line(line),
            Stream::Stderr => {
                self.prompt.give(sink);
                sink.event(Event::Unknown);
            }
            Stream::Stdout | Stream::Pty => {
                self.prompt.give(sink);
                let mut text = String::from_utf8_lossy(line.bytes).into_owned();
                text.push('\n');
                self.written += text.len();
                let (role, mode) = (Role::Assistant, TextMode::Append);
                sink.event(Event::Text { role, item: None, text, mode, parent: None });
                if self.written >= ENTRY_BYTES {
                    self.written = 0;
                    sink.event(Event::MessageEnded);
                }
            }
        }
    }

    fn end(&mut self, sink: &mut Sink) {
        self.prompt.give(sink);
    }

    fn command(&self, command: &Command) -> Result<Vec<Message>, Refusal> {
        one_shot::command(self.name(), command)
    }

    fn exit_code(&self, code: u8, _: Option<&Failure>) -> Failure {
        Failure::new(FailureReason::Exit, format!("exit code {code}"))
    }

    fn review(&self, verdict: &mut Verdict) {
        if verdict.outcome != AgentOutcome::Unfinished {
            return;
        }
        verdict.outcome = match verdict.exit {
            Some(Exit::Code(0)) => AgentOutcome::Completed,
            Some(Exit::Signal(signal)) => AgentOutcome::Failed {
                failure: Failure::new(FailureReason::Exit, format!("signal {signal}")),
            },
            Some(Exit::Code(_)) | None => AgentOutcome::Unfinished,
        };
    }
}
