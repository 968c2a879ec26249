//! The fold of a log into a conversation.

use serde::{Deserialize, Serialize};

use super::adapter::{Adapter, Command, Line, LineEnd, Message, Refusal, Sink, Start};
use super::entry::{ApprovalState, Change, Content};
use super::event::{Approval, ApprovalId, Event};
use super::framer::{Framed, Framer, MAX_LINE_BYTES};
use super::thread::Thread;
use super::usage::{LimitWindow, Usage, UsageReport};
use super::verdict::{
    AgentOutcome, ApprovalCounts, Ending, Failure, FailureReason, TurnVerdict, Verdict,
};
use crate::log_store::{LogItem, Stream};

/// Something that the machine is to know. Accepted once: it has the numbers of its [`Output`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// The agent's session is known.
    Session {
        /// Its id.
        id: String,
    },
    /// A turn began.
    TurnStarted {
        /// Its number, from 1.
        turn: u64,
    },
    /// A turn ended.
    TurnEnded {
        /// Its number.
        turn: u64,
        /// How.
        verdict: TurnVerdict,
    },
    /// The agent asks.
    Asked {
        /// What.
        approval: Box<Approval>,
    },
    /// An answer is in the log.
    Answered {
        /// To which question.
        id: ApprovalId,
        /// Yes or no.
        allowed: bool,
    },
    /// No answer is wanted any more: the agent took it back or ended.
    Withdrawn {
        /// Which question.
        id: ApprovalId,
    },
    /// What was used so far.
    Used {
        /// In all.
        report: UsageReport,
    },
    /// A usage limit ended the turn.
    Limited {
        /// When it resets, in milliseconds since the Unix epoch; `None` if the agent does not tell.
        resets_at_ms: Option<u64>,
    },
}

/// What came out.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The list of entries changed.
    Changed(Change),
    /// This is to be sent, if its key is new.
    Send(Message),
    /// The machine is to know this.
    Fact(Fact),
}

/// One thing that came out of the fold.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The log entry that it came out of; 0 before the first.
    pub seq: u64,
    /// Its number among those of the log entry, from 0.
    pub n: u32,
    /// It.
    pub what: What,
}

/// Tells the agent's streams apart. A terminal is one stream of its own.
const STREAMS: [Stream; 4] = [Stream::Stdout, Stream::Stderr, Stream::Pty, Stream::Stdin];

/// A conversation under way: `(state, log item) -> (state, outputs)`.
///
/// It holds what may still change, never the whole. A clone is a checkpoint.
#[derive(Clone, Debug)]
pub struct Conversation<A> {
    adapter: A,
    framers: [Framer; STREAMS.len()],
    thread: Thread,
    n: u32,
    turns: u64,
    open_turns: u64,
    last_turn: Option<TurnVerdict>,
    last_error: Option<Failure>,
    stderr_line: String,
    session_id: Option<String>,
    approvals: ApprovalCounts,
    usage: Option<UsageReport>,
    used_before_turn: Usage,
    limits: Vec<LimitWindow>,
    outputs: Vec<Output>,
}

impl<A: Adapter> Conversation<A> {
    /// Makes one that has seen nothing.
    pub fn new(adapter: A) -> Self {
        Self {
            adapter,
            framers: Default::default(),
            thread: Thread::default(),
            n: 0,
            turns: 0,
            open_turns: 0,
            last_turn: None,
            last_error: None,
            stderr_line: String::new(),
            session_id: None,
            approvals: ApprovalCounts::default(),
            usage: None,
            used_before_turn: Usage::default(),
            limits: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Begins, for an agent that we drive: gives what is to be sent first. Without it the fold only listens.
    #[must_use = "what is not sent leaves the agent waiting"]
    pub fn begin(&mut self, start: &Start) -> Vec<Output> {
        self.thread.root = Some(start.cwd.trim_end_matches('/').to_owned());
        let mut sink = Sink::default();
        self.adapter.begin(start, &mut sink);
        self.take(sink, None);
        std::mem::take(&mut self.outputs)
    }

    /// Takes the next item of the log.
    pub fn item(&mut self, item: &LogItem) -> Vec<Output> {
        match item {
            LogItem::Entry { seq, at, stream, bytes, len, .. } => {
                self.at(seq.0, Some(at.0));
                if bytes.len() as u64 == *len {
                    self.bytes(*stream, bytes);
                }
            }
            LogItem::Gap { first, bytes, cause, .. } => {
                self.at(first.0, None);
                for stream in STREAMS {
                    self.flush(stream);
                }
                self.thread.once(Content::Gap { bytes: *bytes, cause: *cause });
                self.drain_changes();
            }
        }
        std::mem::take(&mut self.outputs)
    }

    /// Takes bytes that came from no log.
    pub fn piece(
        &mut self,
        seq: u64,
        at_ms: Option<u64>,
        stream: Stream,
        bytes: &[u8],
    ) -> Vec<Output> {
        self.at(seq, at_ms);
        self.bytes(stream, bytes);
        std::mem::take(&mut self.outputs)
    }

    /// Ends: nothing follows. Closes what is open and judges the run.
    pub fn finish(mut self, ending: Ending) -> (Vec<Output>, Verdict) {
        for stream in STREAMS {
            self.flush(stream);
        }
        let mut sink = Sink::default();
        self.adapter.end(&mut sink);
        self.take(sink, None);
        for id in self.thread.open_approvals() {
            self.thread.settle(&id, ApprovalState::Unanswered);
            self.approvals.unanswered += 1;
            self.drain_changes();
            self.fact(Fact::Withdrawn { id });
        }
        if self.open_turns > 0 {
            self.open_turns = 1;
            self.turn_ended(TurnVerdict::Unfinished);
        }
        self.thread.finish();
        self.drain_changes();
        let said = (!self.stderr_line.is_empty())
            .then(|| Failure::new(FailureReason::Unknown, self.stderr_line.clone()));
        let from_exit = match ending.exit {
            Some(crate::outcome::Exit::Code(code)) if code != 0 => {
                Some(self.adapter.exit_code(code, self.last_error.as_ref().or(said.as_ref())))
            }
            _ => None,
        };
        let mut verdict = Verdict {
            session_id: self.session_id.take(),
            turns: self.turns,
            outcome: AgentOutcome::judge(self.last_turn.as_ref(), ending, from_exit),
            exit: ending.exit,
            approvals: self.approvals,
            usage: self.usage,
            summary: self.thread.summary().map(str::to_owned),
        };
        self.adapter.review(&mut verdict);
        (self.outputs, verdict)
    }

    /// Puts a command into messages. Its effect on the conversation comes when they are in the log.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn command(&self, command: &Command) -> Result<Vec<Message>, Refusal> {
        self.adapter.command(command)
    }

    /// Returns the agent's session, as soon as it is known.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.session_id.as_deref()
    }

    /// Returns what was used so far.
    #[must_use]
    pub fn usage(&self) -> Option<UsageReport> {
        self.usage
    }

    /// Returns how many turns began and whether one is under way.
    #[must_use]
    pub fn turns(&self) -> (u64, bool) {
        (self.turns, self.open_turns > 0)
    }

    /// Returns how full the windows of the usage limit are, as far as the agent told.
    #[must_use]
    pub fn limits(&self) -> &[LimitWindow] {
        &self.limits
    }

    /// Returns the agent's last message so far, cut to 4096 bytes.
    #[must_use]
    pub fn summary(&self) -> Option<&str> {
        self.thread.summary()
    }

    /// Returns how many entries there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.thread.next_index()
    }

    /// Says whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the first index that may still change: everything below is as it will be.
    #[must_use]
    pub fn settled_below(&self) -> u64 {
        self.thread.settled_below()
    }

    /// Returns about how many bytes a clone holds.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.thread.weight() + self.framers.iter().map(Framer::held).sum::<usize>()
    }

    fn at(&mut self, seq: u64, at_ms: Option<u64>) {
        if seq != self.thread.at.seq {
            self.n = 0;
        }
        self.thread.at.seq = seq;
        self.thread.at.at_ms = at_ms.or(self.thread.at.at_ms);
    }

    fn bytes(&mut self, stream: Stream, bytes: &[u8]) {
        let mut framer = self.take_framer(stream);
        framer.push(bytes, |line| self.line(stream, &line));
        self.framers[number(stream)] = framer;
    }

    fn flush(&mut self, stream: Stream) {
        let mut framer = self.take_framer(stream);
        framer.flush(|line| self.line(stream, &line));
        self.framers[number(stream)] = framer;
    }

    fn take_framer(&mut self, stream: Stream) -> Framer {
        std::mem::take(&mut self.framers[number(stream)])
    }

    fn line(&mut self, stream: Stream, framed: &Framed<'_>) {
        let end = match framed.ended {
            _ if framed.len > MAX_LINE_BYTES as u64 => LineEnd::Cut,
            true => LineEnd::Whole,
            false => LineEnd::Torn,
        };
        let stream = if stream == Stream::Pty { Stream::Stdout } else { stream };
        let line = Line { stream, bytes: framed.bytes, len: framed.len, end };
        if stream == Stream::Stderr {
            self.note_stderr(line.bytes);
        }
        let mut sink = Sink::default();
        self.adapter.line(&line, &mut sink);
        self.take(sink, Some(&line));
    }

    /// Keeps the line of standard error that most likely says why the agent gave up: the last that speaks of an error.
    fn note_stderr(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(&line[..line.len().min(1024)]);
        let speaks = |line: &str| line.to_lowercase().contains("error");
        if !line.trim().is_empty() && (speaks(&line) || !speaks(&self.stderr_line)) {
            self.stderr_line = line.into_owned();
        }
    }

    fn take(&mut self, sink: Sink, line: Option<&Line<'_>>) {
        for event in sink.events {
            self.event(event, line);
            self.drain_changes();
        }
        for message in sink.messages {
            self.put(What::Send(message));
        }
    }

    fn event(&mut self, event: Event, line: Option<&Line<'_>>) {
        match event {
            Event::Session { id, model } => self.session(id, model),
            Event::TurnStarted => {
                if !self.thread.history {
                    self.turns += 1;
                    self.open_turns += 1;
                    self.fact(Fact::TurnStarted { turn: self.turns });
                }
            }
            Event::Text { role, item, text, mode, parent } => {
                self.thread.text(role, item, &text, mode, parent);
            }
            Event::MessageEnded => self.thread.end_current(),
            Event::Tool(update) => self.thread.tool(update),
            Event::Todos { item, todos } => self.thread.todos(item, todos),
            Event::Notice { text } => self.thread.once(Content::SystemMessage { text }),
            Event::Trouble { failure, retry } => {
                if !retry {
                    self.last_error = Some(failure.clone());
                }
                self.thread.once(Content::ErrorMessage { failure, retry });
            }
            Event::Asked(approval) => self.asked(approval),
            Event::Answered { id, allowed, text } => self.answered(id, allowed, text),
            Event::Withdrawn { id } => {
                if self.thread.settle(&id, ApprovalState::Withdrawn) {
                    self.approvals.withdrawn += 1;
                    self.drain_changes();
                    self.fact(Fact::Withdrawn { id });
                }
            }
            Event::SelfDenied { text } => {
                self.approvals.asked += 1;
                self.approvals.denied += 1;
                self.thread.once(Content::SystemMessage { text });
            }
            Event::Usage(report) => {
                if self.usage != Some(report) {
                    self.usage = Some(report);
                    self.fact(Fact::Used { report });
                }
            }
            Event::Limits(windows) => self.limits = windows,
            Event::TurnEnded(verdict) => {
                if !self.thread.history {
                    self.turn_ended(verdict);
                }
            }
            Event::History(on) => self.thread.history = on,
            Event::Unknown => {
                if let Some(line) = line {
                    self.thread.raw(line.stream, line.bytes, line.len);
                }
            }
        }
    }

    fn session(&mut self, id: String, model: Option<String>) {
        if id.is_empty() || self.session_id.as_deref() == Some(&id) {
            return;
        }
        self.session_id = Some(id.clone());
        self.thread.once(Content::Session { session_id: id.clone(), model });
        self.drain_changes();
        self.fact(Fact::Session { id });
    }

    fn asked(&mut self, approval: Approval) {
        if let Some(approval) = self.thread.ask(approval) {
            self.approvals.asked += 1;
            self.drain_changes();
            self.fact(Fact::Asked { approval: Box::new(approval) });
        }
    }

    fn answered(&mut self, id: ApprovalId, allowed: bool, text: Option<String>) {
        let state =
            if allowed { ApprovalState::Allowed { text } } else { ApprovalState::Denied { text } };
        if self.thread.settle(&id, state) {
            let count =
                if allowed { &mut self.approvals.allowed } else { &mut self.approvals.denied };
            *count += 1;
            self.drain_changes();
            self.fact(Fact::Answered { id, allowed });
        }
    }

    fn turn_ended(&mut self, mut verdict: TurnVerdict) {
        self.open_turns = self.open_turns.saturating_sub(1);
        if let TurnVerdict::Failed { failure } = &mut verdict
            && failure.reason == FailureReason::UsageLimit
            && failure.resets_at_ms.is_none()
        {
            failure.resets_at_ms = LimitWindow::reset_of(&self.limits);
        }
        self.thread.end_turn();
        let used = self.usage.map(|report| report.usage.minus(self.used_before_turn));
        self.used_before_turn = self.usage.map_or(Usage::default(), |report| report.usage);
        let turn = self.turns - self.open_turns;
        self.thread.once(Content::Turn { turn, verdict: verdict.clone(), usage: used });
        self.drain_changes();
        if let TurnVerdict::Failed { failure } = &verdict
            && failure.reason == FailureReason::UsageLimit
        {
            self.fact(Fact::Limited { resets_at_ms: failure.resets_at_ms });
        }
        self.fact(Fact::TurnEnded { turn, verdict: verdict.clone() });
        self.last_turn = Some(verdict);
    }

    fn drain_changes(&mut self) {
        for change in self.thread.take_changes() {
            self.put(What::Changed(change));
        }
    }

    fn fact(&mut self, fact: Fact) {
        self.put(What::Fact(fact));
    }

    fn put(&mut self, what: What) {
        self.outputs.push(Output { seq: self.thread.at.seq, n: self.n, what });
        self.n = self.n.saturating_add(1);
    }
}

fn number(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
        Stream::Pty => 2,
        Stream::Stdin => 3,
    }
}
