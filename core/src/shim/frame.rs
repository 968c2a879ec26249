//! Log frames and segments: how entries lie on disk.

/// Which stream an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum Stream {
    /// Standard output, or both where they are merged.
    Stdout,
    /// Standard error.
    Stderr,
    /// A terminal.
    Pty,
    /// What was written to standard input.
    Stdin,
}

/// Why numbers are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum GapCause {
    /// The byte cap: head and tail are kept.
    Cap,
    /// The disk was full.
    Full,
    /// The reader asked for drops instead of back-pressure.
    Dropped,
    /// The machine lost power before the bytes were synced, or the shim died.
    Power,
}
