//! [`Cooldowns`]: after a failed refresh of a key, how long to leave it alone (a pure core).

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::entry;

/// The number of keys whose failures are remembered. Beyond it one of them is forgotten, and merely tried again sooner.
const MAX_KEYS: usize = 4096;

/// The keys whose last load failed although there was an old answer to serve.
#[derive(Debug)]
pub(crate) struct Cooldowns<K> {
    first: Duration,
    max: Duration,
    failed: HashMap<K, Failed>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    until: Instant,
}

impl<K: Hash + Eq + Clone> Cooldowns<K> {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failed: HashMap::new() }
    }

    /// Whether `key` is to be left alone at `now`.
    pub(crate) fn is_cooling(&self, key: &K, now: Instant) -> bool {
        self.failed.get(key).is_some_and(|failed| now < failed.until)
    }

    /// Notes a failure, and returns how long the key is left alone for it: doubled each time, and shortened by up to half as
    /// `unit` says so that keys that failed together are not tried together. It is never shorter than `retry_after`, the time
    /// that the callee asked for, but longer by up to a tenth.
    pub(crate) fn failed(&mut self, key: &K, now: Instant, unit: f64, retry_after: Option<Duration>) -> Duration {
        let times = self.failed.get(key).map_or(0, |failed| failed.times).saturating_add(1);
        let own = entry::jittered(entry::doubled(self.first, self.max, times), 0.5, unit);
        let asked = retry_after.map(|time| time.saturating_add(time.saturating_sub(entry::jittered(time, 0.1, unit))));
        let wait = own.max(asked.unwrap_or_default());
        if times == 1
            && self.failed.len() >= MAX_KEYS
            && let Some(forgotten) = self.failed.keys().next().cloned()
        {
            self.failed.remove(&forgotten);
        }
        self.failed.insert(key.clone(), Failed { times, until: entry::after(now, wait) });
        wait
    }

    /// Forgets the failures of `key`.
    pub(crate) fn succeeded(&mut self, key: &K) {
        self.failed.remove(key);
    }

    pub(crate) fn clear(&mut self) {
        self.failed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn each_failure_doubles_the_wait_and_a_success_forgets() {
        let mut cooldowns = Cooldowns::new(Duration::from_secs(1), Duration::from_secs(3));
        let now = start();
        let waits: Vec<_> = (0..4).map(|_| cooldowns.failed(&'a', now, 0.0, None).as_secs()).collect();
        assert_eq!(waits, [1, 2, 3, 3]);
        assert!(cooldowns.is_cooling(&'a', now + Duration::from_millis(2_999)));
        assert!(!cooldowns.is_cooling(&'a', now + Duration::from_secs(3)));
        assert!(!cooldowns.is_cooling(&'b', now));

        cooldowns.succeeded(&'a');
        assert!(!cooldowns.is_cooling(&'a', now));
        assert_eq!(cooldowns.failed(&'a', now, 0.0, None), Duration::from_secs(1));
    }

    #[test]
    fn what_the_callee_asks_for_is_the_least() {
        let mut cooldowns = Cooldowns::new(Duration::from_secs(1), Duration::from_secs(3));
        let now = start();
        let asked = Some(Duration::from_secs(120));
        assert_eq!(cooldowns.failed(&'a', now, 0.0, asked), Duration::from_secs(120));
        assert_eq!(cooldowns.failed(&'a', now, 0.5, asked), Duration::from_secs(126), "with jitter on top");
        assert_eq!(cooldowns.failed(&'a', now, 0.0, Some(Duration::from_millis(1))), Duration::from_secs(3));
        assert_eq!(cooldowns.failed(&'b', now, 0.9, Some(Duration::MAX)), Duration::MAX);
        assert!(cooldowns.is_cooling(&'b', now));
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let mut cooldowns = Cooldowns::new(Duration::from_secs(1), Duration::from_secs(3));
        let now = start();
        (0..MAX_KEYS * 2).for_each(|key| _ = cooldowns.failed(&key, now, 0.0, None));
        assert_eq!(cooldowns.failed.len(), MAX_KEYS);
        assert!(cooldowns.is_cooling(&(MAX_KEYS * 2 - 1), now), "the latest is kept");
    }
}
