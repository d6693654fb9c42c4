//! [`MonitorBuilder`]: a setter for each field of the settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::config::MonitorConfig;
use super::monitor::{Key, Monitor};
use super::shared::Shared;
use crate::telemetry::Listener;
use crate::{InvalidConfig, Name};

/// Builds a [`Monitor`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::health::Monitor;
///
/// let monitor: Monitor<String> = Monitor::builder("shards").interval(Duration::from_secs(5)).fall(2).build()?;
/// assert_eq!(monitor.config().fall, 2);
/// # Ok::<_, mainstay::InvalidConfig>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct MonitorBuilder {
    name: Name,
    config: MonitorConfig,
    listener: Option<Arc<dyn Listener>>,
}

// === impl MonitorBuilder ===

macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $value:literal => $into:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Examples
        ///
        /// ```
        /// use std::time::Duration;
        /// use mainstay::health::Monitor;
        ///
        #[doc = concat!("let builder = Monitor::builder(\"upstreams\").", stringify!($field), "(", $value, ");")]
        /// # let _ = builder;
        /// ```
        pub fn $field(mut self, $field: $type) -> Self {
            self.config.$field = $into;
            self
        }
    )*};
}

impl MonitorBuilder {
    pub(crate) fn new(name: Name) -> Self {
        Self { name, config: MonitorConfig::default(), listener: None }
    }

    setters! {
        /// Sets [`MonitorConfig::interval`].
        interval: Duration = "Duration::from_secs(5)" => interval;
        /// Sets [`MonitorConfig::fast_interval`].
        fast_interval: Duration = "Duration::from_millis(200)" => Some(fast_interval);
        /// Sets [`MonitorConfig::down_interval`].
        down_interval: Duration = "Duration::from_secs(10)" => Some(down_interval);
        /// Sets [`MonitorConfig::timeout`].
        timeout: Duration = "Duration::from_millis(500)" => timeout;
        /// Sets [`MonitorConfig::jitter`].
        jitter: f64 = "0.2" => jitter;
        /// Sets [`MonitorConfig::rise`].
        rise: u32 = "1" => rise;
        /// Sets [`MonitorConfig::fall`].
        fall: u32 = "2" => fall;
        /// Sets [`MonitorConfig::first_result_decides`].
        first_result_decides: bool = "false" => first_result_decides;
        /// Sets [`MonitorConfig::answer_decides`].
        answer_decides: bool = "false" => answer_decides;
    }

    /// Sets all settings at once; those set before are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::{Monitor, MonitorConfig};
    ///
    /// let builder = Monitor::builder("upstreams").config(MonitorConfig::default());
    /// # let _ = builder;
    /// ```
    pub fn config(mut self, config: MonitorConfig) -> Self {
        self.config = config;
        self
    }

    /// Tells `listener` of every change of a status.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    /// use mainstay::telemetry::Event;
    ///
    /// let builder = Monitor::builder("upstreams").listener(|event: &Event<'_>| eprintln!("{event}"));
    /// # let _ = builder;
    /// ```
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// The monitor: without targets, and not started.
    ///
    /// # Errors
    ///
    /// When the configuration is [not valid](MonitorConfig::validate).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::Monitor;
    ///
    /// let built: Result<Monitor<&str>, _> = Monitor::builder("upstreams").rise(0).build();
    /// assert_eq!(built.unwrap_err().field(), "rise");
    /// ```
    pub fn build<K: Key>(self) -> Result<Monitor<K>, InvalidConfig> {
        self.config.validate().map_err(|error| error.of_layer(self.name.clone()))?;
        Ok(Monitor::with(Shared::new(self.name, self.config, self.listener)))
    }
}

impl fmt::Debug for MonitorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorBuilder").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}
