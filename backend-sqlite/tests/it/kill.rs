//! `kill -9` of whoever writes.

use windlass_conformance::process_store::what_was_acknowledged_before_a_kill_is_there;
use windlass_core::process_store::ProcessStore;

use crate::open;

#[test]
fn what_was_acknowledged_is_there() {
    let test = "kill::what_was_acknowledged_is_there";
    what_was_acknowledged_before_a_kill_is_there(test, async |directory| {
        let store = open(&directory.join("windlass.db")).await;
        store.expect("a store") as std::sync::Arc<dyn ProcessStore>
    });
}
