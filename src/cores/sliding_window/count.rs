//! [`CountWindow`]: the last *n* calls.

use super::{Record, WindowCounts};

const BITS: u32 = u64::BITS;

/// A ring of two bits a call. Recording is O(1); once it is full, every new call pushes the oldest one out.
#[derive(Debug)]
pub(crate) struct CountWindow {
    ring: Box<[Bits]>,
    size: u32,
    next: u32,
    counts: WindowCounts,
}

/// Sixty-four calls.
#[derive(Clone, Copy, Debug, Default)]
struct Bits {
    failed: u64,
    slow: u64,
}

// === impl CountWindow ===

impl CountWindow {
    /// An empty window over the last `size` calls (at least one).
    pub(crate) fn new(size: u32) -> Self {
        let size = size.max(1);
        let ring = vec![Bits::default(); size.div_ceil(BITS) as usize].into_boxed_slice();
        Self { ring, size, next: 0, counts: WindowCounts::default() }
    }

    /// Adds one call; a full window drops its oldest.
    pub(crate) fn record(&mut self, record: Record) {
        let full = self.is_full();
        let bits = &mut self.ring[(self.next / BITS) as usize];
        let mask = 1 << (self.next % BITS);
        if full {
            self.counts.calls -= 1;
            self.counts.failures -= u64::from(bits.failed & mask != 0);
            self.counts.slow -= u64::from(bits.slow & mask != 0);
        }
        bits.failed = bits.failed & !mask | if record.failed { mask } else { 0 };
        bits.slow = bits.slow & !mask | if record.slow { mask } else { 0 };
        self.counts.add(record);
        self.next = if self.next + 1 == self.size { 0 } else { self.next + 1 };
    }

    /// The totals.
    pub(crate) fn counts(&self) -> WindowCounts {
        self.counts
    }

    /// Whether the next call pushes one out.
    pub(crate) fn is_full(&self) -> bool {
        self.counts.calls == u64::from(self.size)
    }

    /// A window of `size` calls with the newest of these, in their order: all of them, if they fit.
    pub(crate) fn resized(&self, size: u32) -> Self {
        let mut resized = Self::new(size);
        let held = u32::try_from(self.counts.calls).unwrap_or(self.size);
        for age in (1..=held.min(resized.size)).rev() {
            resized.record(self.recorded(age));
        }
        resized
    }

    /// What was recorded `age` calls ago, counted from 1; at most as many as it holds.
    fn recorded(&self, age: u32) -> Record {
        let index = if self.next >= age { self.next - age } else { self.next + (self.size - age) };
        let bits = self.ring[(index / BITS) as usize];
        let mask = 1 << (index % BITS);
        Record { failed: bits.failed & mask != 0, slow: bits.slow & mask != 0 }
    }

    /// Forgets every call, in constant time: bits beyond the number of calls are never read.
    pub(crate) fn clear(&mut self) {
        self.next = 0;
        self.counts = WindowCounts::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUCCESS: Record = Record { failed: false, slow: false };
    const FAILURE: Record = Record { failed: true, slow: false };

    fn totals(window: &CountWindow) -> (u64, u64, u64) {
        let counts = window.counts();
        (counts.calls, counts.failures, counts.slow)
    }

    #[test]
    fn a_full_window_slides_scenario_1() {
        let mut window = CountWindow::new(4);
        let rates: Vec<f64> = [FAILURE, SUCCESS, SUCCESS, SUCCESS, SUCCESS]
            .into_iter()
            .map(|record| {
                window.record(record);
                window.counts().failure_rate()
            })
            .collect();
        assert_eq!(rates, [1.0, 0.5, 1.0 / 3.0, 0.25, 0.0]);
        assert_eq!(totals(&window), (4, 0, 0));
    }

    #[test]
    fn slow_calls_leave_the_window_with_their_record_scenario_2() {
        let mut window = CountWindow::new(2);
        let slow_failure = Record { failed: true, slow: true };
        let slow_success = Record { failed: false, slow: true };
        let seen: Vec<_> = [slow_failure, slow_success, SUCCESS, SUCCESS, SUCCESS]
            .into_iter()
            .map(|record| {
                window.record(record);
                (window.counts().slow, window.counts().failures)
            })
            .collect();
        assert_eq!(seen, [(1, 1), (2, 1), (1, 0), (0, 0), (0, 0)]);
    }

    #[test]
    fn a_slow_call_counts_as_slow_whether_it_failed_or_not_scenario_3_without_durations() {
        let mut window = CountWindow::new(5);
        window.record(Record { failed: false, slow: true });
        window.record(Record { failed: true, slow: true });
        (0..3).for_each(|_| window.record(SUCCESS));
        assert_eq!(totals(&window), (5, 1, 2));
        assert_eq!(window.counts().slow_rate(), 0.4);
    }

    #[test]
    fn a_hundred_successes_push_every_failure_out_scenario_8() {
        let mut window = CountWindow::new(100);
        for i in 0..50 {
            window.record(Record { failed: i % 3 != 0, slow: false });
        }
        assert_eq!(totals(&window), (50, 33, 0));
        assert_eq!(window.counts().failure_rate(), 0.66);
        (0..100).for_each(|_| window.record(SUCCESS));
        assert_eq!(totals(&window), (100, 0, 0));
    }

    #[test]
    fn a_cleared_window_does_not_remember_old_bits() {
        let mut window = CountWindow::new(3);
        (0..3).for_each(|_| window.record(FAILURE));
        window.clear();
        assert_eq!(totals(&window), (0, 0, 0));
        (0..4).for_each(|_| window.record(SUCCESS));
        assert_eq!(totals(&window), (3, 0, 0));
    }

    #[test]
    fn a_resized_window_keeps_the_newest_in_their_order_scenario_9() {
        let mut window = CountWindow::new(5);
        for failed in [false, false, true, true, true] {
            window.record(Record { failed, slow: false });
        }
        let mut longer = window.resized(6);
        assert_eq!(totals(&longer), (5, 3, 0));
        longer.record(SUCCESS);
        assert_eq!(totals(&longer), (6, 3, 0), "there was room for one");
        longer.record(SUCCESS);
        longer.record(SUCCESS);
        assert_eq!(totals(&longer), (6, 3, 0), "the first to leave are the two successes");
        longer.record(SUCCESS);
        assert_eq!(totals(&longer), (6, 2, 0));

        // From ten into four, while the next to be written is in the middle of the ring.
        let mut window = CountWindow::new(10);
        (0..10).for_each(|_| window.record(SUCCESS));
        for failed in [true, false, true, true] {
            window.record(Record { failed, slow: false });
        }
        let mut shorter = window.resized(4);
        assert_eq!(totals(&shorter), (4, 3, 0));
        let failures: Vec<u64> = (0..4)
            .map(|_| {
                shorter.record(SUCCESS);
                shorter.counts().failures
            })
            .collect();
        assert_eq!(failures, [2, 2, 1, 0]);
    }

    #[test]
    fn a_hundred_calls_take_thirty_two_bytes_of_bits() {
        assert_eq!(size_of_val(&*CountWindow::new(100).ring), 32);
    }

    proptest! {
        #[test]
        fn agrees_with_a_log_of_every_call(
            size in 1_u32..150,
            calls in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u8..40, 1_u32..150), 0..400),
        ) {
            let mut window = CountWindow::new(size);
            let mut size = size;
            let mut log: Vec<Record> = Vec::new();
            for (failed, slow, other, resized) in calls {
                if other == 0 {
                    window.clear();
                    log.clear();
                }
                if other == 1 {
                    window = window.resized(resized);
                    size = resized;
                    // What does not fit is gone for good, should the window grow again.
                    log.drain(..log.len().saturating_sub(size as usize));
                }
                let record = Record { failed, slow };
                window.record(record);
                log.push(record);
                let mut expected = WindowCounts::default();
                log.iter().rev().take(size as usize).for_each(|&record| expected.add(record));
                prop_assert_eq!(window.counts(), expected);
                prop_assert_eq!(window.is_full(), log.len() >= size as usize);
                log.drain(..log.len().saturating_sub(size as usize));
            }
        }
    }
}
