//! The simulation: the code that ships, on a world that is a value, attacked all day.
//!
//! Three layers run the same [plans](plan) and are judged by the same [oracles](oracle): the machines alone, step by step;
//! the engine on a small seeded executor; the engine on tokio with its clock paused. See `docs/simulation.md`.

pub mod command;
pub mod event;
pub mod executor;
pub mod exhaustive;
pub mod ground;
pub mod meta;
pub mod names;
pub mod oracle;
pub mod paused;
pub mod place;
pub mod plan;
pub mod play;
pub mod report;
pub mod scenario;
pub mod seeded;
pub mod shrink;
pub mod sometimes;
pub mod stage;
pub mod steps;
pub mod view;
