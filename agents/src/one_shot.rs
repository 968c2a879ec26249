//! What the adapters share whose agent takes one message as the whole of its standard input.

use windlass_core::agent::{Command, Event, Line, Message, Refusal, Role, Sink, Start, TextMode};

/// The most bytes of a message that are shown.
const MAX_SHOWN: usize = 256 << 10;

/// Gives the message of an agent that reads it from standard input, and closes that. An agent that has it among its
/// arguments has no standard input.
pub(crate) fn send_prompt(start: &Start, sink: &mut Sink) {
    if start.prompt_by_protocol {
        let bytes = start.prompt.clone().unwrap_or_default().into_bytes();
        sink.messages.push(Message { key: "prompt".to_owned(), bytes, close: true });
    }
}

/// Refuses what needs a conversation; there is nothing to finish.
pub(crate) fn command(agent: &'static str, command: &Command) -> Result<Vec<Message>, Refusal> {
    match command {
        Command::Finish => Ok(Vec::new()),
        Command::Prompt { .. } | Command::Interrupt { .. } => Err(Refusal::Unsupported { agent }),
        Command::Answer { id, .. } => Err(Refusal::NotOpen { id: id.clone() }),
    }
}

/// The user's words, collected from the lines of standard input.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompt {
    text: String,
}

impl Prompt {
    /// Takes a line.
    pub(crate) fn line(&mut self, line: &Line<'_>) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let room = MAX_SHOWN.saturating_sub(self.text.len()).min(line.bytes.len());
        self.text.push_str(&String::from_utf8_lossy(&line.bytes[..room]));
    }

    /// Gives what was collected: the agent begins to answer.
    pub(crate) fn give(&mut self, sink: &mut Sink) {
        let text = std::mem::take(&mut self.text);
        if !text.trim().is_empty() {
            let (role, mode) = (Role::User, TextMode::Whole);
            sink.event(Event::Text { role, item: None, text, mode, parent: None });
        }
    }
}
