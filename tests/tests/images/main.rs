//! Power loss: every image that a power cut may leave of records, logs and journals, and the recorder itself.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests are tests")]

mod forgotten;
mod stores;
mod symbols;
