//! The suite of `ProcessStore` over [`MemoryStore`].

use std::sync::Arc;

use async_trait::async_trait;
use windlass_conformance::process_store::ProcessStorePlace;
use windlass_core::process_store::ProcessStore;
use windlass_fakes::MemoryStore;

/// Records that outlive the stores over them.
#[derive(Default)]
struct Memory {
    store: MemoryStore,
}

#[async_trait]
impl ProcessStorePlace for Memory {
    async fn open(&self) -> Arc<dyn ProcessStore> {
        Arc::new(self.store.clone())
    }
}

windlass_conformance::process_store_suite! { memory => super::Memory }
windlass_conformance::process_store_shared_suite! { memory_open_twice => super::Memory }
windlass_conformance::process_store_histories! { memory_histories => super::Memory }
