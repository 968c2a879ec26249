//! The host of the command line: finding it, starting it, being it.

pub mod backends;
pub mod connect;
pub mod daemon;
pub mod idle;
pub mod inside;
pub mod lock;
pub mod log;
mod moved;
mod presence;
mod secrets;
pub mod service;
mod serving;
pub mod settings;
pub mod start;
pub mod stores;
