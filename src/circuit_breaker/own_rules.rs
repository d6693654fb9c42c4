//! [`OwnRules`]: what a breaker is given that is no part of its configuration.

use super::opening::OwnOpenTime;
use super::trip::OwnTrip;

/// Rules that are code and no data, and where its randomness starts; most breakers have none.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnRules {
    pub(super) trip: Option<OwnTrip>,
    pub(super) open_time: Option<OwnOpenTime>,
    /// `None` gives each breaker draws that differ from all others'.
    pub(super) seed: Option<u64>,
}
