//! [`CountedAdoptions`]: a container service that tells how many adoptions it has finished.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use windlass::core::container_service::{
    Adoption, ContainerService, ContainerServiceError, LaunchSpec, Launched, Place, Room,
    StopRequest,
};
use windlass::core::execution::{ExitReport, FinalReport};
use windlass::core::id::{Epoch, ExecutionId, Nonce};

/// Passes everything on; counts the adoptions that came to something that runs.
pub(crate) struct CountedAdoptions {
    inner: Arc<dyn ContainerService>,
    adopted: watch::Sender<u64>,
}

impl CountedAdoptions {
    pub(crate) fn new(inner: Arc<dyn ContainerService>) -> Arc<Self> {
        Arc::new(Self { inner, adopted: watch::Sender::new(0) })
    }

    /// Waits until so many have been adopted.
    pub(crate) async fn adopted(&self, count: u64) {
        // The sender is ours, so this cannot end early.
        drop(self.adopted.subscribe().wait_for(|adopted| *adopted >= count).await);
    }
}

impl fmt::Debug for CountedAdoptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ContainerService for CountedAdoptions {
    async fn prepare(
        &self,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> Result<Place, ContainerServiceError> {
        self.inner.prepare(execution, nonce).await
    }

    async fn launch(
        &self,
        place: &Place,
        spec: LaunchSpec,
        epoch: Epoch,
    ) -> Result<Launched, ContainerServiceError> {
        self.inner.launch(place, spec, epoch).await
    }

    async fn adopt(
        &self,
        execution: ExecutionId,
        place: &Place,
        epoch: Epoch,
    ) -> Result<Adoption, ContainerServiceError> {
        let adoption = self.inner.adopt(execution, place, epoch).await?;
        if matches!(adoption, Adoption::Running { .. }) {
            self.adopted.send_modify(|adopted| *adopted += 1);
        }
        Ok(adoption)
    }

    async fn exited(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<ExitReport, ContainerServiceError> {
        self.inner.exited(execution, place).await
    }

    async fn finished(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError> {
        self.inner.finished(execution, place).await
    }

    async fn stop(
        &self,
        execution: ExecutionId,
        place: &Place,
        request: StopRequest,
    ) -> Result<(), ContainerServiceError> {
        self.inner.stop(execution, place, request).await
    }

    async fn places(&self) -> Result<Vec<(ExecutionId, Place)>, ContainerServiceError> {
        self.inner.places().await
    }

    async fn discard(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<(), ContainerServiceError> {
        self.inner.discard(execution, place).await
    }

    async fn room(&self) -> Result<Room, ContainerServiceError> {
        self.inner.room().await
    }
}
