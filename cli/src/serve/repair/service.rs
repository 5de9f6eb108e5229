//! What this node does for its peers' mending, and on their behalf.

use super::super::check;
use super::super::peers::asking;
use super::Healer;
use super::healer::{AT_ONCE, sum};
use bytes::Bytes;
use holdfast_proto::repair::repair_server::Repair;
use holdfast_proto::repair::{
    BlockAnswer, BlockRequest, ExamineAnswer, ExamineRequest, MendAnswer, MendRequest, ValueAnswer, ValueRequest,
};
use holdfast_storage::error::{StoreError, chain};
use holdfast_storage::mend;
use holdfast_storage::types::{BLOCK, Ino, MAX_OFFSET};
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub(in super::super) struct RepairService(pub(in super::super) Arc<Healer>);

impl RepairService {
    /// Reads on a thread that may block.
    async fn read(
        &self,
        read: impl FnOnce(&Healer) -> Result<Option<Bytes>, StoreError> + Send + 'static,
    ) -> Result<Option<Bytes>, Status> {
        let healer = self.0.clone();
        let read = tokio::task::spawn_blocking(move || read(&healer)).await;
        let read = read.map_err(|panic| Status::internal(panic.to_string()))?;
        read.map_err(|error| Status::data_loss(format!("it can't read its own store: {}", chain(&error))))
    }
}

#[tonic::async_trait]
impl Repair for RepairService {
    async fn block(&self, request: Request<BlockRequest>) -> Result<Response<BlockAnswer>, Status> {
        asking(self.0.shared(), &request, None)?;
        let BlockRequest { ino, number, sum: of } = request.into_inner();
        let of = sum(&of).map_err(Status::invalid_argument)?;
        if number > MAX_OFFSET / BLOCK {
            return Err(Status::invalid_argument("no file has such a block"));
        }
        let found = self
            .read(move |healer| mend::block(healer.shared().handle.store(), Ino(ino), number, of))
            .await?;
        Ok(Response::new(BlockAnswer {
            found: found.is_some(),
            data: found.unwrap_or_default(),
        }))
    }

    async fn value(&self, request: Request<ValueRequest>) -> Result<Response<ValueAnswer>, Status> {
        asking(self.0.shared(), &request, None)?;
        let ValueRequest { key, hash } = request.into_inner();
        let hash = sum(&hash).map_err(Status::invalid_argument)?;
        let found = self
            .read(move |healer| mend::value(healer.shared().handle.store(), &key, hash))
            .await?;
        Ok(Response::new(ValueAnswer {
            found: found.is_some(),
            value: found.unwrap_or_default(),
        }))
    }

    async fn examine(&self, request: Request<ExamineRequest>) -> Result<Response<ExamineAnswer>, Status> {
        asking(self.0.shared(), &request, None)?;
        if !self.0.shared().is_active() {
            return Err(Status::failed_precondition("this node isn't active (any more)"));
        }
        let blocks = request.into_inner().blocks;
        if blocks.len() > AT_ONCE || blocks.iter().any(|block| block.number > MAX_OFFSET / BLOCK) {
            return Err(Status::invalid_argument(
                "too many blocks at once, or one that no file has",
            ));
        }
        let blocks: Vec<_> = blocks.iter().map(|block| (Ino(block.ino), block.number)).collect();
        check::examine(&self.0, &blocks).await.map_err(Status::unavailable)?;
        Ok(Response::new(ExamineAnswer {}))
    }

    async fn mend(&self, request: Request<MendRequest>) -> Result<Response<MendAnswer>, Status> {
        let from = asking(self.0.shared(), &request, None)?;
        if self.0.shared().view().leader != Some(from) {
            return Err(Status::permission_denied(
                "only the node that leads may have something changed here",
            ));
        }
        let request = request.into_inner();
        if request.blocks.len() + request.keys.len() > AT_ONCE {
            return Err(Status::invalid_argument("too many changes at once"));
        }
        let answer = self.0.mend(request).await;
        answer.map(Response::new).map_err(Status::failed_precondition)
    }
}
