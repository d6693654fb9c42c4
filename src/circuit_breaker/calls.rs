//! [`Calls`]: the recorded calls that rates are worked out from.

use std::time::Instant;

use super::config::{CircuitBreakerConfig, Window};
use super::own_rules::OwnRules;
use crate::cores::sliding_window::{CountWindow, Record, TimeWindow, WindowCounts};

/// The calls that are judged in the closed state.
#[derive(Debug)]
pub(super) enum Calls {
    /// Neither rate is looked at, and there is no trip of one's own.
    Unused,
    Count(CountWindow),
    Time(TimeWindow),
}

// === impl Calls ===

impl Calls {
    /// What the settings ask for, if for anything.
    pub(super) fn wanted(config: &CircuitBreakerConfig, own: &OwnRules) -> Option<Window> {
        (config.uses_rates() || own.trip.is_some()).then_some(config.window)
    }

    pub(super) fn new(wanted: Option<Window>, origin: Instant) -> Self {
        match wanted {
            None => Self::Unused,
            Some(Window::Count { calls }) => Self::Count(CountWindow::new(calls)),
            Some(Window::Time { length }) => Self::Time(TimeWindow::new(length, origin)),
        }
    }

    /// What another window has of these calls: nothing, if it is of the other kind.
    pub(super) fn under(self, wanted: Option<Window>, origin: Instant, now: Instant) -> Self {
        match (self, wanted) {
            (Self::Count(window), Some(Window::Count { calls })) => Self::Count(window.resized(calls)),
            (Self::Time(mut window), Some(Window::Time { length })) => Self::Time(window.resized(length, now)),
            (_, wanted) => Self::new(wanted, origin),
        }
    }

    pub(super) fn record(&mut self, record: Record, now: Instant) {
        match self {
            Self::Unused => {}
            Self::Count(window) => window.record(record),
            Self::Time(window) => window.record(record, now),
        }
    }

    pub(super) fn counts(&mut self, now: Instant) -> WindowCounts {
        match self {
            Self::Unused => WindowCounts::default(),
            Self::Count(window) => window.counts(),
            Self::Time(window) => window.counts(now),
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Unused => {}
            Self::Count(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }
}
