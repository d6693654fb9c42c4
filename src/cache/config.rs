//! [`CacheConfig`]: every setting of a cache, as data.

use std::time::Duration;

use crate::error::InvalidConfig;

/// The settings of a cache.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::cache::CacheConfig;
///
/// let mut config = CacheConfig::default();
/// config.ttl = Duration::from_secs(300);
/// config.stale_if_error = Duration::from_secs(3600);
/// assert!(config.validate().is_ok());
///
/// config.ttl_jitter = 1.5;
/// assert_eq!(config.validate().unwrap_err().field(), "ttl_jitter");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CacheConfig {
    /// How many entries the memory store keeps (or the sum of their weights, with a weigher); from 1. A store of your own has
    /// its own bound. Default: 10 000.
    pub capacity: u64,

    /// How long an answer is fresh; above zero. Default: 60 s, short enough that a change which nobody invalidated is seen soon.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub ttl: Duration,

    /// The share by which a time to live is shortened at most, at random, so that what was loaded together does not expire
    /// together; from 0.0 to 1.0. Default: 0.1.
    pub ttl_jitter: f64,

    /// How long an answer that says no ([`Outcome::Refused`](crate::Outcome::Refused), such as a 404) is remembered; above
    /// zero, or `None` not to. Refusals that [depend on the caller](crate::Classify::depends_on_caller) are never remembered:
    /// over HTTP all but 404 and 410, over gRPC all but `NOT_FOUND`. Default: `None`: what does not exist now may be created in
    /// a moment.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub negative_ttl: Option<Duration>,

    /// How long after its freshness an answer is served at once while one refresh runs behind it; zero turns that off.
    /// Default: zero, since only the application knows how old an answer may be.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub stale_while_revalidate: Duration,

    /// How long after its freshness an answer may stand in for a load that failed; zero turns that off. A refusal is an answer
    /// and is never replaced by an old one. Default: zero.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub stale_if_error: Duration,

    /// How long a key is left alone after its first failed refresh, while its old answer is served; doubled with each further
    /// failure and shortened by up to half at random, but never below the time that the callee asked for. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub refresh_backoff: Duration,

    /// The longest time a key is left alone after failed refreshes; at least `refresh_backoff`. Default: 60 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub max_refresh_backoff: Duration,

    /// How long a load may take, readiness of the inner service included and the wait for a place among the concurrent loads
    /// excluded; above zero, or `None` for no limit. It is the load's own: no caller's deadline cuts it. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub load_timeout: Option<Duration>,

    /// How long a caller waits before it takes an old answer that may stand in (see `stale_if_error`); the load goes on.
    /// Above zero, or `None` to wait for the load. Default: `None`.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub soft_load_timeout: Option<Duration>,

    /// How many loads (of different keys) run at once; at least 1. Single flight alone does not save what is behind the cache
    /// from a cold start. Default: 256.
    pub max_concurrent_loads: usize,

    /// How many more loads may wait for their turn, in order of arrival. Beyond that a call is refused with
    /// [`Rejected::Limited`](crate::Rejected::Limited), or takes an old answer that may stand in. Default: 1024.
    pub max_queued_loads: usize,

    /// How long one operation of the store may take before the call goes on without it; above zero. Default: 50 ms.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub store_timeout: Duration,

    /// After how many failures in a row the store is not asked for a while, reads and writes apart; at least 1. Default: 5.
    pub store_failures: u32,

    /// How long the store is left alone at first; doubled each time a trial fails. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub store_backoff: Duration,

    /// The longest time the store is left alone; at least `store_backoff`. Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub max_store_backoff: Duration,

    /// Makes the jitter repeatable: the same seed gives the same times to live in the same order of loads. Default: `None`,
    /// a fresh seed.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub seed: Option<u64>,
}

// === impl CacheConfig ===

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            ttl: Duration::from_secs(60),
            ttl_jitter: 0.1,
            negative_ttl: None,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            refresh_backoff: Duration::from_secs(1),
            max_refresh_backoff: Duration::from_secs(60),
            load_timeout: Some(Duration::from_secs(10)),
            soft_load_timeout: None,
            max_concurrent_loads: 256,
            max_queued_loads: 1024,
            store_timeout: Duration::from_millis(50),
            store_failures: 5,
            store_backoff: Duration::from_secs(1),
            max_store_backoff: Duration::from_secs(30),
            seed: None,
        }
    }
}

impl CacheConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field whose value cannot be used.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheConfig;
    ///
    /// let mut config = CacheConfig::default();
    /// config.max_concurrent_loads = 0;
    /// assert_eq!(config.validate().unwrap_err().field(), "max_concurrent_loads");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        const ABOVE_ZERO: &str = "must be above zero";
        let above_zero = [
            ("ttl", Some(self.ttl)),
            ("negative_ttl", self.negative_ttl),
            ("refresh_backoff", Some(self.refresh_backoff)),
            ("load_timeout", self.load_timeout),
            ("soft_load_timeout", self.soft_load_timeout),
            ("store_timeout", Some(self.store_timeout)),
            ("store_backoff", Some(self.store_backoff)),
        ];
        for (field, duration) in above_zero {
            if let Some(duration) = duration.filter(Duration::is_zero) {
                return Err(InvalidConfig::new(field, duration, ABOVE_ZERO));
            }
        }
        if self.capacity == 0 {
            return Err(InvalidConfig::new("capacity", self.capacity, "must be at least 1"));
        }
        if !(0.0..=1.0).contains(&self.ttl_jitter) {
            return Err(InvalidConfig::new("ttl_jitter", self.ttl_jitter, "must be from 0.0 to 1.0"));
        }
        if self.max_refresh_backoff < self.refresh_backoff {
            let requirement = "must be at least `refresh_backoff`";
            return Err(InvalidConfig::new("max_refresh_backoff", self.max_refresh_backoff, requirement));
        }
        let most = tokio::sync::Semaphore::MAX_PERMITS;
        if !(1..=most).contains(&self.max_concurrent_loads) {
            let requirement = format!("must be from 1 to {most}");
            return Err(InvalidConfig::new("max_concurrent_loads", self.max_concurrent_loads, requirement));
        }
        if self.store_failures == 0 {
            return Err(InvalidConfig::new("store_failures", self.store_failures, "must be at least 1"));
        }
        if self.max_store_backoff < self.store_backoff {
            let requirement = "must be at least `store_backoff`";
            return Err(InvalidConfig::new("max_store_backoff", self.max_store_backoff, requirement));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut CacheConfig);

    #[test]
    fn every_bad_value_is_refused_by_the_name_of_its_field() {
        assert_eq!(CacheConfig::default().validate(), Ok(()));
        let bad: [(&str, Spoil); 14] = [
            ("capacity", |config| config.capacity = 0),
            ("ttl", |config| config.ttl = Duration::ZERO),
            ("ttl_jitter", |config| config.ttl_jitter = f64::NAN),
            ("ttl_jitter", |config| config.ttl_jitter = -0.1),
            ("negative_ttl", |config| config.negative_ttl = Some(Duration::ZERO)),
            ("refresh_backoff", |config| config.refresh_backoff = Duration::ZERO),
            ("max_refresh_backoff", |config| config.max_refresh_backoff = Duration::from_millis(1)),
            ("load_timeout", |config| config.load_timeout = Some(Duration::ZERO)),
            ("soft_load_timeout", |config| config.soft_load_timeout = Some(Duration::ZERO)),
            ("max_concurrent_loads", |config| config.max_concurrent_loads = 0),
            ("max_concurrent_loads", |config| config.max_concurrent_loads = usize::MAX),
            ("store_timeout", |config| config.store_timeout = Duration::ZERO),
            ("store_failures", |config| config.store_failures = 0),
            ("max_store_backoff", |config| config.max_store_backoff = Duration::from_millis(1)),
        ];
        for (field, spoil) in bad {
            let mut config = CacheConfig::default();
            spoil(&mut config);
            assert_eq!(config.validate().unwrap_err().field(), field);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_is_read_from_a_file_and_unknown_keys_are_refused() {
        let config: CacheConfig = toml::from_str("ttl = \"5m\"\nnegative_ttl = \"5s\"\nseed = 7").unwrap();
        assert_eq!(config.ttl, Duration::from_secs(300));
        assert_eq!(config.negative_ttl, Some(Duration::from_secs(5)));
        assert_eq!(config.capacity, CacheConfig::default().capacity);
        assert!(toml::from_str::<CacheConfig>("tll = \"5m\"").is_err());
        let text = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<CacheConfig>(&text).unwrap(), config);
    }
}
