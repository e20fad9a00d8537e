//! The gRPC API rvm.v1: client, server and messages, generated from `proto/rvm/v1/rvm.proto`, where each of them is
//! explained; and the kubelet's interface for device plugins. Nothing is written by hand here but the limits and words that both ends must agree on.

/// Version 1 of the API.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the .proto file has the words"
)]
pub mod v1 {
    tonic::include_proto!("rvm.v1");
}

/// The kubelet's interface for device plugins.
pub mod kubelet {
    /// Version v1beta1, as far as it is used.
    #[expect(
        unused_qualifications,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated; the .proto file has the words"
    )]
    pub mod v1beta1 {
        tonic::include_proto!("v1beta1");
    }
}

/// The `.proto` file as programs read it, a `FileDescriptorSet`: what a server tells those who ask what it speaks.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Largest message either way: a manifest of 3 MiB with room for its frame. A list of machines is bounded by it too.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Most bytes of console input or output in one message.
pub const MAX_CONSOLE_CHUNK: usize = 64 << 10;

/// Most bytes of a forwarded port's data in one message: any datagram fits.
pub const MAX_PORT_CHUNK: usize = 64 << 10;

/// The domain of the reasons in error details.
pub const ERROR_DOMAIN: &str = "rvm.v1";

/// Reasons of FAILED_PRECONDITION, found in the details' `google.rpc.ErrorInfo`.
pub mod reasons {
    /// The machine has yet to start; waiting helps.
    pub const NOT_RUNNING_YET: &str = "NOT_RUNNING_YET";
    /// The machine has ended; waiting does not help.
    pub const ENDED: &str = "ENDED";
    /// The machine runs on a node that this server does not reach.
    pub const ANOTHER_NODE: &str = "ANOTHER_NODE";
    /// The machine was made without a serial console.
    pub const NO_CONSOLE: &str = "NO_CONSOLE";
    /// The machine has no network that this server reaches.
    pub const NO_NETWORK: &str = "NO_NETWORK";
    /// No agent listens in the guest.
    pub const NO_AGENT: &str = "NO_AGENT";
    /// The guest's agent could not, or did not want to.
    pub const AGENT_REFUSED: &str = "AGENT_REFUSED";
    /// The machine is in no state for what is asked of it; the message says what would have to be otherwise.
    pub const WRONG_STATE: &str = "WRONG_STATE";
    /// A machine uses the image.
    pub const IMAGE_IN_USE: &str = "IMAGE_IN_USE";
}
