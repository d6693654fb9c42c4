//! What the last calls were like, in constant space.
//!
//! Two windows, one vocabulary ([`WindowCounts`]): [`CountWindow`] looks at the last *n* calls, [`TimeWindow`] at the calls of
//! the last *t* seconds. Both count calls, failures and slow calls; neither keeps a record per call nor sums durations,
//! because nothing that reads them needs more than two rates.
//!
//! Why not an EWMA: a rate over a window has a denominator that an operator can check ("50 of the last 100"), and it forgets
//! a burst completely once the burst has left the window.

mod count;
mod time;

pub(crate) use count::CountWindow;
pub(crate) use time::TimeWindow;

/// The totals of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WindowCounts {
    /// Calls in the window.
    pub(crate) calls: u64,
    /// Those that failed.
    pub(crate) failures: u64,
    /// Those that were slow, failed or not.
    pub(crate) slow: u64,
}

/// What a window keeps of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The call failed.
    pub(crate) failed: bool,
    /// The call was slow.
    pub(crate) slow: bool,
}

// === impl WindowCounts ===

impl WindowCounts {
    /// Adds one call.
    pub(crate) fn add(&mut self, record: Record) {
        self.calls += 1;
        self.failures += u64::from(record.failed);
        self.slow += u64::from(record.slow);
    }

    /// The share of calls that failed; `0.0` when there are none.
    pub(crate) fn failure_rate(&self) -> f64 {
        rate(self.failures, self.calls)
    }

    /// The share of calls that were slow; `0.0` when there are none.
    pub(crate) fn slow_rate(&self) -> f64 {
        rate(self.slow, self.calls)
    }

    /// No failure and no slow call, whatever the number of calls.
    pub(crate) fn is_clean(&self) -> bool {
        self.failures == 0 && self.slow == 0
    }
}

fn rate(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
