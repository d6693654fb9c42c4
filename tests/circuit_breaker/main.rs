//! The circuit breaker: what other systems' breakers are known to do, what they are known to get wrong, and what ours owes
//! to services and futures.
#![cfg(feature = "circuit-breaker")]

mod accounts;
mod closed;
mod control;
mod half_open;
mod hammer;
mod open;
mod open_time;
mod per_period;
mod service;
mod support;
mod trip;
