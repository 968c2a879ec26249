//! The redb backend of Windlass: [`RedbStore`], a `ProcessStore` in one file, and [`RedbLogs`], a `LogStore` in another.
//!
//! They know keys, order, revisions, epochs and numbers, and nothing of what a body means. The formats of the files are in
//! `docs/redb.md`.

mod bytes;
mod check;
mod db;
mod door;
mod format;
mod gate;
mod growth;
mod log_schema;
mod log_store;
mod logs;
mod process_store;
mod query;
mod records;
mod schema;
mod writer;

pub use db::RedbOptions;
pub use log_store::RedbLogs;
pub use process_store::RedbStore;
