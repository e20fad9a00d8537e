//! The server of the gRPC API rvm.v1.
