//! A faulty [`ContainerService`].

use async_trait::async_trait;
use windlass_core::container_service::{
    Adoption, ContainerService, ContainerServiceError, LaunchSpec, Launched, Place, Room,
    StopRequest,
};
use windlass_core::execution::{ExitReport, FinalReport};
use windlass_core::id::{Epoch, ExecutionId, Nonce};

use super::{About, Call, Faulty, Method, Site, Wrong, done};

fn wrong(wrong: Wrong) -> ContainerServiceError {
    match wrong {
        Wrong::Full => ContainerServiceError::Full,
        Wrong::Unknown(op) => op.error().into(),
    }
}

fn about(site: Site, execution: ExecutionId) -> Call {
    Call { site, about: About::Execution(execution) }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: ContainerService> ContainerService for Faulty<T> {
    async fn prepare(
        &self,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> Result<Place, ContainerServiceError> {
        let perform = || self.inner.prepare(execution, nonce);
        self.call(
            about(Site::Prepare, execution),
            Method { batch: &[], perform, wrong, tell: done },
        )
        .await
    }

    async fn launch(
        &self,
        place: &Place,
        spec: LaunchSpec,
        epoch: Epoch,
    ) -> Result<Launched, ContainerServiceError> {
        let call = about(Site::Launch, spec.execution);
        let perform = || self.inner.launch(place, spec.clone(), epoch);
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn adopt(
        &self,
        execution: ExecutionId,
        place: &Place,
        epoch: Epoch,
    ) -> Result<Adoption, ContainerServiceError> {
        let perform = || self.inner.adopt(execution, place, epoch);
        self.call(about(Site::Adopt, execution), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn exited(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<ExitReport, ContainerServiceError> {
        let perform = || self.inner.exited(execution, place);
        self.call(about(Site::Exited, execution), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn finished(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError> {
        let perform = || self.inner.finished(execution, place);
        self.call(
            about(Site::Finished, execution),
            Method { batch: &[], perform, wrong, tell: done },
        )
        .await
    }

    async fn stop(
        &self,
        execution: ExecutionId,
        place: &Place,
        request: StopRequest,
    ) -> Result<(), ContainerServiceError> {
        let perform = || self.inner.stop(execution, place, request);
        self.call(about(Site::Stop, execution), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn places(&self) -> Result<Vec<(ExecutionId, Place)>, ContainerServiceError> {
        let call = Call { site: Site::Places, about: About::Nothing };
        let perform = || self.inner.places();
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn discard(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<(), ContainerServiceError> {
        let perform = || self.inner.discard(execution, place);
        self.call(
            about(Site::Discard, execution),
            Method { batch: &[], perform, wrong, tell: done },
        )
        .await
    }

    async fn room(&self) -> Result<Room, ContainerServiceError> {
        let call = Call { site: Site::Room, about: About::Nothing };
        let perform = || self.inner.room();
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }
}
