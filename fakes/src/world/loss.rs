//! What a power loss does to what was not synced: data, given by whoever cuts the power.

/// What becomes of bytes that were written and not synced, of one kind of file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unsynced {
    /// They are gone.
    #[default]
    Gone,
    /// They happened to reach the disk.
    Kept,
    /// So many thousandths of them reached the disk, the first ones.
    Torn {
        /// How many of 1000.
        permille: u16,
    },
    /// So many thousandths of them reached the disk; what follows reads as zeros.
    Zeroed {
        /// How many of 1000.
        permille: u16,
    },
}

impl Unsynced {
    /// Returns how many of `len` unsynced bytes or items are as they were written.
    #[must_use]
    pub(crate) fn kept(self, len: usize) -> usize {
        match self {
            Self::Gone => 0,
            Self::Kept => len,
            Self::Torn { permille } | Self::Zeroed { permille } => {
                len * usize::from(permille.min(1000)) / 1000
            }
        }
    }
}

/// What a power loss does to each kind of file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Loss {
    /// To the journals of places.
    pub journals: Unsynced,
    /// To the segments of logs.
    pub logs: Unsynced,
    /// To batches of the store that nobody was told of.
    pub store: Unsynced,
    /// To files of worktrees whose creation is not on the disk yet.
    pub worktrees: Unsynced,
}

impl Loss {
    /// Everything that was not synced is gone.
    pub const ALL: Self = Self::of(Unsynced::Gone);
    /// Everything that was written happened to reach the disk.
    pub const NOTHING: Self = Self::of(Unsynced::Kept);

    /// Returns the loss that does the same to every kind of file.
    #[must_use]
    pub const fn of(unsynced: Unsynced) -> Self {
        Self { journals: unsynced, logs: unsynced, store: unsynced, worktrees: unsynced }
    }
}
