//! [`Unanswered`]: the calls that were cut or abandoned while not one was answered, which is how a black hole shows.

use std::time::Instant;

use super::calls::Calls;
use super::config::{CircuitBreakerConfig, Window};
use super::ending::Ending;
use crate::cores::sliding_window::{Record, TimeWindow};

/// Counts the calls without an answer over the window of the rates.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Over a count window, and where no rate is used: an answer is a matter of how many calls ago it was.
    Count {
        /// The size of the window in calls.
        window: u32,
        /// Since the last answer.
        seen: Seen,
        /// Whether there was an answer since everything was forgotten.
        answered: bool,
    },
    /// Over a time window: all calls, those without an answer as `failures`, and those cut by a deadline as `slow`.
    Time(Box<TimeWindow>),
}

/// Calls without an answer, in a window without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) calls: u32,
    /// Those of them that the deadlines of their callers cut.
    pub(super) cut: u32,
}

// === impl Unanswered ===

impl Unanswered {
    pub(super) fn new(calls: &Calls, config: &CircuitBreakerConfig, origin: Instant) -> Self {
        match (calls, config.window) {
            (Calls::Time(_), Window::Time { length }) => Self::Time(Box::new(TimeWindow::new(length, origin))),
            // Without rates no clock is read at the end of a call: `minimum_calls` in a row have to do.
            (_, Window::Time { .. }) => Self::Count { window: 0, seen: Seen::default(), answered: false },
            (_, Window::Count { calls }) => Self::Count { window: calls, seen: Seen::default(), answered: false },
        }
    }

    /// What is left of these counts under other settings: nothing, if the window is of another kind.
    pub(super) fn under(
        &mut self,
        calls: &Calls,
        config: &CircuitBreakerConfig,
        origin: Instant,
        now: Instant,
    ) -> Self {
        match (self, Self::new(calls, config, origin), config.window) {
            (Self::Count { seen, answered, .. }, Self::Count { window, .. }, _) => {
                Self::Count { window, seen: *seen, answered: *answered }
            }
            (Self::Time(window), Self::Time(_), Window::Time { length }) => {
                Self::Time(Box::new(window.resized(length, now)))
            }
            (_, new, _) => new,
        }
    }

    /// Counts a call that is over.
    pub(super) fn record(&mut self, ending: Ending, now: Instant) {
        let (is_unanswered, is_cut) = (ending.is_unanswered(), ending == Ending::Cut);
        if !is_unanswered && ending != Ending::Answered {
            return;
        }
        match self {
            Self::Time(window) => window.record(Record { failed: is_unanswered, slow: is_cut }, now),
            Self::Count { seen, .. } if is_unanswered => {
                seen.calls = seen.calls.saturating_add(1);
                seen.cut = seen.cut.saturating_add(u32::from(is_cut));
            }
            Self::Count { seen, answered, .. } => {
                *seen = Seen::default();
                *answered = true;
            }
        }
    }

    /// Adds answers that were counted elsewhere while the current bucket of a time window was being filled.
    pub(super) fn add_answers(&mut self, calls: u64, now: Instant) {
        if let Self::Time(window) = self {
            window.add_successes(calls);
            window.advance(now);
        }
    }

    /// The calls without an answer in the window; none, if an answer is in it.
    pub(super) fn seen(&mut self, now: Instant) -> Seen {
        match self {
            Self::Count { window, seen, answered } => {
                let has_answer = *answered && seen.calls < *window;
                if has_answer { Seen::default() } else { *seen }
            }
            Self::Time(window) => {
                let counts = window.counts(now);
                let has_answer = counts.calls > counts.failures;
                if has_answer {
                    Seen::default()
                } else {
                    Seen { calls: at_most(counts.failures), cut: at_most(counts.slow) }
                }
            }
        }
    }

    /// Whether one more answer changes nothing but the number of calls in a time window.
    pub(super) fn is_clean(&self) -> bool {
        match self {
            Self::Count { seen, answered, .. } => *answered && seen.calls == 0,
            Self::Time(_) => true,
        }
    }

    /// Forgets every call.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Count { seen, answered, .. } => (*seen, *answered) = (Seen::default(), false),
            Self::Time(window) => window.clear(),
        }
    }
}

/// A count that is beyond every limit when it is at its maximum.
fn at_most(calls: u64) -> u32 {
    u32::try_from(calls).unwrap_or(u32::MAX)
}
