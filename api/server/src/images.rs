//! The service of images: what the node of this server keeps of registries' images.
//!
//! The server knows the machines, the handler the images; which machine uses which image is worked out where both are known,
//! in the handler.

use std::sync::Arc;

use rvm_proto::v1::images_server::Images;
use rvm_proto::v1::pull_image_response::{Progress, Response as Said};
use rvm_proto::v1::{
    Image, ListImagesRequest, ListImagesResponse, PruneImagesRequest, PruneImagesResponse, PullImageRequest,
    PullImageResponse, RemoveImageRequest, RemoveImageResponse,
};
use rvm_types::VirtualMachineInstance;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::error::{invalid_argument, precondition};
use crate::objects::Objects;

/// Messages that wait for a caller who watches a pull.
const QUEUE: usize = 4;

/// Whoever keeps images: the handler.
#[tonic::async_trait]
pub trait ImageStore: Send + Sync + 'static {
    /// What is kept, by name; and which of these machines, of all nodes, use it here.
    async fn list(&self, machines: &[VirtualMachineInstance]) -> Result<Vec<Image>, ImageStoreError>;

    /// Fetches an image, tells how far it is, and returns its full name. Dropped, it is fetched no further.
    async fn pull(&self, name: &str, tell: &(dyn Fn(u64, u64) + Sync)) -> Result<String, ImageStoreError>;

    /// Removes an image; returns the bytes that are free now.
    async fn remove(&self, name: &str, machines: &[VirtualMachineInstance]) -> Result<u64, ImageStoreError>;

    /// Removes what none of these machines uses here; returns the names and the bytes that are free now.
    async fn prune(&self, machines: &[VirtualMachineInstance])
    -> Result<(Vec<String>, u64), ImageStoreError>;
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum ImageStoreError {
    /// What was asked for is no image's name, or not one of a registry.
    #[error("{0}")]
    Name(String),
    /// It is not kept.
    #[error("image {0:?} is not kept on this node")]
    NotHere(String),
    /// Machines use it.
    #[error("image {name:?} is used by {}", machines.join(", "))]
    InUse {
        /// The image.
        name: String,
        /// Those machines.
        machines: Vec<String>,
    },
    /// Something is fetched or unpacked at this moment.
    #[error("an image is being pulled or unpacked at this moment; nothing was removed")]
    Busy,
    /// No registry gives it.
    #[error("{0}")]
    Pull(String),
    /// The node's disk.
    #[error("{0}")]
    Broken(String),
}

impl From<ImageStoreError> for Status {
    fn from(error: ImageStoreError) -> Self {
        let message = error.to_string();
        match error {
            ImageStoreError::Name(_) => invalid_argument(message),
            ImageStoreError::NotHere(_) => Self::not_found(message),
            ImageStoreError::InUse { machines, .. } => precondition(
                rvm_proto::reasons::IMAGE_IN_USE,
                message,
                &[("machines", &machines.join(","))],
            ),
            ImageStoreError::Busy => Self::aborted(message),
            ImageStoreError::Pull(_) => Self::unavailable(message),
            ImageStoreError::Broken(_) => Self::internal(message),
        }
    }
}

/// The images of this node.
#[derive(Clone)]
pub struct ImagesService {
    objects: Objects,
    store: Arc<dyn ImageStore>,
}

impl ImagesService {
    pub(crate) fn new(objects: Objects, store: Arc<dyn ImageStore>) -> Self {
        Self { objects, store }
    }

    /// All machines that can be understood; the others were never started.
    async fn machines(&self) -> Result<Vec<VirtualMachineInstance>, Status> {
        let objects = self.objects.list("").await?.into_iter();
        let typed =
            objects.filter_map(|object| serde_json::from_value(serde_json::to_value(object).ok()?).ok());
        Ok(typed.collect())
    }

    /// Fetches an image; the responses go to a caller, and all is over when the caller has gone.
    async fn fetch(&self, name: &str, out: &mpsc::Sender<Result<PullImageResponse, Status>>) {
        let say = |said| PullImageResponse { response: Some(said) };
        let tell = |have, total| {
            // A caller that is slow misses some of it.
            out.try_send(Ok(say(Said::Progress(Progress { have, total }))))
                .ok();
        };
        let fetch = async {
            let name = self.store.pull(name, &tell).await?;
            let kept = self.store.list(&self.machines().await?).await?;
            let image = kept.into_iter().find(|image| image.name == name);
            image.ok_or_else(|| ImageStoreError::NotHere(name).into())
        };
        let fetched: Result<Image, Status> = tokio::select! {
            () = out.closed() => return,
            fetched = fetch => fetched,
        };
        // Nobody may be there to hear it.
        out.send(fetched.map(|image| say(Said::Pulled(image)))).await.ok();
    }
}

#[tonic::async_trait]
impl Images for ImagesService {
    type PullImageStream = ReceiverStream<Result<PullImageResponse, Status>>;

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let images = self.store.list(&self.machines().await?).await?;
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        let (out, responses) = mpsc::channel(QUEUE);
        let (service, name) = (self.clone(), request.into_inner().name);
        tokio::spawn(async move { service.fetch(&name, &out).await });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let machines = self.machines().await?;
        let freed = self.store.remove(&request.into_inner().name, &machines).await?;
        Ok(Response::new(RemoveImageResponse { freed }))
    }

    async fn prune_images(
        &self,
        _: Request<PruneImagesRequest>,
    ) -> Result<Response<PruneImagesResponse>, Status> {
        let (names, freed) = self.store.prune(&self.machines().await?).await?;
        Ok(Response::new(PruneImagesResponse { names, freed }))
    }
}
