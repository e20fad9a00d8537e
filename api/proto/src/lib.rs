//! The gRPC API rvm.v1.
