//! [`InvalidConfig`]: bad configuration, by field and value.

use std::borrow::Cow;
use std::fmt;

use crate::name::Name;

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
#[error("{}invalid `{field}` = {value}: {requirement}", Prefix(layer.as_ref()))]
pub struct InvalidConfig {
    layer: Option<Name>,
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
        Self { layer: None, field: field.into(), value: format!("{value:?}"), requirement: requirement.into() }
    }

    /// Names the layer that the settings are for, in place of any name that was set before.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = mainstay::InvalidConfig::new("attempts", 0, "must be at least 1").of_layer("users");
    /// assert_eq!(error.layer(), Some("users"));
    /// assert_eq!(error.to_string(), "`users`: invalid `attempts` = 0: must be at least 1");
    /// ```
    #[must_use]
    pub fn of_layer(mut self, name: impl Into<Name>) -> Self {
        self.layer = Some(name.into());
        self
    }

    /// The name of the layer that the settings are for; `None` where they were validated by themselves.
    #[must_use]
    pub fn layer(&self) -> Option<&str> {
        self.layer.as_deref()
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

/// The name of a layer in front of an error text.
struct Prefix<'a>(Option<&'a Name>);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, "`{name}`: "))
    }
}
