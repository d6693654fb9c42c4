//! [`OwnRules`]: the rules of a breaker that are code and no data.

use super::opening::OwnOpenTime;
use super::trip::OwnTrip;

/// Beside the configuration; most breakers have none.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnRules {
    pub(super) trip: Option<OwnTrip>,
    pub(super) open_time: Option<OwnOpenTime>,
}
