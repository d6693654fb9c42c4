//! [`RetryConfig`]: a retry as plain data.

use std::time::Duration;

use crate::backoff::BackoffConfig;
use crate::budget::BudgetConfig;
use crate::error::InvalidConfig;

/// The settings of a [`RetryLayer`](super::RetryLayer).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::retry::RetryConfig;
///
/// let config = RetryConfig::default();
/// assert_eq!((config.max_attempts, config.attempt_timeout), (3, None));
/// assert_eq!(config.backoff.initial, Duration::from_millis(50));
/// assert_eq!(config.budget.ratio, 0.2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct RetryConfig {
    /// How many attempts a call has, the first included. At least 1, which turns retries off; [`UNLIMITED`](Self::UNLIMITED),
    /// in a file `"unlimited"`, for as many as the other limits allow. Default: 3, as in the AWS SDKs and gRPC's examples.
    #[cfg_attr(feature = "serde", serde(with = "attempts"))]
    pub max_attempts: u32,
    /// The delays between attempts. Default: exponential from 50 ms by 2, up to 10 s, with full jitter.
    pub backoff: BackoffConfig,
    /// The first delay after a throttle that names no time; it grows, is spread and is capped as [`backoff`](Self::backoff) says.
    /// From zero. Default: 1 s, as for throttling errors in the AWS SDKs' "standard" mode 2.1: an overloaded callee needs more time
    /// than a dropped connection.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub throttled_initial: Duration,
    /// What bounds the retries of all calls together; not used where the builder is given a shared
    /// [`Budget`](crate::budget::Budget). Default: 20 % of the calls sent, and 10 more in 10 s.
    pub budget: BudgetConfig,
    /// How long one attempt may take, cut to what is left of the ambient deadline. Above zero, or `None` for no limit of its
    /// own (a `TimeoutLayer::attempt` below does the same). Default: `None`.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub attempt_timeout: Option<Duration>,
    /// How far a time that the callee or a limit names is followed. Default: [`TrustHint::Exact`].
    pub trust_hint: TrustHint,
    /// How much longer than such a time a call waits at most, as a share of it, from 0.0 to 1.0. Callers that were given the same
    /// time so do not come back at the same instant, and none comes early. Default: 0.2, which spreads the callers of 1 s over 200 ms.
    pub hint_jitter: f64,
    /// The longest `retry_after` that is waited for, jitter included. A call whose callee asks for more gives up, unless
    /// [`trust_hint`](Self::trust_hint) says otherwise: coming early would be rude, and waiting so long is seldom what the
    /// caller wants. Default: 10 s, the default cap of the backoff.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub max_retry_after: Duration,
    /// How long after the call the last attempt may start: a limit of the retry's own beside the ambient deadline, which cuts no
    /// attempt short. Above zero, or `None` for none. Default: `None`.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub max_elapsed: Option<Duration>,
    /// How long the service's readiness is waited for before each attempt after the first. Then the call gives up with the error
    /// of the attempt before, or with [`Rejected::Timeout`](crate::Rejected::Timeout) if that attempt ended in a response, which
    /// was dropped before the delay. Zero gives up at once; `None` waits until the deadline. Default: `None`.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub ready_timeout: Option<Duration>,
    /// What jitter is drawn from, so that each run sees the same delays; behind a lock, taken for each retry. For tests: clients
    /// of one seed come back together. Default: `None`, a generator for each thread.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_off"))]
    pub seed: Option<u64>,
    /// Whether to retry even after a retry further in has given up. Attempts then multiply: two layers of 3 make 9.
    /// Default: `false`.
    pub retry_after_inner_gave_up: bool,
}

/// How far a retry follows the time that a callee (`Retry-After`) or a limit names.
///
/// In a configuration file: `"exact"` or `"clamped"`.
///
/// # Examples
///
/// ```
/// use mainstay::retry::TrustHint;
///
/// assert_eq!(TrustHint::default(), TrustHint::Exact);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum TrustHint {
    /// Waits at least the time named. A call whose callee names more than
    /// [`max_retry_after`](RetryConfig::max_retry_after) gives up.
    #[default]
    Exact,
    /// Waits the time named within bounds: at least the retry's own delay, and at most 5 s longer than that, as in the AWS
    /// SDKs' "standard" mode 2.1. A time beyond these bounds shortens the wait and does not end the call; `max_retry_after` bounds
    /// what is waited on top of the retry's own delay.
    Clamped,
}

// === impl RetryConfig ===

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: BackoffConfig::default(),
            throttled_initial: Duration::from_secs(1),
            budget: BudgetConfig::default(),
            attempt_timeout: None,
            trust_hint: TrustHint::Exact,
            hint_jitter: 0.2,
            max_retry_after: Duration::from_secs(10),
            max_elapsed: None,
            ready_timeout: None,
            seed: None,
            retry_after_inner_gave_up: false,
        }
    }
}

impl RetryConfig {
    /// The [`max_attempts`](Self::max_attempts) of a call that is retried until another limit ends it: the budget, the deadline,
    /// or [`max_elapsed`](Self::max_elapsed).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::RetryConfig;
    ///
    /// let mut config = RetryConfig::default();
    /// config.max_attempts = RetryConfig::UNLIMITED;
    /// assert_eq!(config.validate(), Ok(()));
    /// ```
    pub const UNLIMITED: u32 = u32::MAX;

    /// Whether these settings can be used.
    ///
    /// # Errors
    ///
    /// The first field that cannot: no attempt at all, an attempt timeout or a longest time of zero, a jitter outside of 0.0 to 1.0, or
    /// what the backoff or the budget reject.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::retry::RetryConfig;
    ///
    /// let mut config = RetryConfig::default();
    /// config.backoff.cap = Duration::ZERO;
    /// assert_eq!(config.validate().unwrap_err().field(), "backoff.cap");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        valid_attempts(self.max_attempts)?;
        self.backoff.validate().map_err(|error| error.within("backoff"))?;
        self.budget.validate().map_err(|error| error.within("budget"))?;
        if let Some(Duration::ZERO) = self.attempt_timeout {
            let requirement = "must be above zero; for no timeout leave it out";
            return Err(InvalidConfig::new("attempt_timeout", Duration::ZERO, requirement));
        }
        if !(0.0..=1.0).contains(&self.hint_jitter) {
            return Err(InvalidConfig::new("hint_jitter", self.hint_jitter, "must be from 0.0 to 1.0"));
        }
        if let Some(Duration::ZERO) = self.max_elapsed {
            let requirement = "must be above zero; for no retries set `max_attempts` to 1";
            return Err(InvalidConfig::new("max_elapsed", Duration::ZERO, requirement));
        }
        Ok(())
    }
}

impl RetryConfig {
    /// The settings of the delays after throttles that name no time.
    pub(super) fn throttled(&self) -> BackoffConfig {
        BackoffConfig { initial: self.throttled_initial.min(self.backoff.cap), ..self.backoff }
    }
}

pub(super) fn valid_attempts(max_attempts: u32) -> Result<(), InvalidConfig> {
    if max_attempts == 0 {
        return Err(InvalidConfig::new("max_attempts", max_attempts, "must be at least 1"));
    }
    Ok(())
}

/// A number of attempts in a file: a number, or `"unlimited"`.
#[cfg(feature = "serde")]
mod attempts {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::RetryConfig;

    const UNLIMITED: &str = "unlimited";

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Attempts {
        Number(u32),
        Word(String),
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(attempts: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        match *attempts {
            RetryConfig::UNLIMITED => serializer.serialize_str(UNLIMITED),
            attempts => serializer.serialize_u32(attempts),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        match Attempts::deserialize(deserializer) {
            Ok(Attempts::Number(attempts)) => Ok(attempts),
            Ok(Attempts::Word(word)) if word == UNLIMITED => Ok(RetryConfig::UNLIMITED),
            _ => Err(D::Error::custom(format!("must be a number of attempts or \"{UNLIMITED}\""))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused_by_field() {
        let good = RetryConfig::default();
        assert_eq!(good.validate(), Ok(()));
        let field = |config: RetryConfig| config.validate().unwrap_err().field().to_owned();
        assert_eq!(field(RetryConfig { max_attempts: 0, ..good }), "max_attempts");
        assert_eq!(field(RetryConfig { attempt_timeout: Some(Duration::ZERO), ..good }), "attempt_timeout");
        assert_eq!(field(RetryConfig { max_elapsed: Some(Duration::ZERO), ..good }), "max_elapsed");
        let backoff = good.backoff.with_cap(Duration::ZERO);
        assert_eq!(field(RetryConfig { backoff, ..good }), "backoff.cap");
        for hint_jitter in [-0.1, 1.1, f64::NAN] {
            assert_eq!(field(RetryConfig { hint_jitter, ..good }), "hint_jitter");
        }
        let budget = BudgetConfig { ratio: -0.1, ..good.budget };
        assert_eq!(field(RetryConfig { budget, ..good }), "budget.ratio");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_reads_as_it_is_written_and_unknown_keys_are_errors() {
        let text =
            "max_attempts = 5\nattempt_timeout = \"300ms\"\n[backoff]\ninitial = \"10ms\"\n[budget]\nratio = 0.1\n";
        let read: RetryConfig = toml::from_str(text).unwrap();
        let mut expected = RetryConfig { max_attempts: 5, ..RetryConfig::default() };
        expected.attempt_timeout = Some(Duration::from_millis(300));
        expected.backoff.initial = Duration::from_millis(10);
        expected.budget.ratio = 0.1;
        assert_eq!(read, expected);
        assert_eq!(toml::from_str::<RetryConfig>(&toml::to_string(&read).unwrap()).unwrap(), read);
        assert!(toml::from_str::<RetryConfig>("attempts = 5").is_err());
    }

    #[cfg(feature = "serde")]
    #[test]
    fn attempts_without_a_limit_are_asked_for_by_name() {
        let read: RetryConfig = toml::from_str("max_attempts = \"unlimited\"\nseed = 7\n").unwrap();
        assert_eq!(read, RetryConfig { max_attempts: RetryConfig::UNLIMITED, seed: Some(7), ..RetryConfig::default() });
        assert_eq!(toml::from_str::<RetryConfig>(&toml::to_string(&read).unwrap()).unwrap(), read);
        for text in ["max_attempts = -1", "max_attempts = \"many\"", "max_attempts = 2.5"] {
            assert!(toml::from_str::<RetryConfig>(text).unwrap_err().to_string().contains("unlimited"), "{text}");
        }
    }
}
