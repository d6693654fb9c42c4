//! The cache and the HTTP and gRPC adapters.

mod cache;
mod grpc;
mod http;
