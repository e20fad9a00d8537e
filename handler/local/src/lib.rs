//! The Kubernetes of local mode: a small API server over a store in one file, for programs that speak to kube-apiserver elsewhere.
//!
//! ```text
//!   kube::Client ──(in process, no TLS)──────────────┐
//!                                                    ▼
//!   kubectl ──https──► serve: TLS, who, Host ──► router ──► write / watch ──► store (redb file + memory)
//! ```
//!
//! It serves what a CRD describes ([`Resource::from_crd`]) and the few kinds that every cluster has. Objects get the same
//! metadata, the same checks, the same refusals and the same watches as in a cluster, so that controllers and `kubectl`
//! cannot tell the difference where it matters. What is not here (CEL, protobuf) is refused or documented, never half done.

mod batch;
mod builtin;
mod claims;
mod config;
mod deletion;
mod discovery;
mod fields;
mod guard;
mod history;
mod identity;
mod jsonpath;
pub mod limits;
mod metadata;
mod names;
mod network_policies;
mod object;
mod openapi;
mod params;
mod patch;
mod path;
mod persistent_volumes;
mod resource;
mod routes;
mod scale;
mod schema;
mod selector;
mod serve;
mod stall;
mod status;
mod store;
mod sweep;
mod table;
mod tls;
mod view;
mod vmi;
mod watch;
mod write;

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use serde_json::json;

pub use discovery::Neighbour;
pub use identity::{Identity, IdentityError};
pub use resource::{Admission, Resource, ResourceError};
pub use schema::SchemaError;
pub use serve::serve;
pub use status::{Cause, Failure};
pub use store::StoreError;
pub use tls::TlsError;
pub use vmi::kubevirt;

use builtin::DEFAULT_NAMESPACE;
use routes::Api;
use store::Store;
use write::{Manner, Part, Place};

const STORE_FILE: &str = "store.redb";

/// Why local mode cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state folder.
    #[error("cannot make the state folder {path}")]
    Folder {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The `default` namespace could not be made.
    #[error("cannot make the default namespace: {0}")]
    Namespace(String),
}

/// The API of local mode, open on its state folder.
#[derive(Clone)]
pub struct LocalApi {
    router: Router,
}

impl LocalApi {
    /// Opens the store in `state_dir` (made where it is missing, readable by its owner only) and serves `resources`
    /// besides the built-in ones. Its [`LocalApi::router`] is to be merged with those of the `neighbours`. Fails where another process has it open.
    pub fn open(
        state_dir: &Path,
        resources: Vec<Resource>,
        neighbours: &[Neighbour],
    ) -> Result<Self, OpenError> {
        private_folder(state_dir).map_err(|source| OpenError::Folder {
            path: state_dir.to_owned(),
            source,
        })?;
        let store = Arc::new(Store::open(&state_dir.join(STORE_FILE))?);
        let resources: Vec<Arc<Resource>> = builtin::resources()
            .into_iter()
            .chain(resources)
            .map(Arc::new)
            .collect();
        make_default_namespace(&store, &resources)?;
        Ok(Self {
            router: routes::router(Arc::new(Api::new(store, resources, neighbours))),
        })
    }

    /// A client that speaks to this API in process. Has to be called within a tokio runtime.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.router.clone(), DEFAULT_NAMESPACE)
    }

    /// The API as a service, for [`serve()`] or to be merged with more routes.
    pub fn router(&self) -> Router {
        self.router.clone()
    }
}

/// A folder that only its owner can look into.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}

fn make_default_namespace(store: &Store, resources: &[Arc<Resource>]) -> Result<(), OpenError> {
    let namespaces = resources
        .iter()
        .find(|resource| resource.group.is_empty() && resource.plural == "namespaces");
    let resource = namespaces
        .cloned()
        .ok_or_else(|| OpenError::Namespace("it is not served".to_owned()))?;
    let place = Place {
        resource,
        namespace: None,
        part: Part::Whole,
    };
    let made = store.write_blocking(false, |batch| {
        if batch.get(&place.key(DEFAULT_NAMESPACE)).is_none() {
            place.create(
                batch,
                json!({"metadata": {"name": DEFAULT_NAMESPACE}}),
                &Manner::ours(),
            )?;
        }
        Ok(())
    });
    made.map_err(|failure| OpenError::Namespace(failure.message().to_owned()))
}
