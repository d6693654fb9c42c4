//! gRPC deadlines and status codes.
