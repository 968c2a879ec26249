//! Coding agents: what they say becomes a normalised conversation, and what it means becomes facts for the machine.
//!
//! An [`Adapter`] speaks one protocol: lines in, [`Event`]s and messages out. A [`Conversation`] is the fold of one log
//! through one adapter: `(state, log item) -> (state, outputs)`. It reads no clock, makes no id and keeps no more than
//! what may still change, so following a log and reading it again are the same code with the same result.
//!
//! The protocols themselves are not here but in the crate `windlass-agents`; nor is anything that starts, stops or
//! answers an agent.

mod adapter;
mod clip;
mod conversation;
mod diff;
mod entry;
mod event;
mod framer;
mod pages;
mod thread;
mod usage;
mod verdict;

pub use adapter::{
    Adapter, Command, Decision, Line, LineEnd, Message, Permission, Refusal, Sink, Start,
};
pub use conversation::{Conversation, Fact, Output, What};
pub use diff::unified_diff;
pub use entry::{
    ApprovalState, Change, ChangeKind, Content, Entry, FileChange, Question, Todo, TodoStatus,
    ToolAction, ToolOutput, ToolStatus,
};
pub use event::{
    Approval, ApprovalChoice, ApprovalId, ApprovalKind, ChoiceKind, Event, Output as ToolText,
    Role, TextMode, ToolUpdate,
};
pub use framer::{Framer, MAX_LINE_BYTES};
pub use pages::{Index, PAGE_ENTRIES, PatchOp, Window, patch};
pub use usage::{LimitWindow, Usage, UsageReport};
pub use verdict::{
    AgentOutcome, ApprovalCounts, Ending, Failure, FailureReason, TurnVerdict, Verdict,
};
