//! [`InFlight`]: how many calls are running, by when they began, so that those that hang are seen before they end.
//!
//! No record is kept of a call. Calls that began within the same eighth of the slow threshold are one number, and nine such
//! numbers are all there is: when a number is old enough that every call in it has been running for longer than the
//! threshold, what is left of it is handed out as calls that are slow already. A call that ends is taken out of its number
//! again; if that was handed out before, the call was counted before its end, and its verdict is told so.

use std::time::{Duration, Instant};

/// So many buckets make up the slow threshold.
const PER_THRESHOLD: u64 = 8;
/// The bucket that is being filled, and those whose calls need not be slow yet.
const BUCKETS: usize = 9;

/// The calls that are running. Pure; times are nanoseconds since the origin.
#[derive(Debug)]
pub(super) struct InFlight {
    origin: Instant,
    bucket_nanos: u64,
    /// The bucket that is being filled.
    current: u64,
    /// The calls of the buckets up to the current one that have not ended.
    running: [u32; BUCKETS],
    /// Calls that became slow and were not taken yet.
    overdue: u64,
    /// Whether anybody is watched still.
    watching: bool,
    /// Calls that began before belong to `former`, if to any.
    from: Instant,
    /// The first bucket in which no call belongs to `former`.
    open_from: u64,
    /// Whom other settings watched: nobody is counted there any more, but it is known who was.
    former: Option<Box<Self>>,
}

// === impl InFlight ===

impl InFlight {
    /// Nobody is running yet; what runs for longer than `threshold` is slow.
    pub(super) fn new(threshold: Duration, origin: Instant) -> Self {
        let threshold = u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX);
        let bucket_nanos = threshold.div_ceil(PER_THRESHOLD).max(1);
        Self {
            origin,
            bucket_nanos,
            current: 0,
            running: [0; BUCKETS],
            overdue: 0,
            watching: true,
            from: origin,
            open_from: 0,
            former: None,
        }
    }

    /// Watches those that begin after `now`, where others may have been watched up to then.
    pub(super) fn following(former: Option<Box<Self>>, threshold: Duration, origin: Instant, now: Instant) -> Self {
        let mut next = Self::new(threshold, origin);
        next.advance(now);
        // Who began in this very instant, began before.
        next.from = now.checked_add(Duration::from_nanos(1)).unwrap_or(now);
        next.open_from = next.current.saturating_add(1);
        next.former = former.map(Self::retired);
        next
    }

    /// Counts nobody any more, and knows who was counted.
    pub(super) fn retired(mut former: Box<Self>) -> Box<Self> {
        former.watching = false;
        former
    }

    /// Whether anybody is watched.
    pub(super) fn is_watching(&self) -> bool {
        self.watching
    }

    /// The earliest that a call that asks now can begin.
    pub(super) fn from(&self) -> Instant {
        self.from
    }

    /// The length of a bucket in nanoseconds.
    pub(super) fn bucket_nanos(&self) -> u64 {
        self.bucket_nanos
    }

    /// The bucket that is being filled, if its calls may be counted elsewhere and [added](Self::add) later.
    pub(super) fn open_bucket(&self) -> Option<u64> {
        (self.overdue == 0 && self.current >= self.open_from).then_some(self.current)
    }

    /// Forgets every call. Those that began less than the threshold ago may still be told of.
    pub(super) fn clear(&mut self) {
        self.running = [0; BUCKETS];
        self.overdue = 0;
        self.former = None;
    }

    /// Moves on to `now`. A clock that steps back stays in the current bucket.
    pub(super) fn advance(&mut self, now: Instant) {
        let number = self.bucket_of(now);
        if number <= self.current {
            return;
        }
        if number - self.current >= BUCKETS as u64 {
            self.overdue += self.running.iter().map(|&calls| u64::from(calls)).sum::<u64>();
            self.running = [0; BUCKETS];
        } else {
            for passed in self.current + 1..=number {
                self.overdue += u64::from(std::mem::take(&mut self.running[slot(passed)]));
            }
        }
        self.current = number;
    }

    /// A call begins `now`, which is what it will say when it ends.
    pub(super) fn begin(&mut self, now: Instant) {
        self.advance(now);
        self.add(self.bucket_of(now), 1);
    }

    /// Calls have begun in bucket number `bucket`, the current one or one before.
    pub(super) fn add(&mut self, bucket: u64, calls: u32) {
        if self.has_left(bucket) {
            // Whoever tells of it was held up for longer than the threshold, and so was the call.
            self.overdue += u64::from(calls);
        } else {
            let running = &mut self.running[slot(bucket)];
            *running = running.saturating_add(calls);
        }
    }

    /// The call that began at `started` has ended. Whether it was counted before.
    pub(super) fn end(&mut self, started: Instant) -> bool {
        if started < self.from {
            return self.former.as_mut().is_some_and(|former| former.end(started));
        }
        let bucket = self.bucket_of(started);
        if self.has_left(bucket) {
            return true;
        }
        let running = &mut self.running[slot(bucket)];
        *running = running.saturating_sub(1);
        false
    }

    /// The calls that have been running for longer than the threshold, since this was asked last.
    pub(super) fn take_overdue(&mut self) -> u64 {
        std::mem::take(&mut self.overdue)
    }

    /// Whether every call of this bucket has been running for longer than the threshold by the current one.
    fn has_left(&self, bucket: u64) -> bool {
        self.current.saturating_sub(bucket) >= BUCKETS as u64
    }

    fn bucket_of(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(nanos / u128::from(self.bucket_nanos)).unwrap_or(u64::MAX)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a remainder of nine")]
fn slot(number: u64) -> usize {
    (number % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin,
        End(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Begin),
            3 => any::<usize>().prop_map(Step::End),
            3 => (0_u64..300).prop_map(Step::Wait),
        ]
    }

    #[test]
    fn it_is_small_whatever_is_running() {
        assert!(size_of::<InFlight>() <= 128, "{}", size_of::<InFlight>());
    }

    proptest! {
        /// Against a log of every call: each is counted once, never before it is slow, and at the latest when an eighth of
        /// the threshold more has passed.
        #[test]
        fn every_call_is_counted_once_and_in_time(threshold in 1_u64..1_000, steps in prop::collection::vec(step(), 0..300)) {
            #[allow(clippy::disallowed_methods, reason = "an origin to count from")]
            let origin = Instant::now();
            let nanos = |from: Instant, to: Instant| u64::try_from((to - from).as_nanos()).unwrap();
            let mut now = origin;
            let mut running = InFlight::new(Duration::from_nanos(threshold), origin);
            let granularity = threshold.div_ceil(8);
            // When each that has not ended began.
            let mut log: Vec<Instant> = Vec::new();
            let (mut begun, mut handed_out, mut ended_uncounted, mut ended_counted) = (0_u64, 0_u64, 0_u64, 0_u64);
            for step in steps {
                match step {
                    Step::Begin => {
                        running.begin(now);
                        log.push(now);
                        begun += 1;
                    }
                    Step::End(which) => {
                        if log.is_empty() {
                            continue;
                        }
                        let started = log.remove(which % log.len());
                        if running.end(started) {
                            prop_assert!(nanos(started, now) > threshold);
                            ended_counted += 1;
                        } else {
                            prop_assert!(nanos(started, now) <= 9 * granularity);
                            ended_uncounted += 1;
                        }
                    }
                    Step::Wait(wait) => now += Duration::from_nanos(wait),
                }
                running.advance(now);
                handed_out += running.take_overdue();
                let still_to_come = handed_out - ended_counted;
                let surely = log.iter().filter(|&&started| nanos(started, now) >= 9 * granularity).count() as u64;
                let possibly = log.iter().filter(|&&started| nanos(started, now) > threshold).count() as u64;
                prop_assert!((surely..=possibly).contains(&still_to_come));
            }
            running.advance(now + Duration::from_nanos(10 * granularity));
            handed_out += running.take_overdue();
            prop_assert_eq!(handed_out + ended_uncounted, begun);
        }
    }
}
