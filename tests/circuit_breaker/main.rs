//! The circuit breaker: what other systems' breakers are known to do, what they are known to get wrong, and what ours owes
//! to services and futures.
#![cfg(feature = "circuit-breaker")]

mod accounts;
mod closed;
mod control;
mod follow;
mod half_open;
mod hammer;
mod in_flight;
mod keyed;
mod model;
mod open;
mod open_time;
mod per_period;
mod ramp;
mod reconfigure;
mod service;
mod subscription;
mod support;
mod trip;
mod wait;
