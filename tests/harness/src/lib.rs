//! A real kube-apiserver, and our own programs as their users start them, for the tests.
//!
//! ```text
//!   Tools      where every program lies, and a way to run commands
//!   Cluster    etcd + kube-apiserver (+ kube-controller-manager), with our CRD; Kubectl talks to it
//!   Node       containerd, kubelet and kube-proxy, where that cluster is to run pods
//!   Api        rvm-api behind that apiserver, as its operator installs it
//!   Handler    rvm-handler, in a cluster or in local mode; may be killed and started again
//!   Registry   docker-registry, with passwords, tokens or TLS, and a Wire to it that can be cut
//!   Grpc       a program that speaks rvm.v1 to that rvm-api; Plain its websockets
//!   Console    a viewer of a guest's console, who types and reads
//! ```
//!
//! Everything started here ends with the test, also when the test is killed: processes by the kernel, as children
//! of a thread of ours ([`process`]), and machines, which are made to outlive their handler, by [`sweep`]. Ports are
//! chosen by the system and files lie in a folder of each thing's own, so tests can run side by side.

pub mod api;
pub mod certificates;
pub mod cluster;
pub mod console;
pub mod grpc;
pub mod handler;
pub mod helm;
pub mod https;
pub mod images;
pub mod kubectl;
pub mod leavings;
pub mod manifest;
pub mod node;
pub mod patience;
pub mod process;
pub mod registry;
pub mod sweep;
pub mod tokens;
pub mod tools;
pub mod websocket;

pub use api::Api;
pub use certificates::{Authority, Names};
pub use cluster::Cluster;
pub use console::Console;
pub use grpc::{Grpc, Shows};
pub use handler::{Handler, HandlerSetup};
pub use helm::Helm;
pub use kubectl::Kubectl;
pub use manifest::Manifest;
pub use node::{Lead, Node, Riscv64Node};
pub use patience::{PATIENCE, eventually};
pub use process::{kill, runs};
pub use registry::{Registry, Wire};
pub use tools::Tools;
pub use websocket::Plain;
