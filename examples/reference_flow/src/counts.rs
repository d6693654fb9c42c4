//! What a part counts for the report: at the same places for every variant, whatever layers it has.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::measured::Counts;

/// One thing that is counted.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

pub(crate) static FORWARDED: Count = Count::new();
pub(crate) static ATTEMPTS: Count = Count::new();
pub(crate) static DATABASE_CALLS: Count = Count::new();
pub(crate) static DATABASE_ATTEMPTS: Count = Count::new();
pub(crate) static DATABASE_QUERIES: Count = Count::new();

/// The cache counts for itself.
pub(crate) static COALESCED: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>> = OnceLock::new();

/// What this process has counted since it started.
pub(crate) fn read() -> Counts {
    Counts {
        forwarded: FORWARDED.get(),
        attempts: ATTEMPTS.get(),
        database_calls: DATABASE_CALLS.get(),
        database_attempts: DATABASE_ATTEMPTS.get(),
        database_queries: DATABASE_QUERIES.get(),
        coalesced: COALESCED.get().map_or(0, |coalesced| coalesced()),
    }
}

// === impl Count ===

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
