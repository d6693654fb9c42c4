//! What mainstay is measured against: the same parts with the same timeouts, put together without mainstay's layers.

pub(crate) mod naive;
pub(crate) mod tower;

use std::net::SocketAddr;

// `tower` alone is the baseline.
use ::tower::timeout::Timeout;

use crate::SERVER_ATTEMPT;
use crate::balancer::Server;
use crate::net::HttpClient;

/// Calls of one application server, each with its timeout: all that either baseline has for one server.
fn calls_of_server(name: &str, address: SocketAddr) -> Server {
    Server::new(name, Timeout::new(HttpClient::new(address), SERVER_ATTEMPT))
}
