//! The SQLite backend of Windlass: [`SqliteStore`], a `ProcessStore` in one file.
//!
//! It knows keys, order, revisions and epochs, and nothing of what a body means. The format of the file is in
//! `docs/sqlite.md`.

mod db;
mod group;
mod migrate;
mod process_store;
mod query;
mod writer;

pub use db::SqliteOptions;
pub use process_store::SqliteStore;
