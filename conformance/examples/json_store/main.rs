//! An example of a backend: records in one JSON file. Counts how often it was started, durably.
//!
//! ```text
//! cargo run -p windlass-conformance --example json_store -- FILE
//! ```
//!
//! How it is tested is in `conformance/tests/json_store.rs`; how to write a backend, in `docs/backends.md`.

mod process_store;

use std::error::Error;
use std::path::Path;

use uuid::Uuid;
use windlass_core::id::{HostId, NodeId};
use windlass_core::process_store::{Expect, Kind, ProcessStore as _, Record, RecordKey, Write};
use windlass_core::time::Timestamp;

use self::process_store::JsonStore;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: json_store FILE")?;
    let store = JsonStore::open(Path::new(&path))?;
    let lease = store.acquire(HostId(Uuid::nil()), NodeId(Uuid::nil())).await?;
    let key = RecordKey { kind: Kind::Task, id: Uuid::nil() };
    let (starts, expect) = match store.get(key).await? {
        Some(before) => (before.record.body.parse::<u64>()? + 1, Expect::At(before.revision)),
        None => (1, Expect::Absent),
    };
    let record = Record {
        key,
        parent: None,
        owner: None,
        state: "todo".to_owned(),
        at: Timestamp(0),
        body: starts.to_string(),
    };
    let number = store.commit(vec![Write::Put { record, expect }], lease).await?;
    println!("start {starts}, change {}", number.0);
    store.close();
    Ok(())
}
