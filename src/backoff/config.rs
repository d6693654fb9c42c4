//! [`BackoffConfig`]: a backoff as plain data.

use std::time::Duration;

use super::Backoff;
use crate::error::InvalidConfig;

/// The settings of a [`Backoff`].
///
/// The default is what retries use: exponential from 50 ms by 2, up to 10 s, with full jitter.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::backoff::{BackoffConfig, Growth, Jitter};
///
/// let config = BackoffConfig::default();
/// assert_eq!(config.growth, Growth::Exponential { factor: 2.0 });
/// assert_eq!(config.initial, Duration::from_millis(50));
/// assert_eq!(config.cap, Duration::from_secs(10));
/// assert_eq!(config.jitter, Jitter::Full);
///
/// let upside_down = config.with_cap(Duration::from_millis(10));
/// assert_eq!(upside_down.validate().unwrap_err().field(), "cap");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct BackoffConfig {
    /// How delays grow from one attempt to the next. Default: [`Growth::Exponential`] by 2, the doubling of Ethernet and of
    /// the common cloud SDKs.
    pub growth: Growth,
    /// The first delay, before jitter. From zero (no delay at all, but for linear growth) up to [`cap`](Self::cap).
    /// Default: 50 ms, the first delay of the AWS SDKs' "standard" mode 2.1.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub initial: Duration,
    /// The longest delay, after jitter. At least [`initial`](Self::initial); `Duration::MAX` is none. Default: 10 s, so that
    /// a long outage is noticed to be over within seconds.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub cap: Duration,
    /// How delays are spread. Default: [`Jitter::Full`], which sends the fewest calls in total in the simulations of
    /// "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    pub jitter: Jitter,
}

/// How delays grow. See the table in the [module documentation](crate::backoff#semantics).
///
/// In a configuration file: `"constant"`, `{ linear = { step = "50ms" } }`, `{ exponential = { factor = 2.0 } }`,
/// `"fibonacci"` or `"decorrelated"`.
///
/// # Examples
///
/// ```
/// use mainstay::backoff::Growth;
///
/// assert_eq!(Growth::default(), Growth::Exponential { factor: 2.0 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub enum Growth {
    /// Always the initial delay.
    Constant,
    /// `initial + n * step`.
    Linear {
        /// What each attempt adds. Zero makes it constant.
        #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
        step: Duration,
    },
    /// `initial * factor^n`.
    Exponential {
        /// What each attempt multiplies by: finite, and at least 1.0.
        factor: f64,
    },
    /// `initial` times 1, 2, 3, 5, 8, ...
    Fibonacci,
    /// A draw from `initial` to three times the delay before, as in "Exponential Backoff And Jitter". It is random by
    /// itself, so its jitter must be [`Jitter::None`].
    Decorrelated,
}

/// How a delay `d` becomes a range to draw from.
///
/// In a configuration file: `"none"`, `"full"`, `"equal"` or `{ proportional = 0.25 }`.
///
/// # Examples
///
/// ```
/// use mainstay::backoff::Jitter;
///
/// assert_eq!(Jitter::default(), Jitter::Full);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Jitter {
    /// `d` itself.
    None,
    /// From zero to `d`.
    #[default]
    Full,
    /// From half of `d` to `d`.
    Equal,
    /// From `d - fraction * d` to `d + fraction * d`; the fraction is above 0.0 and at most 1.0.
    Proportional(f64),
}

// === impl BackoffConfig ===

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            growth: Growth::default(),
            initial: Duration::from_millis(50),
            cap: Duration::from_secs(10),
            jitter: Jitter::default(),
        }
    }
}

impl BackoffConfig {
    /// Always `delay`, with no jitter; the cap is `delay` too.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::backoff::BackoffConfig;
    ///
    /// let backoff = BackoffConfig::constant(Duration::from_secs(1)).build()?;
    /// assert!(backoff.delays().take(3).all(|delay| delay == Duration::from_secs(1)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn constant(delay: Duration) -> Self {
        Self { growth: Growth::Constant, initial: delay, cap: delay, jitter: Jitter::None }
    }

    /// No delay at all.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::backoff::BackoffConfig;
    ///
    /// assert!(BackoffConfig::none().build()?.delays().take(3).all(|delay| delay.is_zero()));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn none() -> Self {
        Self::constant(Duration::ZERO)
    }

    /// `initial`, `initial + step`, `initial + 2 * step`, ...; the rest by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::backoff::{BackoffConfig, Jitter};
    ///
    /// let second = Duration::from_secs(1);
    /// let backoff = BackoffConfig::linear(second, second).with_jitter(Jitter::None).build()?;
    /// assert_eq!(backoff.delays().map(|delay| delay.as_secs()).take(3).collect::<Vec<_>>(), [1, 2, 3]);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn linear(initial: Duration, step: Duration) -> Self {
        Self { growth: Growth::Linear { step }, initial, ..Self::default() }
    }

    /// `initial`, doubled each time; the rest by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::backoff::{BackoffConfig, Jitter};
    ///
    /// let backoff = BackoffConfig::exponential(Duration::from_secs(1)).with_jitter(Jitter::None).build()?;
    /// assert_eq!(backoff.delays().map(|delay| delay.as_secs()).take(5).collect::<Vec<_>>(), [1, 2, 4, 8, 10]);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn exponential(initial: Duration) -> Self {
        Self { growth: Growth::default(), initial, ..Self::default() }
    }

    /// `initial` times 1, 2, 3, 5, 8, ...; the rest by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::backoff::{BackoffConfig, Jitter};
    ///
    /// let backoff = BackoffConfig::fibonacci(Duration::from_millis(10)).with_jitter(Jitter::None).build()?;
    /// assert_eq!(backoff.delays().map(|delay| delay.as_millis()).take(5).collect::<Vec<_>>(), [10, 20, 30, 50, 80]);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn fibonacci(initial: Duration) -> Self {
        Self { growth: Growth::Fibonacci, initial, ..Self::default() }
    }

    /// Draws from `initial` to three times the delay before; the cap by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::backoff::BackoffConfig;
    ///
    /// let backoff = BackoffConfig::decorrelated(Duration::from_millis(100)).build()?;
    /// assert!(backoff.delays().take(50).all(|delay| delay >= Duration::from_millis(100)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn decorrelated(initial: Duration) -> Self {
        Self { growth: Growth::Decorrelated, initial, jitter: Jitter::None, ..Self::default() }
    }

    /// The same, with this cap.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::backoff::BackoffConfig;
    ///
    /// let cap = Duration::from_millis(300);
    /// let backoff = BackoffConfig::default().with_cap(cap).build()?;
    /// assert!(backoff.delays().take(50).all(|delay| delay <= cap));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub const fn with_cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// The same, with this jitter.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::backoff::{BackoffConfig, Jitter};
    ///
    /// let backoff = BackoffConfig::default().with_jitter(Jitter::Proportional(0.5)).build()?;
    /// let first = backoff.delays().next().unwrap().as_millis();
    /// assert!((25..=75).contains(&first));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Whether these settings can be used.
    ///
    /// # Errors
    ///
    /// The first field that cannot: a cap below the initial delay, a factor that is not finite or below 1.0, a fraction of
    /// jitter outside of `0.0 < fraction <= 1.0`, or jitter on top of [`Growth::Decorrelated`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::backoff::{BackoffConfig, Jitter};
    ///
    /// let error = BackoffConfig::default().with_jitter(Jitter::Proportional(1.5)).validate().unwrap_err();
    /// assert_eq!(error.to_string(), "invalid `jitter` = 1.5: must be above 0.0 and at most 1.0");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if let Growth::Exponential { factor } = self.growth
            && !(factor.is_finite() && factor >= 1.0)
        {
            return Err(InvalidConfig::new("growth.factor", factor, "must be finite and at least 1.0"));
        }
        if self.cap < self.initial {
            let requirement = format!("must be at least the initial delay of {:?}", self.initial);
            return Err(InvalidConfig::new("cap", self.cap, requirement));
        }
        self.jitter.validate()?;
        match self.jitter {
            Jitter::Full | Jitter::Equal | Jitter::Proportional(_) if self.growth == Growth::Decorrelated => {
                Err(InvalidConfig::new("jitter", self.jitter, "must be none: decorrelated delays are random already"))
            }
            _ => Ok(()),
        }
    }

    /// The backoff of these settings.
    ///
    /// # Errors
    ///
    /// What [`validate`](Self::validate) finds.
    ///
    /// # Examples
    ///
    /// ```
    /// let backoff = mainstay::backoff::BackoffConfig::default().build()?;
    /// assert!(backoff.delays().take(100).all(|delay| delay.as_secs() <= 10));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn build(self) -> Result<Backoff, InvalidConfig> {
        Backoff::new(self)
    }
}

// === impl Growth ===

impl Default for Growth {
    fn default() -> Self {
        Self::Exponential { factor: 2.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(config: BackoffConfig) -> String {
        config.validate().unwrap_err().field().to_owned()
    }

    /// Scenarios 2 and 9.
    #[test]
    fn what_cannot_be_meant_is_refused_by_field() {
        let good = BackoffConfig::default();
        for factor in [0.5, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(field(BackoffConfig { growth: Growth::Exponential { factor }, ..good }), "growth.factor");
        }
        for fraction in [-0.0001, 0.0, 1.0001, f64::NAN] {
            assert_eq!(field(good.with_jitter(Jitter::Proportional(fraction))), "jitter");
        }
        assert_eq!(field(good.with_cap(Duration::from_millis(49))), "cap");
        assert_eq!(field(BackoffConfig::decorrelated(Duration::from_secs(1)).with_jitter(Jitter::Full)), "jitter");
    }

    /// Scenario 2 refuses an initial delay of zero. Here it means "at once", and no timer is armed for it.
    #[test]
    fn unlike_others_a_zero_delay_is_allowed() {
        assert_eq!(BackoffConfig::none().validate(), Ok(()));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_reads_as_it_is_written_and_unknown_keys_are_errors() {
        let text = "growth = { linear = { step = \"1s\" } }\ninitial = \"250ms\"\njitter = { proportional = 0.25 }\n";
        let read: BackoffConfig = toml::from_str(text).unwrap();
        let step = Duration::from_secs(1);
        let expected = BackoffConfig::linear(Duration::from_millis(250), step).with_jitter(Jitter::Proportional(0.25));
        assert_eq!(read, expected);
        assert_eq!(toml::from_str::<BackoffConfig>(&toml::to_string(&read).unwrap()).unwrap(), read);
        assert_eq!(toml::from_str::<BackoffConfig>("").unwrap(), BackoffConfig::default());
        assert!(toml::from_str::<BackoffConfig>("inital = \"1s\"").unwrap_err().to_string().contains("inital"));
        assert!(toml::from_str::<BackoffConfig>("growth = { exponential = { faktor = 2.0 } }").is_err());
    }
}
