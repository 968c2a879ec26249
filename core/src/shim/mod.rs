//! The shim's own logic: what it writes, what it says, and what it decides. No system calls here.

pub mod adoption;
pub mod cutter;
pub mod frame;
pub mod journal;
pub mod machine;
pub mod message;
pub mod retention;
mod value;
pub mod wire;
