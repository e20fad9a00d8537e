//! The only place that knows KVM and the host's architecture.
