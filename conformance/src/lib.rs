//! One suite per port, for our backends and for yours.
//!
//! Each suite is a module of cases, `pub async fn case(place: impl Place)`, with a macro of the same name plus `_suite` that
//! expands places × cases into named tests. A place is where a backend keeps its things: opening it twice is a restart.

pub mod container_service;
pub mod diff_watch;
mod histories;
pub mod input;
pub mod log_store;
pub mod process_store;
pub mod script;
pub mod vcs_history;
pub mod vcs_worktree;

use std::future::Future;

/// Expands places × cases into named tests, a module for each place.
#[doc(hidden)]
#[macro_export]
macro_rules! expand {
    ($suite:ident { $($name:ident => $place:ty),+ $(,)? } $cases:tt) => {
        $(mod $name { $crate::expand!(@ $suite $place, $cases); })+
    };
    (@ $suite:ident $place:ty, [$($case:ident),+ $(,)?]) => {
        $(#[test]
        fn $case() {
            $crate::block_on($crate::$suite::$case(<$place as ::core::default::Default>::default()));
        })+
    };
}

/// Runs one case on a runtime of its own with two worker threads.
///
/// # Panics
///
/// When no runtime can be made, or the case fails.
pub fn block_on<T>(case: impl Future<Output = T>) -> T {
    runtime().block_on(case)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the case")
}
