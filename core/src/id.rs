//! Typed identifiers. None is made here: the caller passes the random bits in.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::time::Timestamp;

/// Declares a UUID newtype with the conversions that every id has.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "ports", serde(transparent))]
        pub struct $name(pub Uuid);

        impl $name {
            /// Makes a UUIDv7 from the time and 10 random bytes, both the caller's.
            #[must_use]
            pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(at.0, &random).into_uuid())
            }

            /// Returns the printed short form: a letter and the last 8 hex digits.
            #[must_use]
            pub fn short(&self) -> String {
                let hex = self.0.simple().to_string();
                format!(concat!($letter, "-{}"), &hex[24..])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// Identifies one try in its own workspace.
    AttemptId, "a"
}
id! {
    /// Identifies one start of one action.
    ExecutionId, "x"
}
id! {
    /// Identifies what somebody wants done.
    TaskId, "t"
}
id! {
    /// Identifies a repository with its defaults.
    ProjectId, "p"
}
id! {
    /// Identifies a message that is queued for an attempt.
    FollowUpId, "f"
}
id! {
    /// Identifies the process that drives the engine, from its start to its end.
    HostId, "h"
}
id! {
    /// Identifies the machine whose processes, worktrees and journals they are.
    NodeId, "n"
}

impl ExecutionId {
    /// Returns the id of the execution that follows this one in its chain and is recorded at this time: the same batch, made
    /// twice, is the same.
    #[must_use]
    pub fn following(&self, at: Timestamp) -> Self {
        let named = *Uuid::new_v5(&self.0, b"next").as_bytes();
        let mut random = [0; 10];
        random.copy_from_slice(&named[..10]);
        Self::new(at, random)
    }
}

/// Distinguishes two starts under one execution id: a launch that never ran and its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(transparent))]
pub struct Nonce(pub Uuid);

/// Counts the takeovers of a node's records; a write of a lower one is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(transparent))]
pub struct Epoch(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_is_told_by_what_was_before_and_sorts_behind_it() {
        let first = ExecutionId::new(Timestamp(1_000), [0xff; 10]);
        let other = ExecutionId::new(Timestamp(1_000), [0xfe; 10]);
        let next = first.following(Timestamp(1_001));
        assert_eq!(next, first.following(Timestamp(1_001)));
        assert_ne!(next, other.following(Timestamp(1_001)));
        assert!(first < next);
        assert_ne!(next.short(), next.following(Timestamp(1_001)).short());
    }

    #[test]
    fn ids_sort_by_time_and_print_their_last_eight_digits() {
        let early = ExecutionId::new(Timestamp(1_000), [0xff; 10]);
        let late = ExecutionId::new(Timestamp(1_001), [0; 10]);
        assert!(early < late);
        assert_eq!(early.short(), "x-ffffffff");
        assert_eq!(late.to_string().parse::<ExecutionId>().unwrap(), late);
    }
}
