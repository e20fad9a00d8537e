//! What the gRPC server asks of a node's images: what is kept and who uses it, to fetch one, to remove some.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use rvm_server::{Image, ImageStore, ImageStoreError};
use rvm_types::{Claim, VirtualMachineInstance};
use tokio::sync::watch;

use crate::images::Images;
use crate::images::kept::Removed;
use crate::images::pull::{Policy, Told, Wish};
use crate::plan::Me;
use crate::process::Machines;
use crate::pulling::images_of;
use crate::steps::chain;

/// The images of this node.
#[derive(Debug, Clone)]
pub struct Shelf {
    /// This node and handler.
    pub me: watch::Receiver<Me>,
    /// Its machines.
    pub machines: Arc<Machines>,
    /// Its images.
    pub images: Arc<Images>,
}

/// Machines, as `NAMESPACE/NAME`, by the full names of the images that they use.
type Users = BTreeMap<String, Vec<String>>;

// === impl Shelf ===

impl Shelf {
    /// Which of these machines use which image here. One that has ended uses none.
    fn users(&self, machines: &[VirtualMachineInstance]) -> Users {
        let me = self.me.borrow();
        let here = machines
            .iter()
            .filter(|vmi| Claim::on(vmi).is_some_and(|claim| me.made(claim)))
            .filter(|vmi| !vmi.phase().is_some_and(rvm_types::Phase::is_final));
        let mut users = Users::new();
        for vmi in here {
            let metadata = &vmi.metadata;
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            let name = format!("{}/{}", part(&metadata.namespace), part(&metadata.name));
            for image in images_of(vmi) {
                let full = self.images.full_name(&image).unwrap_or(image);
                let of_it = users.entry(full).or_default();
                if !of_it.contains(&name) {
                    of_it.push(name.clone());
                }
            }
        }
        users
    }

    async fn removed(
        &self,
        which: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Removed, ImageStoreError> {
        let (images, machines) = (Arc::clone(&self.images), Arc::clone(&self.machines));
        let remove = move || {
            let specs = machines.specs().map_err(|error| broken(&error))?;
            let removed = images.remove(&which, &specs).map_err(|error| broken(&error))?;
            removed.ok_or(ImageStoreError::Busy)
        };
        joined(tokio::task::spawn_blocking(remove).await)
    }
}

#[tonic::async_trait]
impl ImageStore for Shelf {
    async fn list(&self, machines: &[VirtualMachineInstance]) -> Result<Vec<Image>, ImageStoreError> {
        let mut users = self.users(machines);
        let images = Arc::clone(&self.images);
        let kept = move || images.kept().map_err(|error| broken(&error));
        let kept = joined(tokio::task::spawn_blocking(kept).await)?;
        let image = kept.into_iter().map(|kept| Image {
            machines: users.remove(&kept.name).unwrap_or_default(),
            name: kept.name,
            digest: format!("sha256:{}", kept.digest),
            size: kept.size,
            unpacked: kept.unpacked,
            last_used: seconds(kept.asked_for),
        });
        Ok(image.collect())
    }

    async fn pull(&self, name: &str, tell: &(dyn Fn(u64, u64) + Sync)) -> Result<String, ImageStoreError> {
        let full = self.images.full_name(name);
        let full = full.map_err(|error| ImageStoreError::Name(chain(&error)))?;
        let wish = Wish {
            image: name.to_owned(),
            policy: Policy::Always,
            secret: None,
        };
        let tell = |told| match told {
            Told::Progress(have, total) => tell(have, total),
            Told::Pulling | Told::Pulled(..) | Told::Present => {}
        };
        let pulled = self.images.pull(&wish, &tell).await;
        let pulled = pulled.map_err(|error| ImageStoreError::Pull(chain(&error)))?;
        pulled.map(|_| full).ok_or_else(|| {
            let why = format!("image {name:?} is a folder on this node, and comes from no registry");
            ImageStoreError::Name(why)
        })
    }

    async fn remove(&self, name: &str, machines: &[VirtualMachineInstance]) -> Result<u64, ImageStoreError> {
        let full = self.images.full_name(name);
        let full = full.map_err(|error| ImageStoreError::Name(chain(&error)))?;
        if let Some(machines) = self.users(machines).remove(&full) {
            return Err(ImageStoreError::InUse { name: full, machines });
        }
        let wanted = full.clone();
        let removed = self.removed(move |name| name == wanted).await?;
        if removed.names.is_empty() {
            return Err(ImageStoreError::NotHere(full));
        }
        Ok(removed.freed)
    }

    async fn prune(
        &self,
        machines: &[VirtualMachineInstance],
    ) -> Result<(Vec<String>, u64), ImageStoreError> {
        let users = self.users(machines);
        let removed = self.removed(move |name| !users.contains_key(name)).await?;
        Ok((removed.names, removed.freed))
    }
}

fn broken(error: &dyn std::error::Error) -> ImageStoreError {
    ImageStoreError::Broken(chain(error))
}

fn joined<T>(done: Result<Result<T, ImageStoreError>, tokio::task::JoinError>) -> Result<T, ImageStoreError> {
    done.map_err(|error| broken(&error))?
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
