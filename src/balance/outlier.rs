//! Passive evidence about one endpoint: ejection after consecutive failures, and the pause after a failed `poll_ready`.
//!
//! Pure: `now` and draws are arguments.

use std::time::{Duration, Instant};

use super::config::EjectionConfig;
use crate::cores::random;

/// The ejections of one endpoint.
///
/// The k-th ejection lasts `k` times the base, up to a maximum; for every clean interval since the last return, `k` loses
/// one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ejection {
    count: u32,
    out: Option<Span>,
    returned: Option<Instant>,
}

/// The pause of an endpoint whose `poll_ready` failed, or was pending too often: doubled with every failure in a row, jittered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unready {
    failures: u32,
    out: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) since: Instant,
    pub(crate) until: Instant,
}

// === impl Span ===

impl Span {
    /// From `since` for `time`; `None` when that end cannot be represented, which is further away than any process lives.
    fn new(since: Instant, time: Duration) -> Self {
        let until = since.checked_add(time).unwrap_or_else(|| since + Duration::from_secs(u32::MAX.into()));
        Self { since, until }
    }
}

// === impl Ejection ===

impl Ejection {
    /// Takes the endpoint out at `now` and says for how long.
    pub(crate) fn eject(&mut self, now: Instant, config: &EjectionConfig) -> Duration {
        self.settle(now);
        self.count = self.decayed(now, config.decay_interval).saturating_add(1);
        let time = config.base_time.saturating_mul(self.count).min(config.longest());
        self.returned = None;
        self.out = Some(Span::new(now, time));
        time
    }

    /// Takes the endpoint out for `time`, by hand; it does not count towards later ejections. What counts of earlier ones by now
    /// does so until the endpoint is back: their clean time begins then.
    pub(crate) fn eject_for(&mut self, now: Instant, time: Duration, decay_interval: Duration) {
        self.settle(now);
        self.count = self.decayed(now, decay_interval);
        self.returned = None;
        self.out = Some(Span::new(now, time));
    }

    /// Lets the endpoint back before its time.
    pub(crate) fn lift(&mut self, now: Instant) {
        if self.out.take().is_some() {
            self.returned = Some(now);
        }
    }

    /// Notes an ejection that has run out; `true` if there was one.
    pub(crate) fn settle(&mut self, now: Instant) -> bool {
        match self.out {
            Some(span) if span.until <= now => {
                self.out = None;
                self.returned = Some(span.until);
                true
            }
            _ => false,
        }
    }

    /// The ejection in force.
    pub(crate) fn span(&self, now: Instant) -> Option<Span> {
        self.out.filter(|span| now < span.until)
    }

    /// How many ejections count at `now`.
    pub(crate) fn decayed(&self, now: Instant, interval: Duration) -> u32 {
        let Some(returned) = self.returned else { return self.count };
        let clean = now.saturating_duration_since(returned).as_nanos() / interval.as_nanos().max(1);
        self.count.saturating_sub(u32::try_from(clean).unwrap_or(u32::MAX))
    }
}

// === impl Unready ===

impl Unready {
    /// Pauses the endpoint; `None` when it is paused already (callers that failed together are one failure).
    pub(crate) fn fail(&mut self, now: Instant, min: Duration, max: Duration, draw: u64) -> Option<Duration> {
        if self.span(now).is_some() {
            return None;
        }
        let doubled = min.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(max);
        self.failures = self.failures.saturating_add(1);
        // Between half of it and all of it, so that pools that lost an endpoint together do not come back together.
        let half = doubled / 2;
        let time = half.saturating_add(half.mul_f64(random::unit(draw)));
        self.out = Some(Span::new(now, time));
        Some(time)
    }

    /// The endpoint became ready; `true` if that is news.
    pub(crate) fn recover(&mut self) -> bool {
        let news = self.failures != 0;
        *self = Self::default();
        news
    }

    /// The pause in force.
    pub(crate) fn span(&self, now: Instant) -> Option<Span> {
        self.out.filter(|span| now < span.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::eligibility::tests::instant;

    fn config(base: u64, max: u64) -> EjectionConfig {
        EjectionConfig {
            base_time: Duration::from_secs(base),
            max_time: Some(Duration::from_secs(max)),
            ..EjectionConfig::default()
        }
    }

    #[test]
    fn the_longest_pause_with_the_highest_draw_does_not_overflow() {
        let now = tokio::time::Instant::now().into_std();
        let pause = Unready::default().fail(now, Duration::MAX, Duration::MAX, u64::MAX);
        assert!(pause > Some(Duration::MAX / 4 * 3));
    }

    #[test]
    fn health_scenario_1_an_ejection_holds_until_its_end_and_no_longer() {
        let start = instant();
        let mut ejection = Ejection::default();
        assert_eq!(ejection.eject(start, &config(30, 300)), Duration::from_secs(30));
        assert!(ejection.span(start + Duration::from_millis(9_999)).is_some());
        assert!(!ejection.settle(start + Duration::from_millis(29_999)));
        assert!(ejection.settle(start + Duration::from_millis(30_001)));
        assert!(ejection.span(start + Duration::from_millis(30_001)).is_none());
    }

    #[test]
    fn health_scenario_4_the_kth_ejection_lasts_k_times_the_base_up_to_the_maximum() {
        let mut now = instant();
        let mut ejection = Ejection::default();
        for k in 1..=40_u64 {
            let time = ejection.eject(now, &config(10, 300));
            assert_eq!(time, Duration::from_secs((10 * k).min(300)), "ejection {k}");
            now += time;
        }
    }

    #[test]
    fn health_r5_the_count_decays_after_clean_intervals() {
        let start = instant();
        let config = config(30, 300);
        let mut ejection = Ejection::default();
        let first = ejection.eject(start, &config);
        let second = ejection.eject(start + first, &config);
        assert_eq!(second, Duration::from_secs(60));
        let back = start + first + second;
        ejection.settle(back);
        assert_eq!(ejection.decayed(back + Duration::from_secs(29), config.decay_interval), 2);
        assert_eq!(ejection.decayed(back + Duration::from_secs(30), config.decay_interval), 1);
        // One clean interval took one off: the next ejection is the second again.
        assert_eq!(ejection.eject(back + Duration::from_secs(30), &config), Duration::from_secs(60));
        ejection.lift(back + Duration::from_secs(40));
        assert_eq!(ejection.decayed(back + Duration::from_secs(3_600), config.decay_interval), 0);
    }

    /// Clean time begins with the return, however the ejection ended, and an ejection in force stops it.
    #[test]
    fn earlier_ejections_are_forgotten_from_the_return_on() {
        let start = instant();
        let config = config(30, 300);
        let interval = config.decay_interval;
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut ejection = Ejection::default();
        assert_eq!(ejection.decayed(after(500), interval), 0);
        ejection.eject(start, &config);
        // In force, and over but not noticed yet: nothing is forgotten.
        assert_eq!([0, 29, 30, 500].map(|at| ejection.decayed(after(at), interval)), [1; 4]);
        // Noticed late, it still ended at its end.
        assert!(ejection.settle(after(45)));
        assert!(!ejection.settle(after(46)));
        assert_eq!([45, 59, 60, 90].map(|at| ejection.decayed(after(at), interval)), [1, 1, 0, 0]);
        assert_eq!(ejection.eject(after(59), &config), Duration::from_secs(60));
        assert_eq!(ejection.decayed(after(118), interval), 2, "in force");
        // One that is over and was not noticed is noticed by the next, which begins with what is left of it.
        assert_eq!(ejection.eject(after(149), &config), Duration::from_secs(60));
        // Lifted, its clean time begins at the lift; a lift of nothing changes nothing.
        ejection.lift(after(160));
        ejection.lift(after(200));
        assert_eq!([189, 190, 219, 220].map(|at| ejection.decayed(after(at), interval)), [2, 1, 1, 0]);
        // One by hand counts for nothing itself, brings nothing back, and is no clean time.
        ejection.eject_for(after(195), Duration::from_secs(40), interval);
        assert_eq!([195, 234].map(|at| ejection.decayed(after(at), interval)), [1, 1]);
        assert_eq!(ejection.span(after(234)), Some(Span { since: after(195), until: after(235) }));
        assert_eq!(ejection.span(after(235)), None);
        assert!(ejection.settle(after(240)));
        assert_eq!([264, 265].map(|at| ejection.decayed(after(at), interval)), [1, 0]);
        // It notices one that is over, too.
        ejection.eject(after(300), &config);
        ejection.eject_for(after(400), Duration::from_secs(10), interval);
        assert_eq!(ejection.decayed(after(400), interval), 0);
    }

    #[test]
    fn a_recovery_ends_the_pause_and_the_doubling() {
        let now = instant();
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(10));
        let mut unready = Unready::default();
        assert!(!unready.recover());
        let first = unready.fail(now, min, max, 0).unwrap();
        assert_eq!(unready.span(now), Some(Span { since: now, until: now + first }));
        assert_eq!(unready.span(now + first), None);
        assert_eq!(unready.fail(now + first, min, max, 0), Some(Duration::from_millis(100)));
        assert!(unready.recover());
        assert_eq!(unready.span(now + first), None);
        assert_eq!(unready.fail(now + first, min, max, 0), Some(Duration::from_millis(50)));
    }

    #[test]
    fn an_endless_ejection_does_not_overflow() {
        let mut ejection = Ejection::default();
        let now = instant();
        ejection.eject_for(now, Duration::MAX, Duration::from_secs(30));
        assert!(ejection.span(now + Duration::from_secs(1_000_000)).is_some());
    }

    #[test]
    fn r2_the_pause_of_an_unready_endpoint_doubles_up_to_its_maximum_and_is_jittered() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(10));
        let mut now = instant();
        let mut unready = Unready::default();
        for expected in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let time = unready.fail(now, min, max, u64::MAX).unwrap();
            assert!(time.abs_diff(Duration::from_millis(expected)) < Duration::from_micros(1), "{time:?}");
            assert_eq!(unready.fail(now, min, max, 0), None, "failures of one pause are one");
            now += time;
        }
        assert_eq!(unready.fail(now, min, max, 0), Some(Duration::from_secs(5)));
        assert!(unready.recover());
        assert!(!unready.recover());
    }
}
