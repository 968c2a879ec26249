//! The shim's own logic: what it writes, what it says, and what it decides. No system calls here.

pub mod frame;
