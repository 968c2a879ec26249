//! Power loss: what happens to files is recorded, every image that a power cut may leave of them is built, and what is
//! opened over it must have kept its word. Then the power goes again, in the midst of that.
//!
//! The program that is recorded has to define the system's functions that change files; see [`recorder`]. The disk is a
//! model ([`crashes`]): of what was not synced it keeps what it likes.

pub mod campaign;
pub mod crashes;
pub mod image;
pub mod log_stores;
pub mod process_stores;
pub mod random;
pub mod recorder;
pub mod recording;
pub mod supervised;
