//! The SQLite backend of Windlass: [`SqliteStore`], a `ProcessStore` in one file, and [`SqliteLogs`], a `LogStore` in
//! another.
//!
//! It knows keys, order, revisions and epochs, and nothing of what a body means. The format of the file is in
//! `docs/sqlite.md`.

mod db;
mod group;
mod growth;
mod log_reader;
mod log_store;
mod log_writer;
mod migrate;
mod process_store;
mod query;
mod readers;
mod reserve;
mod writer;

pub use db::SqliteOptions;
pub use log_store::SqliteLogs;
pub use process_store::SqliteStore;
