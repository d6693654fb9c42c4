//! [`Entry`]: an answer and how long it may be served (the pure core of freshness).
//!
//! ```text
//!   written      fresh_until          + stale_while_revalidate      + stale_if_error
//!      |  fresh      |  stale: served at once,  |  only if the load fails  |  dead
//!      |             |  refreshed behind it     |                          |
//! ```
//!
//! Both windows start at `fresh_until`; the longer one ends the entry. An instant that is exactly an end lies behind it: at
//! 60 s an entry with 60 s to live is no longer fresh.

use std::fmt;
use std::time::{Duration, Instant};

use super::versions::Stamp;
use crate::cores::sync::atomic::{AtomicBool, Ordering};
use crate::error::LoadFailed;

/// A stored answer: the response or the refusal, when it was written, and until when it may be served.
///
/// A [`Store`](super::Store) keeps it behind an `Arc` and hands it back unchanged. It is made by the cache alone.
///
/// # Examples
///
/// ```
/// use mainstay::cache::Entry;
///
/// fn describe(entry: &Entry<String>) -> &str {
///     match entry.answer() {
///         Ok(response) => response,
///         Err(_refused) => "a remembered refusal",
///     }
/// }
/// # let _ = describe;
/// ```
pub struct Entry<V> {
    answer: Result<V, LoadFailed>,
    negative: bool,
    written: Instant,
    fresh_until: Instant,
    stale_until: Instant,
    error_until: Instant,
    stamp: Stamp,
    /// Set once, by an invalidation of its key or by a newer refusal, and seen by all who hold the entry.
    dead: AtomicBool,
}

/// How long an answer is fresh, and how long after that it may still be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) fresh: Duration,
    pub(crate) stale_while_revalidate: Duration,
    pub(crate) stale_if_error: Duration,
}

/// What an entry is good for at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Served, and that is all.
    Fresh,
    /// Served at once, and refreshed in the background.
    Stale,
    /// Served only when a load fails or is slow.
    OnError,
    /// Not served.
    Dead,
}

// === impl Lifetime ===

impl Lifetime {
    /// A lifetime without windows for stale answers: that of a refusal.
    pub(crate) const fn strict(fresh: Duration) -> Self {
        Self { fresh, stale_while_revalidate: Duration::ZERO, stale_if_error: Duration::ZERO }
    }
}

/// `time` shortened by up to the share `jitter`, as `unit` in [0, 1) says. Never longer than what was configured.
pub(crate) fn jittered(time: Duration, jitter: f64, unit: f64) -> Duration {
    if jitter <= 0.0 {
        return time;
    }
    let less = Duration::try_from_secs_f64(time.as_secs_f64() * jitter * unit).unwrap_or_default();
    time.saturating_sub(less)
}

/// `first` doubled for every failure after the first, at most `max`.
pub(crate) fn doubled(first: Duration, max: Duration, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(max)
}

/// `start + time`, or a time so far away that nobody waits for it.
pub(crate) fn after(start: Instant, time: Duration) -> Instant {
    const THIRTY_YEARS: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    start.checked_add(time.min(THIRTY_YEARS)).unwrap_or(start)
}

// === impl Entry ===

impl<V> Entry<V> {
    pub(crate) fn new(
        answer: Result<V, LoadFailed>,
        negative: bool,
        lifetime: Lifetime,
        now: Instant,
        stamp: Stamp,
    ) -> Self {
        let fresh_until = after(now, lifetime.fresh);
        Self {
            answer,
            negative,
            written: now,
            fresh_until,
            stale_until: after(fresh_until, lifetime.stale_while_revalidate),
            error_until: after(fresh_until, lifetime.stale_if_error),
            stamp,
            dead: AtomicBool::new(false),
        }
    }

    /// The response, or the refusal that was remembered in its place (see
    /// [`negative_ttl`](super::CacheConfig::negative_ttl)).
    ///
    /// # Errors
    ///
    /// A remembered refusal, with the outcome and the words of the error that the load ended in.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::Entry;
    ///
    /// fn length(entry: &Entry<String>) -> Option<usize> {
    ///     entry.answer().ok().map(String::len)
    /// }
    /// # let _ = length;
    /// ```
    pub const fn answer(&self) -> Result<&V, &LoadFailed> {
        self.answer.as_ref()
    }

    /// Whether this remembers an answer that says no ([`Outcome::Refused`](crate::Outcome::Refused)).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::Entry;
    ///
    /// fn may_be_shown(entry: &Entry<String>) -> bool {
    ///     !entry.is_negative()
    /// }
    /// # let _ = may_be_shown;
    /// ```
    #[must_use]
    pub const fn is_negative(&self) -> bool {
        self.negative
    }

    /// How long ago the answer was written.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use mainstay::cache::Entry;
    ///
    /// fn is_older(entry: &Entry<String>, than: Duration, now: Instant) -> bool {
    ///     entry.age(now) > than
    /// }
    /// # let _ = is_older;
    /// ```
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.written)
    }

    /// How long from `now` the entry can be of any use: what a store may take as its own time to live.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use mainstay::cache::Entry;
    ///
    /// fn is_of_use(entry: &Entry<String>, now: Instant) -> bool {
    ///     entry.keep_for(now) > Duration::ZERO
    /// }
    /// # let _ = is_of_use;
    /// ```
    #[must_use]
    pub fn keep_for(&self, now: Instant) -> Duration {
        self.stale_until.max(self.error_until).saturating_duration_since(now)
    }

    #[inline]
    pub(crate) fn freshness(&self, now: Instant) -> Freshness {
        if now < self.fresh_until {
            Freshness::Fresh
        } else if now < self.stale_until {
            Freshness::Stale
        } else if now < self.error_until {
            Freshness::OnError
        } else {
            Freshness::Dead
        }
    }

    /// Whether the answer may stand in for a load that failed or is slow. A refusal never does.
    pub(crate) fn may_stand_in(&self, now: Instant) -> bool {
        !self.negative && now < self.stale_until.max(self.error_until)
    }

    /// Ends the entry for everything that holds it or finds it: it is not served to any call made from now on.
    pub(crate) fn kill(&self) {
        // `SeqCst`, as are the ticks of `Versions`: a call that begins after the invalidation has returned sees it.
        self.dead.store(true, Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) const fn stamp(&self) -> &Stamp {
        &self.stamp
    }
}

/// Without the answer: it may be large, or secret.
impl<V> fmt::Debug for Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("negative", &self.negative)
            .field("written", &self.written)
            .field("fresh_until", &self.fresh_until)
            .field("stale_until", &self.stale_until)
            .field("error_until", &self.error_until)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[allow(clippy::disallowed_methods, reason = "any instant will do as the start")]
    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn entry(now: Instant, fresh: u64, stale: u64, on_error: u64) -> Entry<()> {
        let lifetime =
            Lifetime { fresh: secs(fresh), stale_while_revalidate: secs(stale), stale_if_error: secs(on_error) };
        Entry::new(Ok(()), false, lifetime, now, Stamp::default())
    }

    #[test]
    fn r5_sixty_seconds_fresh_then_three_hundred_stale() {
        let now = start();
        let entry = entry(now, 60, 300, 0);
        let at = |secs| entry.freshness(now + Duration::from_secs(secs));
        assert_eq!(at(59), Freshness::Fresh);
        assert_eq!(at(60), Freshness::Stale, "an end lies behind");
        assert_eq!(at(61), Freshness::Stale);
        assert_eq!(at(359), Freshness::Stale);
        assert_eq!(at(360), Freshness::Dead);
        assert_eq!(at(361), Freshness::Dead);
    }

    #[test]
    fn a_refusal_stands_in_for_nothing() {
        let now = start();
        let entry = Entry::new(Ok(()), true, Lifetime::strict(secs(5)), now, Stamp::default());
        assert_eq!(entry.freshness(now), Freshness::Fresh);
        assert!(!entry.may_stand_in(now));
        assert_eq!(entry.freshness(now + secs(5)), Freshness::Dead);
    }

    #[test]
    fn endless_times_saturate() {
        let now = start();
        let lifetime =
            Lifetime { fresh: Duration::MAX, stale_while_revalidate: Duration::MAX, stale_if_error: Duration::MAX };
        let entry = Entry::new(Ok(()), false, lifetime, now, Stamp::default());
        assert_eq!(entry.freshness(now + secs(1_000_000)), Freshness::Fresh);
        assert!(jittered(Duration::MAX, 1.0, 0.999_999) < Duration::MAX);
        assert_eq!(doubled(secs(1), Duration::MAX, u32::MAX), secs(u64::from(u32::MAX)));
    }

    #[test]
    fn a_backoff_doubles_up_to_its_cap() {
        let waits: Vec<_> = (1..=5).map(|failures| doubled(secs(1), secs(10), failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10]);
    }

    proptest! {
        /// Against a naive model: three sums of whole seconds, compared one by one.
        #[test]
        fn freshness_is_what_the_sums_say(
            fresh in 0_u64..100, stale in 0_u64..100, on_error in 0_u64..100, age in 0_u64..250,
        ) {
            let now = start();
            let entry = entry(now, fresh, stale, on_error);
            let at = now + secs(age);
            let expected = if age < fresh {
                Freshness::Fresh
            } else if age < fresh + stale {
                Freshness::Stale
            } else if age < fresh + on_error {
                Freshness::OnError
            } else {
                Freshness::Dead
            };
            prop_assert_eq!(entry.freshness(at), expected, "fresh {} stale {} on_error {} age {}", fresh, stale, on_error, age);
            prop_assert_eq!(entry.keep_for(at).is_zero(), expected == Freshness::Dead);
            prop_assert_eq!(entry.may_stand_in(at), expected != Freshness::Dead);
            prop_assert_eq!(entry.age(at), secs(age));
        }

        /// An entry only ever gets worse with time.
        #[test]
        fn freshness_never_comes_back(
            fresh in 0_u64..100, stale in 0_u64..100, on_error in 0_u64..100, one in 0_u64..250, other in 0_u64..250,
        ) {
            let now = start();
            let entry = entry(now, fresh, stale, on_error);
            let rank = |age| entry.freshness(now + secs(age)) as u8;
            prop_assert!(rank(one.min(other)) <= rank(one.max(other)));
        }

        #[test]
        fn jitter_only_shortens_and_by_no_more_than_its_share(
            millis in 0_u64..10_000_000, jitter in 0.0_f64..=1.0, unit in 0.0_f64..1.0,
        ) {
            let time = Duration::from_millis(millis);
            let got = jittered(time, jitter, unit);
            prop_assert!(got <= time);
            prop_assert!(got.as_secs_f64() >= time.as_secs_f64() * (1.0 - jitter) - 1e-6);
        }
    }
}
