//! [`Gate`]: leaves a store alone that keeps failing (a pure core).
//!
//! It opens after a number of failures in a row and then lets one operation through per wait; the wait doubles each time
//! that operation fails. One that succeeds closes it. There is no slot to lose: a trial that never ends is followed by the
//! next after the same wait.

use std::time::{Duration, Instant};

use super::entry;

/// The breaker of a store.
#[derive(Debug)]
pub(crate) struct Gate {
    threshold: u32,
    first: Duration,
    max: Duration,
    failures: u32,
    opens: u32,
    open_until: Option<Instant>,
    generation: u64,
}

/// Leave to ask the store; a verdict given for an older state of the gate is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass(u64);

impl Gate {
    pub(crate) const fn new(threshold: u32, first: Duration, max: Duration) -> Self {
        Self { threshold, first, max, failures: 0, opens: 0, open_until: None, generation: 0 }
    }

    /// Leave to ask the store, or `None`.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<Pass> {
        if let Some(until) = self.open_until {
            if now < until {
                return None;
            }
            self.generation += 1;
            self.open_until = Some(entry::after(now, self.wait()));
        }
        Some(Pass(self.generation))
    }

    pub(crate) const fn succeeded(&mut self, pass: Pass) {
        if pass.0 == self.generation {
            self.failures = 0;
            if self.open_until.is_some() {
                self.opens = 0;
                self.open_until = None;
                self.generation += 1;
            }
        }
    }

    /// Notes a failure; whether the gate opened by it.
    pub(crate) fn failed(&mut self, pass: Pass, now: Instant) -> bool {
        if pass.0 != self.generation {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        if self.open_until.is_none() && self.failures < self.threshold {
            return false;
        }
        self.opens = self.opens.saturating_add(1);
        self.generation += 1;
        self.open_until = Some(entry::after(now, self.wait()));
        true
    }

    fn wait(&self) -> Duration {
        entry::doubled(self.first, self.max, self.opens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn open(now: Instant) -> Gate {
        let mut gate = Gate::new(2, secs(1), secs(4));
        let (one, two) = (gate.pass(now).unwrap(), gate.pass(now).unwrap());
        assert!(!gate.failed(one, now));
        assert!(gate.failed(two, now));
        gate
    }

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let now = start();
        let mut gate = Gate::new(2, secs(1), secs(4));
        for _ in 0..3 {
            let pass = gate.pass(now).unwrap();
            assert!(!gate.failed(pass, now));
            let pass = gate.pass(now).unwrap();
            gate.succeeded(pass);
        }
        assert!(open(now).pass(now).is_none());
    }

    #[test]
    fn one_trial_a_wait_and_the_wait_doubles() {
        let now = start();
        let mut gate = open(now);
        assert!(gate.pass(now + Duration::from_millis(999)).is_none());
        let trial = gate.pass(now + secs(1)).unwrap();
        assert!(gate.pass(now + secs(1)).is_none(), "one at a time");
        assert!(gate.failed(trial, now + secs(1)));
        assert!(gate.pass(now + Duration::from_millis(2_999)).is_none());
        let trial = gate.pass(now + secs(3)).unwrap();
        gate.succeeded(trial);
        assert!(gate.pass(now + secs(3)).is_some());
        assert!(gate.pass(now + secs(3)).is_some());
    }

    #[test]
    fn a_straggler_neither_closes_nor_reopens() {
        let now = start();
        let mut gate = Gate::new(1, secs(1), secs(4));
        let (straggler, other) = (gate.pass(now).unwrap(), gate.pass(now).unwrap());
        assert!(gate.failed(other, now));
        gate.succeeded(straggler);
        assert!(gate.pass(now).is_none());
        assert!(!gate.failed(straggler, now));
    }

    #[test]
    fn a_lost_trial_is_followed_by_the_next() {
        let now = start();
        let mut gate = open(now);
        let _lost = gate.pass(now + secs(1)).unwrap();
        assert!(gate.pass(now + secs(2)).is_some());
    }
}
