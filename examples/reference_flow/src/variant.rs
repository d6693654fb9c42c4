//! Which layers the flow runs with: ours, ours without one family, or one of the two baselines.

use serde::{Deserialize, Serialize};

/// How the balancer and the application servers are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Variant {
    /// mainstay's layers, `without` one family.
    Mainstay { without: Option<Family> },
    /// Round robin and timeouts; no other layer.
    Naive,
    /// What a competent team builds of tower alone: p2c, retries with a budget, timeouts, load shed, a plain cache.
    Tower,
}

/// A family of layers that `--without` leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Family {
    Retry,
    Pool,
    Breaker,
    Cache,
    Health,
}

// === impl Variant ===

impl Variant {
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Mainstay { .. } => "mainstay's layers",
            Self::Naive => "naive (round robin and timeouts, no other layer)",
            Self::Tower => "tower (p2c, retries with a budget, timeouts, load shed, a plain cache)",
        }
    }

    /// As the columns of the report call it.
    pub(crate) const fn short_name(self) -> &'static str {
        match self {
            Self::Mainstay { .. } => "ours",
            Self::Naive => "naive",
            Self::Tower => "tower",
        }
    }
}

// === impl Family ===

impl Family {
    pub(crate) const ALL: [Self; 5] = [Self::Retry, Self::Pool, Self::Breaker, Self::Cache, Self::Health];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Pool => "pool",
            Self::Breaker => "breaker",
            Self::Cache => "cache",
            Self::Health => "health",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}
