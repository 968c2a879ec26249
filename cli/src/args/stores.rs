//! In what a data directory keeps records and logs.

use clap::ValueEnum;
use serde::Deserialize;

/// The stores that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// One SQLite file.
    Sqlite,
    /// One redb file.
    Redb,
}

impl StoreKind {
    /// Returns the word that is kept in the data directory.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Redb => "redb",
        }
    }
}

/// The log stores that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogsKind {
    /// The segments that the shims write.
    Files,
    /// A file of their own, of the kind of the store.
    Store,
    /// One SQLite file.
    Sqlite,
    /// One redb file.
    Redb,
}

impl LogsKind {
    /// Says which kind is meant beside a store of this kind.
    #[must_use]
    pub fn beside(self, store: StoreKind) -> Self {
        match (self, store) {
            (Self::Store, StoreKind::Sqlite) => Self::Sqlite,
            (Self::Store, StoreKind::Redb) => Self::Redb,
            (Self::Files | Self::Sqlite | Self::Redb, _) => self,
        }
    }

    /// Returns the word that is kept in the data directory.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Store => "store",
            Self::Sqlite => "sqlite",
            Self::Redb => "redb",
        }
    }
}
