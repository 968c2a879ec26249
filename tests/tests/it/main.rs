//! The one test binary: what concerns more than one crate.

mod tidy;
mod engine;
