//! Drives the real shim: starts it as a host does, and checks what it says against what its files say.
//!
//! The shim that is driven is the example `own_shim`, so the hook is driven as well.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the helpers of tests are tests"
)]

mod log;
mod output;
mod place;
mod start;
mod stop;

use place::{Place, script};
