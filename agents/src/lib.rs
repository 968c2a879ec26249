//! Adapters for the protocols of coding agents, and what is known of starting them.
//!
//! Everything here is a pure function of its arguments: lines in, events and messages out; options in, argument vectors
//! out. Nothing looks for a program, reads an environment or starts a process. The conversation that the adapters feed is
//! in `windlass-core`.

mod acp;
mod claude;
mod codex;
mod codex_app_server;
mod codex_exec;
mod entries;
mod failure;
mod gemini;
mod json;
mod json_rpc;
mod one_shot;
mod opencode;
mod plain;
mod profile;
mod protocol;
mod tools;
mod transcript;

pub use acp::Acp;
pub use claude::Claude;
pub use codex_app_server::CodexAppServer;
pub use codex_exec::CodexExec;
pub use entries::{Shown, entries, entries_of_transcript};
pub use gemini::Gemini;
pub use opencode::Opencode;
pub use plain::Plain;
pub use profile::{GitDirs, Launch, Options, Traits, launch, native_program, traits};
pub use protocol::{Agent, AnyAdapter, Protocol, UnknownAgent};
pub use transcript::{Direction, Record, Transcript};
