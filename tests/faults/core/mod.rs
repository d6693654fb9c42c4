//! Breaker, retry, budget, timeout, context, errors.

mod budget;
mod circuit_wait;
mod errors;
mod evidence;
mod grpc;
mod limits;
mod retry;
mod telemetry;
