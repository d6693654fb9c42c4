//! [`InvalidConfig`]: bad configuration, by field and value.

use std::borrow::Cow;
use std::fmt;

/// A setting that cannot be used: which field, its value, and what would be accepted.
///
/// Constructors never panic on bad input and never clamp it silently; they answer with this.
///
/// # Examples
///
/// ```
/// use mainstay::InvalidConfig;
///
/// let error = InvalidConfig::new("failure_rate", 1.5, "must be above 0.0 and at most 1.0").within("circuit_breaker");
/// assert_eq!(error.field(), "circuit_breaker.failure_rate");
/// assert_eq!(error.value(), "1.5");
/// assert_eq!(
///     error.to_string(),
///     "invalid `circuit_breaker.failure_rate` = 1.5: must be above 0.0 and at most 1.0",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid `{field}` = {value}: {requirement}")]
pub struct InvalidConfig {
    field: Cow<'static, str>,
    value: String,
    requirement: Cow<'static, str>,
}

impl InvalidConfig {
    /// `field` was `value`, and `requirement` says what would be accepted ("must be ...").
    ///
    /// # Examples
    ///
    /// ```
    /// let error = mainstay::InvalidConfig::new("attempts", 0, "must be at least 1");
    /// assert_eq!(error.requirement(), "must be at least 1");
    /// ```
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        value: impl fmt::Debug,
        requirement: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: field.into(), value: format!("{value:?}"), requirement: requirement.into() }
    }

    /// The same error, its field prefixed by the structure that holds it.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = mainstay::InvalidConfig::new("cap", 0, "must be above zero").within("backoff");
    /// assert_eq!(error.field(), "backoff.cap");
    /// ```
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field).into();
        self
    }

    /// The field's path, such as `backoff.cap`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::InvalidConfig::new("cap", 0, "must be above zero").field(), "cap");
    /// ```
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The value that was refused, as written by `Debug`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::InvalidConfig::new("cap", 0, "must be above zero").value(), "0");
    /// ```
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What would be accepted.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::InvalidConfig::new("cap", 0, "must be above zero").requirement(), "must be above zero");
    /// ```
    #[must_use]
    pub fn requirement(&self) -> &str {
        &self.requirement
    }
}
