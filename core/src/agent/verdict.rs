//! How a turn and a whole run of an agent ended, as far as it can be known.

use serde::{Deserialize, Serialize};

use super::usage::UsageReport;
use crate::outcome::Exit;

/// Why an agent could not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// It is not logged in, or its key was refused.
    Auth,
    /// The user's allowance is used up.
    UsageLimit,
    /// Too many requests; trying again later may help.
    RateLimit,
    /// The conversation no longer fits the model.
    ContextWindow,
    /// It reached the number of turns that it may take.
    TurnLimit,
    /// It reached the money or tokens that it may use.
    Budget,
    /// The model's provider failed.
    Provider,
    /// The provider refused the request.
    Request,
    /// The connection to the provider broke.
    Network,
    /// The model refused to answer.
    Refused,
    /// The session to resume is not there, or the new one exists already.
    Session,
    /// The directory is not trusted or not a repository.
    Untrusted,
    /// Its configuration or arguments are wrong.
    Config,
    /// It reached the most that it may write in one answer.
    OutputLimit,
    /// A tool failed so badly that it gave up.
    Tool,
    /// It ended with a code that says no more.
    Exit,
    /// It did not say why.
    Unknown,
}

/// What an agent says about something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub reason: FailureReason,
    /// The agent's own words, cut to a few KiB.
    pub message: String,
    /// The status of the provider's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// When a usage limit resets, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at_ms: Option<u64>,
    /// How long to wait before the next try, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// Makes one that says why and what the agent said.
    #[must_use]
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message, http_status: None, resets_at_ms: None, retry_after_ms: None }
    }

    /// Makes one from the status of the provider's answer.
    #[must_use]
    pub fn http(status: u16, message: impl Into<String>) -> Self {
        let reason = match status {
            401 | 403 => FailureReason::Auth,
            402 => FailureReason::UsageLimit,
            429 => FailureReason::RateLimit,
            413 => FailureReason::ContextWindow,
            400..=499 => FailureReason::Request,
            _ => FailureReason::Provider,
        };
        Self { http_status: Some(status), ..Self::new(reason, message) }
    }
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TurnVerdict {
    /// The agent said that it is done.
    Completed,
    /// The agent said that it was interrupted.
    Interrupted,
    /// The agent said that it failed.
    Failed {
        /// Why.
        #[serde(flatten)]
        failure: Failure,
    },
    /// The process ended, or another turn began, before the agent said anything.
    Unfinished,
}

/// What is known of the process when its output is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// What the kernel saw of the agent itself; `None` if nobody saw it or it was a launcher's.
    pub exit: Option<Exit>,
    /// We signalled it.
    pub stopped_by_us: bool,
}

/// How the run of an agent ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AgentOutcome {
    /// The last turn is complete and the process did not contradict it.
    Completed,
    /// The last turn, or the run before any turn, failed.
    Failed {
        /// Why.
        #[serde(flatten)]
        failure: Failure,
    },
    /// The last turn was interrupted, by request or by our signal.
    Interrupted,
    /// The agent ended without saying how, whatever its exit code.
    Unfinished,
}

/// How many questions there were and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalCounts {
    /// Asked in all.
    pub asked: u64,
    /// Answered with yes.
    pub allowed: u64,
    /// Answered with no, by us or by the agent itself where it may not ask.
    pub denied: u64,
    /// Taken back by the agent.
    pub withdrawn: u64,
    /// Open when the process ended.
    pub unanswered: u64,
}

/// The last word on a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The agent's session, for resuming.
    pub session_id: Option<String>,
    /// Turns that began.
    pub turns: u64,
    /// How it ended.
    pub outcome: AgentOutcome,
    /// What the kernel saw of the agent.
    pub exit: Option<Exit>,
    /// What it asked.
    pub approvals: ApprovalCounts,
    /// What it used; `None` if it never said.
    pub usage: Option<UsageReport>,
    /// Its last message, cut to 4096 bytes at a character: the summary for a commit.
    pub summary: Option<String>,
}

impl AgentOutcome {
    /// Judges a run: success is a completed turn and an exit that does not contradict it.
    ///
    /// `last` is the last turn, `None` before the first. `from_exit` is what the protocol reads from an exit code.
    #[must_use]
    pub fn judge(last: Option<&TurnVerdict>, ending: Ending, from_exit: Option<Failure>) -> Self {
        match last {
            Some(TurnVerdict::Failed { failure }) => Self::Failed { failure: failure.clone() },
            Some(TurnVerdict::Interrupted) => Self::Interrupted,
            Some(TurnVerdict::Completed) => match (ending.exit, from_exit) {
                (None | Some(Exit::Code(0)), _) => Self::Completed,
                _ if ending.stopped_by_us => Self::Completed,
                (Some(Exit::Code(_)), Some(failure)) => Self::Failed { failure },
                (Some(Exit::Code(code)), None) => {
                    let message = format!("exit code {code} after the turn was complete");
                    Self::Failed { failure: Failure::new(FailureReason::Exit, message) }
                }
                (Some(Exit::Signal(signal)), _) => {
                    let message = format!("signal {signal} after the turn was complete");
                    Self::Failed { failure: Failure::new(FailureReason::Exit, message) }
                }
            },
            Some(TurnVerdict::Unfinished) | None if ending.stopped_by_us => Self::Interrupted,
            Some(TurnVerdict::Unfinished) | None => match (ending.exit, from_exit) {
                (Some(Exit::Code(code)), Some(failure)) if code != 0 => Self::Failed { failure },
                _ => Self::Unfinished,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(last: Option<TurnVerdict>, exit: Option<Exit>, stopped_by_us: bool) -> AgentOutcome {
        let from_exit = match exit {
            Some(Exit::Code(code)) if code != 0 => Some(Failure::new(FailureReason::Exit, "")),
            _ => None,
        };
        AgentOutcome::judge(last.as_ref(), Ending { exit, stopped_by_us }, from_exit)
    }

    #[test]
    fn a_clean_exit_without_a_terminal_event_is_no_success() {
        assert_eq!(judged(None, Some(Exit::Code(0)), false), AgentOutcome::Unfinished);
        let open = Some(TurnVerdict::Unfinished);
        assert_eq!(judged(open, Some(Exit::Code(0)), false), AgentOutcome::Unfinished);
    }

    #[test]
    fn a_terminal_event_needs_an_exit_that_agrees() {
        let done = || Some(TurnVerdict::Completed);
        assert_eq!(judged(done(), Some(Exit::Code(0)), false), AgentOutcome::Completed);
        assert_eq!(judged(done(), None, false), AgentOutcome::Completed);
        assert!(matches!(judged(done(), Some(Exit::Code(1)), false), AgentOutcome::Failed { .. }));
        assert!(matches!(
            judged(done(), Some(Exit::Signal(11)), false),
            AgentOutcome::Failed { .. }
        ));
    }

    #[test]
    fn a_complete_turn_whose_process_we_ended_is_a_success() {
        let done = Some(TurnVerdict::Completed);
        assert_eq!(judged(done, Some(Exit::Signal(15)), true), AgentOutcome::Completed);
    }

    #[test]
    fn what_we_signalled_before_it_was_done_was_interrupted() {
        let open = Some(TurnVerdict::Unfinished);
        assert_eq!(judged(open, Some(Exit::Code(0)), true), AgentOutcome::Interrupted);
    }
}
