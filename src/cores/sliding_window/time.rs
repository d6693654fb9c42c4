//! [`TimeWindow`]: the calls of the last *t* seconds.

use std::time::{Duration, Instant};

use super::{Record, WindowCounts};

/// The number of buckets a time window is cut into.
const TIME_BUCKETS: usize = 10;

/// Ten buckets, each of a tenth of the window's length, aligned to `origin`. Recording is O(1) amortised: each bucket is
/// emptied once a turn.
///
/// A call leaves with its bucket, so it is seen for at least nine tenths of the length and never longer than the length.
#[derive(Clone, Debug)]
pub(crate) struct TimeWindow {
    origin: Instant,
    bucket_nanos: u64,
    /// The number of the bucket that is being filled, counted from `origin`.
    current: u64,
    counts: WindowCounts,
    buckets: [Bucket; TIME_BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    calls: u32,
    failures: u32,
    slow: u32,
}

// === impl TimeWindow ===

impl TimeWindow {
    /// An empty window over `length` (at least ten nanoseconds), whose buckets start at `origin`.
    pub(crate) fn new(length: Duration, origin: Instant) -> Self {
        Self {
            origin,
            bucket_nanos: Self::bucket_nanos_of(length),
            current: 0,
            counts: WindowCounts::default(),
            buckets: [Bucket::default(); TIME_BUCKETS],
        }
    }

    /// The length of one bucket of a window of `length`.
    pub(crate) fn bucket_nanos_of(length: Duration) -> u64 {
        u64::try_from(length.as_nanos() / TIME_BUCKETS as u128).unwrap_or(u64::MAX).max(1)
    }

    /// A window over `length` with what it has of these calls. Each is taken to be as old as the first that may be in its
    /// bucket, so that none is seen for longer than the new length; one that is seen already may leave a bucket of the old
    /// length early.
    pub(crate) fn resized(&mut self, length: Duration, now: Instant) -> Self {
        self.advance(now);
        if self.bucket_nanos == Self::bucket_nanos_of(length) {
            return self.clone();
        }
        let mut resized = Self::new(length, self.origin);
        resized.advance(now);
        for age in 0..TIME_BUCKETS as u64 {
            let Some(number) = self.current.checked_sub(age) else { break };
            let began = u128::from(number) * u128::from(self.bucket_nanos);
            let number = u64::try_from(began / u128::from(resized.bucket_nanos)).unwrap_or(u64::MAX);
            resized.add(number.min(resized.current), self.buckets[slot(self.current - age)]);
        }
        resized
    }

    /// Adds what was counted elsewhere while bucket `number` was being filled, unless that has left the window.
    fn add(&mut self, number: u64, counted: Bucket) {
        if self.current - number >= TIME_BUCKETS as u64 {
            return;
        }
        let bucket = &mut self.buckets[slot(number)];
        let before = *bucket;
        bucket.calls = before.calls.saturating_add(counted.calls);
        bucket.failures = before.failures.saturating_add(counted.failures);
        bucket.slow = before.slow.saturating_add(counted.slow);
        self.counts.calls += u64::from(bucket.calls - before.calls);
        self.counts.failures += u64::from(bucket.failures - before.failures);
        self.counts.slow += u64::from(bucket.slow - before.slow);
    }

    /// Adds one call that ended at `now`.
    pub(crate) fn record(&mut self, record: Record, now: Instant) {
        self.advance(now);
        let bucket = &mut self.buckets[slot(self.current)];
        if bucket.calls == u32::MAX {
            return; // A bucket that is full to four thousand million calls knows its rates well enough.
        }
        bucket.calls += 1;
        bucket.failures += u32::from(record.failed);
        bucket.slow += u32::from(record.slow);
        self.counts.add(record);
    }

    /// Adds successes that were counted elsewhere while the current bucket was being filled.
    pub(crate) fn add_successes(&mut self, calls: u64) {
        let bucket = &mut self.buckets[slot(self.current)];
        let room = u32::try_from(calls).unwrap_or(u32::MAX).min(u32::MAX - bucket.calls);
        bucket.calls += room;
        self.counts.calls += u64::from(room);
    }

    /// The totals as of `now`.
    pub(crate) fn counts(&mut self, now: Instant) -> WindowCounts {
        self.advance(now);
        self.counts
    }

    /// The totals as of the last call or look.
    pub(crate) fn recorded(&self) -> WindowCounts {
        self.counts
    }

    /// When the bucket that was filled last ends, since the origin.
    pub(crate) fn end_of_bucket(&self) -> Duration {
        Duration::from_nanos(self.current.saturating_add(1).saturating_mul(self.bucket_nanos))
    }

    /// Forgets every call.
    pub(crate) fn clear(&mut self) {
        self.counts = WindowCounts::default();
        self.buckets = [Bucket::default(); TIME_BUCKETS];
    }

    /// Empties the buckets that have left the window. A clock that steps back stays in the current bucket.
    pub(crate) fn advance(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.origin).as_nanos();
        let number = u64::try_from(nanos / u128::from(self.bucket_nanos)).unwrap_or(u64::MAX);
        if number <= self.current {
            return;
        }
        if number - self.current >= TIME_BUCKETS as u64 {
            self.clear();
        } else {
            for passed in self.current + 1..=number {
                let old = std::mem::take(&mut self.buckets[slot(passed)]);
                self.counts.calls -= u64::from(old.calls);
                self.counts.failures -= u64::from(old.failures);
                self.counts.slow -= u64::from(old.slow);
            }
        }
        self.current = number;
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a remainder of ten")]
fn slot(number: u64) -> usize {
    (number % TIME_BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUCCESS: Record = Record { failed: false, slow: false };
    const FAILURE: Record = Record { failed: true, slow: false };

    /// A window with a clock of its own.
    struct Driven {
        window: TimeWindow,
        now: Instant,
    }

    impl Driven {
        #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
        fn new(length: Duration) -> Self {
            let now = Instant::now();
            Self { window: TimeWindow::new(length, now), now }
        }

        /// Waits, records, and tells (calls, failures).
        fn after(&mut self, millis: u64, record: Record) -> (u64, u64) {
            self.now += Duration::from_millis(millis);
            self.window.record(record, self.now);
            self.totals()
        }

        fn totals(&mut self) -> (u64, u64) {
            let counts = self.window.counts(self.now);
            (counts.calls, counts.failures)
        }
    }

    #[test]
    fn old_buckets_expire_one_by_one_scenario_4() {
        let mut driven = Driven::new(Duration::from_secs(5));
        let seen = [
            driven.after(0, FAILURE),
            driven.after(100, SUCCESS),
            driven.after(100, SUCCESS),
            driven.after(1000, SUCCESS),
            driven.after(1000, SUCCESS),
            driven.after(1000, FAILURE),
            driven.after(1000, SUCCESS),
        ];
        assert_eq!(seen, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2)]);
        assert_eq!(driven.after(1000, SUCCESS), (5, 1));
        assert_eq!(driven.after(1000, SUCCESS), (5, 1));
        assert_eq!(driven.after(5000, SUCCESS), (1, 0));
    }

    #[test]
    fn ten_seconds_in_ten_buckets_scenario_5() {
        let mut driven = Driven::new(Duration::from_secs(10));
        let mut seen = Vec::new();
        for round in 0..5 {
            driven.after(0, if round < 2 { FAILURE } else { SUCCESS });
            let (calls, failures) = driven.after(0, SUCCESS);
            seen.push((calls, failures));
            driven.now += Duration::from_secs(2);
        }
        assert_eq!(seen, [(2, 1), (4, 2), (6, 2), (8, 2), (10, 2)]);
        // The first round has left at 10 s, the second leaves at 12 s.
        assert_eq!(driven.totals(), (8, 1));
        driven.now += Duration::from_secs(2);
        assert_eq!(driven.totals(), (6, 0));
    }

    #[test]
    fn a_call_has_left_after_exactly_the_length_scenario_6() {
        let mut driven = Driven::new(Duration::from_secs(10));
        driven.after(0, SUCCESS);
        assert_eq!(driven.after(0, SUCCESS), (2, 0));
        driven.now += Duration::from_millis(9_999);
        assert_eq!(driven.totals(), (2, 0));
        driven.now += Duration::from_millis(1);
        assert_eq!(driven.totals(), (0, 0));
    }

    #[test]
    fn a_short_window_has_ten_buckets_like_any_other_scenario_7_differs() {
        let mut driven = Driven::new(Duration::from_millis(100));
        for record in [FAILURE, SUCCESS, SUCCESS, SUCCESS, SUCCESS] {
            driven.after(0, record);
        }
        assert_eq!(driven.window.counts(driven.now).failure_rate(), 0.2);
        assert_eq!(driven.totals(), (5, 1));
        driven.now += Duration::from_millis(100);
        assert_eq!(driven.totals(), (0, 0));
    }

    #[test]
    fn a_clock_that_steps_back_loses_nothing() {
        let mut driven = Driven::new(Duration::from_secs(10));
        driven.after(5_000, FAILURE);
        driven.now -= Duration::from_secs(4);
        assert_eq!(driven.after(0, SUCCESS), (2, 1));
    }

    #[test]
    fn successes_counted_elsewhere_join_the_current_bucket_and_leave_with_it() {
        let mut driven = Driven::new(Duration::from_secs(10));
        driven.after(3_000, FAILURE);
        assert_eq!(driven.window.end_of_bucket(), Duration::from_secs(4));
        driven.window.add_successes(7);
        assert_eq!(driven.totals(), (8, 1));
        driven.now += Duration::from_millis(9_999);
        assert_eq!(driven.totals(), (8, 1), "until 13 s");
        driven.now += Duration::from_millis(1);
        assert_eq!(driven.totals(), (0, 0));
    }

    #[test]
    fn a_longer_window_keeps_everything_and_lets_it_go_by_age() {
        let mut driven = Driven::new(Duration::from_secs(10));
        driven.after(500, FAILURE);
        driven.after(4_000, SUCCESS);
        driven.after(4_000, SUCCESS);
        driven.window = driven.window.resized(Duration::from_secs(30), driven.now);
        assert_eq!(driven.totals(), (3, 1));
        driven.now += Duration::from_secs(20);
        assert_eq!(driven.totals(), (3, 1), "the first is 28 s old");
        driven.now += Duration::from_millis(1_500);
        assert_eq!(driven.totals(), (2, 0));
    }

    #[test]
    fn a_shorter_window_keeps_what_is_young_enough() {
        let mut driven = Driven::new(Duration::from_secs(100));
        driven.after(5_000, FAILURE);
        driven.after(80_000, FAILURE);
        driven.after(10_000, SUCCESS);
        driven.window = driven.window.resized(Duration::from_secs(20), driven.now);
        assert_eq!(driven.totals(), (2, 1));
        driven.now += Duration::from_secs(5);
        assert_eq!(driven.totals(), (1, 0), "its bucket began 20 s ago");
        driven.now += Duration::from_secs(10);
        assert_eq!(driven.totals(), (0, 0));
    }

    #[test]
    fn what_has_left_does_not_come_back_with_a_longer_window() {
        let mut driven = Driven::new(Duration::from_secs(10));
        driven.after(0, FAILURE);
        driven.now += Duration::from_secs(11);
        driven.window = driven.window.resized(Duration::from_secs(60), driven.now);
        assert_eq!(driven.totals(), (0, 0));
    }

    #[test]
    fn the_state_is_small_whatever_it_holds() {
        assert!(size_of::<TimeWindow>() <= 192, "{}", size_of::<TimeWindow>());
    }

    proptest! {
        #[test]
        fn resized_it_has_what_the_log_has_by_age(
            lengths in prop::array::uniform2(10_u64..100_000),
            calls in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u64..20_000), 0..100),
            later in 0_u64..100_000,
        ) {
            let [old, new] = lengths;
            let (old_bucket, new_bucket) = (u128::from(old / 10), u128::from(new / 10));
            let mut driven = Driven::new(Duration::from_nanos(old));
            let origin = driven.now;
            let mut log: Vec<(u128, Record)> = Vec::new();
            for (failed, slow, wait) in calls {
                driven.now += Duration::from_nanos(wait % old);
                let record = Record { failed, slow };
                driven.window.record(record, driven.now);
                log.push(((driven.now - origin).as_nanos() / old_bucket, record));
            }
            let resized_in = (driven.now - origin).as_nanos() / old_bucket;
            driven.window = driven.window.resized(Duration::from_nanos(new), driven.now);
            driven.now += Duration::from_nanos(later);
            let number = (driven.now - origin).as_nanos() / new_bucket;
            let mut expected = WindowCounts::default();
            for &(at, record) in log.iter().filter(|(at, _)| at + 10 > resized_in) {
                // By the same bucket if that is as long as before, else as old as its bucket's first.
                if at * old_bucket / new_bucket + 10 > number {
                    expected.add(record);
                }
            }
            prop_assert_eq!(driven.window.counts(driven.now), expected);
        }

        #[test]
        fn agrees_with_a_log_of_every_call(
            length in 10_u64..100_000,
            calls in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u64..30_000), 0..200),
        ) {
            let mut driven = Driven::new(Duration::from_nanos(length));
            let origin = driven.now;
            let bucket = u128::from(length / 10);
            let mut log: Vec<(u128, Record)> = Vec::new();
            for (failed, slow, wait) in calls {
                driven.now += Duration::from_nanos(wait % length);
                let record = Record { failed, slow };
                driven.window.record(record, driven.now);
                let number = (driven.now - origin).as_nanos() / bucket;
                log.push((number, record));
                let mut expected = WindowCounts::default();
                for &(_, record) in log.iter().filter(|(at, _)| at + 10 > number) {
                    expected.add(record);
                }
                prop_assert_eq!(driven.window.counts(driven.now), expected);
            }
        }
    }
}
