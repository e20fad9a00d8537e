//! What KubeVirt's clients ask of the subresources: real websockets and requests, to the byte.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod acts;
mod consoles;
mod lab;
mod ports;
mod volumes;
