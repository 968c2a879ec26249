//! What a client does when it is interrupted while it follows an execution.

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::args::OnInterrupt;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM or SIGHUP: the exit code to leave with.
    Leave(u8),
}

/// The exit code of a client that Ctrl-C detached: as if the signal had ended it.
pub const INTERRUPTED: u8 = 130;

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave with this code; the execution runs on.
    Detach(u8),
    /// Stop the execution and follow it to its end.
    Stop,
    /// Nothing.
    GoOn,
}

/// The signals that interrupt a client.
#[derive(Debug)]
pub struct Signals {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Signals {
    /// Begins to listen. From now on the signals do not end the process by themselves.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    ///
    /// May be dropped.
    pub async fn next(&mut self) -> Interruption {
        tokio::select! {
            biased;
            _ = self.term.recv() => Interruption::Leave(143),
            _ = self.hup.recv() => Interruption::Leave(129),
            _ = self.int.recv() => Interruption::Interrupt,
        }
    }
}

/// Decides, and remembers what was decided.
#[derive(Debug)]
pub struct Interrupts {
    mode: OnInterrupt,
    terminal: Option<Terminal>,
    stopped: bool,
}

impl Interrupts {
    /// `terminal` is whom to ask; without one nobody is asked.
    #[must_use]
    pub fn new(mode: OnInterrupt, terminal: Option<Terminal>) -> Self {
        Self { mode, terminal, stopped: false }
    }

    /// Decides what to do about an interruption; at a terminal it asks. A Ctrl-C at the question detaches.
    pub async fn decide(&mut self, what: Interruption, signals: &mut Signals) -> Decision {
        match what {
            Interruption::Leave(code) => return Decision::Detach(code),
            Interruption::Interrupt if self.stopped => return Decision::Detach(INTERRUPTED),
            Interruption::Interrupt => {}
        }
        let decision = match (self.mode, &self.terminal) {
            (OnInterrupt::Stop, _) => Decision::Stop,
            (OnInterrupt::Detach, _) | (OnInterrupt::Ask, None) => Decision::Detach(INTERRUPTED),
            (OnInterrupt::Ask, Some(terminal)) => {
                let (decision, typed_newline) = tokio::select! {
                    biased;
                    again = signals.next() => match again {
                        Interruption::Interrupt => (Decision::Detach(INTERRUPTED), false),
                        Interruption::Leave(code) => (Decision::Detach(code), false),
                    },
                    answer = terminal.ask() => (read_answer(&answer), answer.ends_with('\n')),
                };
                if !typed_newline {
                    // What is said next begins a line of its own.
                    eprintln!();
                }
                decision
            }
        };
        self.stopped |= decision == Decision::Stop;
        decision
    }
}

/// Reads what was typed; an end of the input leaves nothing to follow for.
fn read_answer(line: &str) -> Decision {
    match line.trim().chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('s') => Decision::Stop,
        Some('d') => Decision::Detach(INTERRUPTED),
        _ if line.is_empty() => Decision::Detach(INTERRUPTED),
        _ => Decision::GoOn,
    }
}

/// Where lines typed at the terminal go: to whoever asked a question, else to whoever forwards standard input.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    answer: Arc<Mutex<Option<oneshot::Sender<String>>>>,
}

impl Asked {
    /// Takes what was typed if a question is open; says whether it did.
    #[must_use]
    pub fn take(&self, typed: &[u8]) -> bool {
        let open = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        open.is_some_and(|answer| answer.send(String::from_utf8_lossy(typed).into_owned()).is_ok())
    }
}

/// The terminal that questions are asked at.
#[derive(Clone, Debug)]
pub struct Terminal {
    asked: Asked,
    /// Standard input is read by somebody else, who passes lines on.
    is_forwarded: bool,
}

impl Terminal {
    /// Returns the terminal, if both standard input and standard error are one.
    #[must_use]
    pub fn find(asked: Asked, is_forwarded: bool) -> Option<Self> {
        let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        is_terminal.then_some(Self { asked, is_forwarded })
    }

    /// Asks and returns the answer; an empty one at the end of input.
    async fn ask(&self) -> String {
        eprint!("\nwindlass: [s]top it, [d]etach and leave it running, or go on (Enter)? ");
        let (answer, typed) = oneshot::channel();
        *self.asked.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        if !self.is_forwarded {
            let asked = self.asked.clone();
            // It reads one line; if nobody waits for it any more, it ends with the process.
            let _reader = std::thread::spawn(move || {
                let mut line = String::new();
                let _end = io::stdin().read_line(&mut line);
                let _nobody = asked.take(line.as_bytes());
            });
        }
        typed.await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn decisions(mode: OnInterrupt, what: &[Interruption]) -> Vec<Decision> {
        let mut signals = Signals::new().unwrap();
        let mut interrupts = Interrupts::new(mode, None);
        let mut made = Vec::new();
        for what in what {
            made.push(interrupts.decide(*what, &mut signals).await);
        }
        made
    }

    #[tokio::test]
    async fn without_a_terminal_ctrl_c_detaches() {
        use Interruption::{Interrupt, Leave};
        assert_eq!(decisions(OnInterrupt::Ask, &[Interrupt]).await, [Decision::Detach(130)]);
        assert_eq!(decisions(OnInterrupt::Detach, &[Interrupt]).await, [Decision::Detach(130)]);
        assert_eq!(decisions(OnInterrupt::Stop, &[Leave(143)]).await, [Decision::Detach(143)]);
        assert_eq!(
            decisions(OnInterrupt::Stop, &[Interrupt, Interrupt]).await,
            [Decision::Stop, Decision::Detach(130)]
        );
    }

    #[tokio::test]
    async fn a_terminal_is_asked_each_time_and_the_forwarder_hands_the_answer_over() {
        let asked = Asked::default();
        assert!(!asked.take(b"not asked\n"));
        let terminal = Terminal { asked: asked.clone(), is_forwarded: true };
        let mut interrupts = Interrupts::new(OnInterrupt::Ask, Some(terminal));
        let mut signals = Signals::new().unwrap();
        for (typed, expected) in
            [("\n", Decision::GoOn), ("\n", Decision::GoOn), ("d\n", Decision::Detach(130))]
        {
            let (decision, ()) =
                tokio::join!(interrupts.decide(Interruption::Interrupt, &mut signals), async {
                    assert!(asked.take(typed.as_bytes()))
                });
            assert_eq!(decision, expected);
        }
    }

    #[test]
    fn answers_are_read_by_their_first_letter() {
        let table = [
            ("s\n", Decision::Stop),
            ("Stop\n", Decision::Stop),
            ("d\n", Decision::Detach(130)),
            ("\n", Decision::GoOn),
            ("", Decision::Detach(130)),
        ];
        for (line, decision) in table {
            assert_eq!(read_answer(line), decision, "{line:?}");
        }
    }
}
