//! The one test binary: what concerns more than one crate.

mod crash;
mod engine;
mod tidy;
