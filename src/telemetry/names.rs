//! The names of all metrics: prefix `mainstay_`, base units, `_seconds`, `_total`.

/// One metric that this crate publishes.
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::{METRICS, MetricKind};
///
/// let calls = METRICS.iter().find(|metric| metric.name == "mainstay_calls_total").unwrap();
/// assert_eq!(calls.kind, MetricKind::Counter);
/// assert_eq!(calls.labels, ["name", "outcome"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Whether it counts, shows a level, or collects a distribution.
    pub kind: MetricKind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it tells, in one line.
    pub description: &'static str,
}

/// The kind of a [`Metric`].
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::{METRICS, MetricKind};
///
/// assert!(METRICS.iter().all(|metric| (metric.kind == MetricKind::Counter) == metric.name.ends_with("_total")));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, in seconds.
    Histogram,
}

/// Every metric that this crate publishes, for dashboards and documentation.
///
/// # Examples
///
/// ```
/// for metric in mainstay::telemetry::METRICS {
///     println!("{} {:?} {:?}: {}", metric.name, metric.kind, metric.labels, metric.description);
/// }
/// ```
pub const METRICS: &[Metric] = &[
    counter(CALLS, &["name", "outcome"], "Calls that ended, by what they ended in."),
    counter(REJECTIONS, &["name", "reason"], "Calls that a layer of this crate refused, by reason."),
    histogram(CALL_DURATION, &["name"], "How long calls took to the head of their answer."),
    counter(
        CIRCUIT_BREAKER_CALLS,
        &["name", "outcome"],
        "Calls that a circuit breaker saw end, by what they ended in.",
    ),
    counter(
        CIRCUIT_BREAKER_WAITS,
        &["name", "outcome"],
        "Waits for a circuit that ended, by how; calls that found its queue full are among them.",
    ),
    counter(CIRCUIT_BREAKER_TRANSITIONS, &["name", "to"], "Changes of a circuit breaker's state, by the new state."),
    counter(
        CIRCUIT_BREAKER_OBSERVED,
        &["name", "would_have"],
        "What an observing circuit breaker would have done: openings, and rejected calls.",
    ),
    gauge(CIRCUIT_BREAKER_STATE, &["name", "state"], "Circuit breakers in each state."),
    gauge(CIRCUIT_BREAKER_KEYS, &["name"], "Keys for which a keyed circuit breaker keeps a breaker of their own."),
    counter(
        CIRCUIT_BREAKER_KEY_EVENTS,
        &["name", "event"],
        "Breakers of keys made, evicted and removed, and calls for which there was no room for one.",
    ),
    counter(RETRY_CALLS, &["name", "outcome"], "Calls through a retry, by how they ended."),
    counter(RETRIES, &["name", "cause"], "Attempts beyond the first, by what caused them."),
    counter(TIMEOUTS, &["name", "cause"], "Calls that a timeout cut off or did not send, by cause."),
    counter(CACHE_CALLS, &["name", "result"], "Calls of a cache, by how they were served."),
    counter(CACHE_STALE, &["name", "reason"], "Old answers that a cache served, by reason."),
    counter(CACHE_LOADS, &["name", "outcome"], "Loads of a cache, by what came of their answer."),
    counter(CACHE_REFRESHES, &["name", "outcome"], "Loads that ran behind an old answer, by what came of them."),
    counter(CACHE_ERRORS, &["name", "reason"], "Operations that the store of a cache did not do, by reason."),
    gauge(CACHE_LOADING, &["name"], "Loads of a cache that run now."),
    histogram(CACHE_LOAD_DURATION, &["name"], "How long loads of a cache took."),
    counter(BALANCE_CALLS, &["name", "outcome"], "Calls to a pool that ended, by what they ended in."),
    counter(BALANCE_REPICKS, &["name", "reason"], "Picks that replaced an earlier one of the same call."),
    counter(BALANCE_EJECTIONS, &["name", "reason"], "Endpoints ejected."),
    gauge(BALANCE_ENDPOINTS, &["name"], "Endpoints of a pool."),
    gauge(BALANCE_USABLE, &["name"], "Endpoints of a pool that calls go to."),
    gauge(BALANCE_PANIC, &["name"], "Pools that use all endpoints because too few are healthy."),
    counter(HEALTH_CHECKS, &["name", "outcome"], "Health checks that ended, by what they ended in."),
    gauge(HEALTH_TARGETS, &["name"], "Targets of a health monitor."),
    gauge(HEALTH_TARGETS_UNHEALTHY, &["name"], "Targets of a health monitor that are unhealthy."),
    gauge(HEALTH_TARGETS_UNKNOWN, &["name"], "Targets of a health monitor of which nothing is known."),
];

pub(crate) const CALLS: &str = "mainstay_calls_total";
pub(crate) const REJECTIONS: &str = "mainstay_rejections_total";
pub(crate) const CALL_DURATION: &str = "mainstay_call_duration_seconds";
pub(crate) const CIRCUIT_BREAKER_CALLS: &str = "mainstay_circuit_breaker_calls_total";
pub(crate) const CIRCUIT_BREAKER_WAITS: &str = "mainstay_circuit_breaker_waits_total";
pub(crate) const CIRCUIT_BREAKER_TRANSITIONS: &str = "mainstay_circuit_breaker_transitions_total";
pub(crate) const CIRCUIT_BREAKER_OBSERVED: &str = "mainstay_circuit_breaker_observed_total";
pub(crate) const CIRCUIT_BREAKER_STATE: &str = "mainstay_circuit_breaker_state";
pub(crate) const CIRCUIT_BREAKER_KEYS: &str = "mainstay_circuit_breaker_keys";
pub(crate) const CIRCUIT_BREAKER_KEY_EVENTS: &str = "mainstay_circuit_breaker_key_events_total";
pub(crate) const BALANCE_CALLS: &str = "mainstay_balance_calls_total";
pub(crate) const BALANCE_REPICKS: &str = "mainstay_balance_repicks_total";
pub(crate) const BALANCE_EJECTIONS: &str = "mainstay_balance_ejections_total";
pub(crate) const BALANCE_ENDPOINTS: &str = "mainstay_balance_endpoints";
pub(crate) const BALANCE_USABLE: &str = "mainstay_balance_endpoints_usable";
pub(crate) const BALANCE_PANIC: &str = "mainstay_balance_panic";

pub(crate) const RETRY_CALLS: &str = "mainstay_retry_calls_total";
pub(crate) const RETRIES: &str = "mainstay_retries_total";
pub(crate) const TIMEOUTS: &str = "mainstay_timeouts_total";
pub(crate) const HEALTH_CHECKS: &str = "mainstay_health_checks_total";
pub(crate) const HEALTH_TARGETS: &str = "mainstay_health_targets";
pub(crate) const HEALTH_TARGETS_UNHEALTHY: &str = "mainstay_health_targets_unhealthy";
pub(crate) const HEALTH_TARGETS_UNKNOWN: &str = "mainstay_health_targets_unknown";

// The cache's.
pub(crate) const CACHE_CALLS: &str = "mainstay_cache_calls_total";
pub(crate) const CACHE_STALE: &str = "mainstay_cache_stale_total";
pub(crate) const CACHE_LOADS: &str = "mainstay_cache_loads_total";
pub(crate) const CACHE_REFRESHES: &str = "mainstay_cache_refreshes_total";
pub(crate) const CACHE_ERRORS: &str = "mainstay_cache_errors_total";
pub(crate) const CACHE_LOADING: &str = "mainstay_cache_loads_in_flight";
pub(crate) const CACHE_LOAD_DURATION: &str = "mainstay_cache_load_duration_seconds";

const fn counter(name: &'static str, labels: &'static [&'static str], description: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, description }
}

#[allow(dead_code, reason = "used by the families, each behind its feature")]
const fn gauge(name: &'static str, labels: &'static [&'static str], description: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels, description }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], description: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, labels, description }
}

/// The entry of `name`; asserted by every instrument in debug builds, so that no metric stays unlisted.
#[allow(dead_code, reason = "only asked in debug builds and with the feature `metrics`")]
pub(crate) fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for metric in METRICS {
            let name = metric.name;
            assert!(name.starts_with("mainstay_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), metric.kind == MetricKind::Histogram, "{name}");
            assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{name}");
            assert_eq!(metric.labels.first(), Some(&"name"), "{name}");
            assert_eq!(METRICS.iter().filter(|other| other.name == name).count(), 1, "{name} is listed twice");
        }
    }
}
