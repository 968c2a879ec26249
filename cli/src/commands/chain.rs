//! The executions of a chain, one after the other, and what they come to.

use windlass::api::client::Client;
use windlass::core::action::RunReason;
use windlass::core::id::ExecutionId;
use windlass::view::ExecutionView;

use super::outcome::{End, words};
use crate::error::CliError;

/// Returns the word of a run reason.
#[must_use]
pub(super) fn reason_word(reason: RunReason) -> &'static str {
    match reason {
        RunReason::Setup => "setup",
        RunReason::Agent => "agent",
        RunReason::Cleanup => "cleanup",
        RunReason::DevServer => "dev server",
        RunReason::Background => "background",
        RunReason::Git => "git",
    }
}

/// Returns what a setup that ended well went over to: it stands for what follows it.
#[must_use]
pub(super) fn stands_for(view: &ExecutionView) -> Option<ExecutionId> {
    view.followed_by.filter(|_| view.run_reason == RunReason::Setup)
}

/// The executions of a chain that have settled so far, in order.
#[derive(Debug, Default)]
pub(super) struct Chain {
    settled: Vec<ExecutionView>,
}

impl Chain {
    /// Takes one that has settled; returns the one that follows it.
    pub(super) fn goes_on(&mut self, view: ExecutionView) -> Option<ExecutionId> {
        let next = view.followed_by;
        self.settled.push(view);
        next
    }

    /// Says that the last one is over and which is next.
    #[must_use]
    pub(super) fn progress(&self, next: ExecutionId) -> String {
        match self.settled.last() {
            Some(last) => {
                let (id, reason) = (last.id.short(), reason_word(last.run_reason));
                format!("windlass: {reason} {id} {}; {} follows", words(last), next.short())
            }
            None => format!("windlass: {} follows", next.short()),
        }
    }

    /// Says how it ended: as its command, or as its setup if that did not end well.
    ///
    /// # Errors
    ///
    /// The host's.
    pub(super) async fn end(mut self, client: &Client) -> Result<End, CliError> {
        let last = self.settled.pop().ok_or_else(|| CliError::not_found("nothing was followed"))?;
        let is_cleanup = last.run_reason == RunReason::Cleanup;
        let Some(agent) = self.settled.pop().filter(|_| is_cleanup) else {
            return End::look(client, last).await;
        };
        let last = End::look(client, last).await?;
        let ended_well =
            last.execution.outcome.as_ref().is_some_and(|view| view.outcome.ended_well());
        Ok(End {
            execution: agent,
            attempt: last.attempt,
            commit_failed: last.commit_failed,
            repositories: last.repositories,
            cleanup: (!ended_well).then_some(last.execution),
        })
    }
}
