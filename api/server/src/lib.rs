//! What stands between users and machines: the server of `subresources.kubevirt.io` ([`subresources`]; [`aggregated`] into a cluster's API), the controllers of
//! VirtualMachines ([`vm`]) and of replica sets ([`replicas`]), who makes machines' pods ([`pods`]), who keeps the KubeVirt ([`kubevirt`]), and the server of the gRPC API rvm.v1: a door to the cluster's objects, and to the consoles of a [`Node`]'s machines,
//! which is one node, or all of a cluster ([`Fleet`]).
//!
//! ```text
//!   rvm, programs ──gRPC──► MachinesService ──kube::Client──► kube-apiserver, or the local store
//!        │                      │    └──Power────► handler: end this machine
//!        └── Console stream ────┴─────Consoles───► handler: a byte stream to rvmm's console.sock
//! ```
//!
//! Life of one console: the first request names the machine; its object is read and its phase judged; [`Consoles`]
//! opens a byte stream; from then on one task moves bytes both ways until the machine closes its end, the viewer
//! goes away, or the server stops. That task holds one chunk and a short queue, so a viewer that does not read
//! makes it wait, and nothing grows.
//!
//! Invariants: the server keeps no state of its own; what it says about a machine it has just read. It never talks
//! to rvmm itself. Whoever reaches its socket, or holds a certificate of its CA and one of the names that may come in, may do
//! what its `kube::Client` may. A cluster's users come in by another door ([`users`]) and may do what their roles let them, which one place
//! decides for all protocols (`access`).

mod access;
pub mod agent;
pub mod aggregated;
pub mod apply;
mod arrivals;
pub mod certificates;
mod connection;
pub mod console;
pub mod controllers;
mod error;
pub mod evictions;
#[cfg(feature = "fake")]
pub mod fake;
pub mod fleet;
pub mod images;
pub mod kubevirt;
pub mod leader;
pub mod listen;
pub mod node;
mod objects;
pub mod observe;
pub mod pods;
pub mod ports;
pub mod power;
pub mod program;
pub mod reach;
pub mod replicas;
pub mod scheduling;
mod service;
mod story;
pub mod subresources;
pub mod tls;
mod turns;
pub mod unresponsive;
pub mod usage;
pub mod users;
mod virtual_machines;
pub mod vm;
mod watch;
pub mod web;

pub use agent::{AgentError, Agents};
pub use connection::Connection;
pub use console::{AttachError, ConsoleStream, Consoles, Role};
pub use fleet::Fleet;
pub use images::{ImageStore, ImageStoreError};
pub use listen::{ListenError, UnixDoor, serve_tls};
pub use node::Node;
pub use ports::{DialError, Ports, Protocol};
pub use power::{Act, Power};
pub use reach::Unreachable;
pub use rvm_proto::v1::Image;
pub use service::MachinesService;
pub use subresources::Subresources;
pub use tls::{TlsDoor, TlsFiles};
pub use turns::{Turn, Turns};
pub use usage::{Meters, Usage};
