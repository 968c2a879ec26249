//! Local executions and their logs, with real processes under the real shim.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

mod adoption;
mod follow;
mod launch;
mod logs;
mod place;
mod stop;

windlass_conformance::container_service_suite! { containers => crate::place::Local }
windlass_conformance::input_suite! { input => crate::place::Local }
windlass_conformance::log_store_suite! { logs_of_a_shim => crate::logs::Segments }
