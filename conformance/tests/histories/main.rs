//! Random histories find stores that break their word, one planted for each sort of break.

mod log_store;
mod process_store;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what must fail, and says why it did.
#[track_caller]
fn found(histories: fn()) -> String {
    let failure = catch_unwind(AssertUnwindSafe(histories)).expect_err("nothing was found");
    failure.downcast_ref::<String>().cloned().unwrap_or_default()
}
