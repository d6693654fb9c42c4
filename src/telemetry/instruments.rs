//! Counters, gauges and histograms: our own atomics first, the recorder of the `metrics` facade second.
//!
//! The recorder's handles are resolved once: those of counters and histograms on first use, those of gauges when they are made.
//! Everything is exported as a change (an increment), so that several instruments of one name and metric add up.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::names;
use crate::cores::counters::StripedCounters;
use crate::name::Name;

/// Counts, one for each value of a label.
#[derive(Debug)]
pub(crate) struct Tally<const N: usize> {
    counters: StripedCounters<N>,
    #[cfg(feature = "metrics")]
    exported: recorder::Counters<N>,
}

/// The sum of many [`Tally`]s of the same metric, each of which counts for itself too.
#[derive(Debug)]
pub(crate) struct TallySum<const N: usize> {
    counters: Arc<StripedCounters<N>>,
    #[cfg(feature = "metrics")]
    exported: Arc<recorder::Counters<N>>,
}

/// One gauge per state, with the number of layers of one name that are in it. A layer adds itself to the gauge of its state, and
/// takes itself off when the state changes or the layer is dropped.
#[derive(Debug)]
pub(crate) struct StateGauges<const N: usize> {
    current: AtomicUsize,
    #[cfg(feature = "metrics")]
    exported: recorder::Gauges<N>,
}

/// A level that goes up and down. The gauge shows the sum over all levels of one name; a level that is dropped leaves it.
#[derive(Debug)]
pub(crate) struct Level {
    bits: AtomicU64,
    #[cfg(feature = "metrics")]
    exported: recorder::Gauges<1>,
}

/// A distribution of durations, in seconds.
#[derive(Debug)]
pub(crate) struct Durations {
    #[cfg(feature = "metrics")]
    exported: recorder::Histogram,
}

// === impl Tally ===

impl<const N: usize> Tally<N> {
    /// Counters of `metric`, for the layer `name`, one for each of the `values` of `label`.
    pub(crate) fn new(name: &Name, metric: &'static str, label: &'static str, values: [&'static str; N]) -> Self {
        debug_assert!(
            names::find(metric).is_some_and(|metric| metric.labels == ["name", label]),
            "{metric}{{{label}}}"
        );
        #[cfg(not(feature = "metrics"))]
        let _ = (name, values);
        Self {
            counters: StripedCounters::new(),
            #[cfg(feature = "metrics")]
            exported: recorder::Counters::new(recorder::Labels::new(name, metric, Some(label)), values),
        }
    }

    /// Counts one more of the value at `which`.
    #[inline(always)]
    pub(crate) fn add(&self, which: usize) {
        #[cfg(feature = "metrics")]
        {
            self.counters.add(which);
            self.exported.get()[which].increment(1);
        }
        #[cfg(not(feature = "metrics"))]
        self.counters.add(which);
    }

    /// The count of the value at `which`.
    pub(crate) fn get(&self, which: usize) -> u64 {
        self.counters.get(which)
    }

    /// All counts, in the order of the values.
    pub(crate) fn all(&self) -> [u64; N] {
        self.counters.all()
    }
}

// === impl TallySum ===

impl<const N: usize> TallySum<N> {
    /// As of [`Tally::new`].
    pub(crate) fn new(name: &Name, metric: &'static str, label: &'static str, values: [&'static str; N]) -> Self {
        let Tally {
            counters,
            #[cfg(feature = "metrics")]
            exported,
        } = Tally::new(name, metric, label, values);
        Self {
            counters: Arc::new(counters),
            #[cfg(feature = "metrics")]
            exported: Arc::new(exported),
        }
    }

    /// One more that counts into the sum: small, and resolved by it.
    pub(crate) fn part(&self) -> Tally<N> {
        Tally {
            counters: StripedCounters::part_of(self.counters.clone()),
            #[cfg(feature = "metrics")]
            exported: recorder::Counters::part_of(self.exported.clone()),
        }
    }

    /// All counts, in the order of the values: those of parts that are gone are among them.
    pub(crate) fn all(&self) -> [u64; N] {
        self.counters.all()
    }
}

// === impl StateGauges ===

impl<const N: usize> StateGauges<N> {
    /// Gauges of `metric`, for the layer `name`, one for each of the `values` of `label`; the one at `current` holds.
    pub(crate) fn new(
        name: &Name,
        metric: &'static str,
        label: &'static str,
        values: [&'static str; N],
        current: usize,
    ) -> Self {
        debug_assert!(
            names::find(metric).is_some_and(|metric| metric.labels == ["name", label]),
            "{metric}{{{label}}}"
        );
        #[cfg(not(feature = "metrics"))]
        let _ = (name, values);
        let gauges = Self {
            current: AtomicUsize::new(current),
            #[cfg(feature = "metrics")]
            exported: recorder::Gauges::new(recorder::Labels::new(name, metric, Some(label)), values),
        };
        #[cfg(feature = "metrics")]
        for (which, gauge) in gauges.exported.get().iter().enumerate() {
            gauge.increment(if which == current { 1.0 } else { 0.0 });
        }
        gauges
    }

    /// The state at `which` holds from now on. The caller serializes changes.
    pub(crate) fn set(&self, which: usize) {
        let before = self.current.swap(which, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        if before != which {
            let gauges = self.exported.get();
            gauges[before].decrement(1.0);
            gauges[which].increment(1.0);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = before;
    }
}

#[cfg(feature = "metrics")]
impl<const N: usize> Drop for StateGauges<N> {
    fn drop(&mut self) {
        self.exported.get()[*self.current.get_mut()].decrement(1.0);
    }
}

// === impl Level ===

impl Level {
    /// The gauge `metric` of the layer `name`, at 0.
    pub(crate) fn new(name: &Name, metric: &'static str) -> Self {
        debug_assert!(names::find(metric).is_some_and(|metric| metric.labels == ["name"]), "{metric}");
        #[cfg(not(feature = "metrics"))]
        let _ = name;
        let level = Self {
            bits: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            exported: recorder::Gauges::new(recorder::Labels::new(name, metric, None), [""]),
        };
        level.change(0.0);
        level
    }

    pub(crate) fn set(&self, level: f64) {
        // Each change is from what the last one left, whichever thread made it.
        let before = f64::from_bits(self.bits.swap(level.to_bits(), Ordering::Relaxed));
        self.change(level - before);
    }

    fn change(&self, by: f64) {
        #[cfg(feature = "metrics")]
        self.exported.get()[0].increment(by);
        #[cfg(not(feature = "metrics"))]
        let _ = by;
    }
}

#[cfg(feature = "metrics")]
impl Drop for Level {
    fn drop(&mut self) {
        self.set(0.0);
    }
}

// === impl Durations ===

impl Durations {
    /// The histogram `metric` of the layer `name`.
    pub(crate) fn new(name: &Name, metric: &'static str) -> Self {
        debug_assert!(names::find(metric).is_some_and(|metric| metric.labels == ["name"]), "{metric}");
        #[cfg(not(feature = "metrics"))]
        let _ = name;
        Self {
            #[cfg(feature = "metrics")]
            exported: recorder::Histogram::new(recorder::Labels::new(name, metric, None)),
        }
    }

    #[inline]
    pub(crate) fn record(&self, duration: Duration) {
        #[cfg(feature = "metrics")]
        self.exported.record(duration);
        #[cfg(not(feature = "metrics"))]
        let _ = duration;
    }

    /// Whether a record goes anywhere: a layer that reads the clock for nothing else need not.
    pub(crate) const fn is_enabled() -> bool {
        cfg!(feature = "metrics")
    }
}

#[cfg(feature = "metrics")]
mod recorder {
    //! The handles of the installed recorder.

    use std::array;
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder};

    use super::names::{self, MetricKind};
    use crate::name::Name;

    static METADATA: Metadata<'static> = Metadata::new("mainstay", Level::INFO, None);

    /// The name and labels of a metric.
    #[derive(Debug)]
    pub(super) struct Labels {
        layer: Name,
        metric: &'static str,
        label: Option<&'static str>,
    }

    impl Labels {
        pub(super) fn new(layer: &Name, metric: &'static str, label: Option<&'static str>) -> Self {
            Self { layer: layer.clone(), metric, label }
        }

        fn key(&self, value: &'static str) -> Key {
            let mut labels = vec![Label::new("name", SharedString::from(self.layer.to_string()))];
            labels.extend(self.label.map(|label| Label::from_static_parts(label, value)));
            Key::from_parts(self.metric, labels)
        }

        fn describe(&self, recorder: &dyn Recorder) {
            if let Some(metric) = names::find(self.metric) {
                let name = KeyName::from_const_str(metric.name);
                let description = SharedString::const_str(metric.description);
                match metric.kind {
                    MetricKind::Counter => recorder.describe_counter(name, Some(Unit::Count), description),
                    MetricKind::Gauge => recorder.describe_gauge(name, None, description),
                    MetricKind::Histogram => recorder.describe_histogram(name, Some(Unit::Seconds), description),
                }
            }
        }
    }

    #[derive(Debug)]
    pub(super) struct Counters<const N: usize> {
        source: Source<N>,
        handles: OnceLock<[Counter; N]>,
    }

    /// Where the handles come from.
    #[derive(Debug)]
    enum Source<const N: usize> {
        Recorder {
            labels: Labels,
            values: [&'static str; N],
        },
        /// The sum that these counters are a part of.
        Sum(Arc<Counters<N>>),
    }

    impl<const N: usize> Counters<N> {
        pub(super) const fn new(labels: Labels, values: [&'static str; N]) -> Self {
            Self { source: Source::Recorder { labels, values }, handles: OnceLock::new() }
        }

        pub(super) const fn part_of(sum: Arc<Self>) -> Self {
            Self { source: Source::Sum(sum), handles: OnceLock::new() }
        }

        #[inline]
        pub(super) fn get(&self) -> &[Counter; N] {
            self.handles.get_or_init(|| self.resolve())
        }

        #[cold]
        fn resolve(&self) -> [Counter; N] {
            match &self.source {
                Source::Recorder { labels, values } => with_recorder(|recorder| {
                    labels.describe(recorder);
                    array::from_fn(|which| recorder.register_counter(&labels.key(values[which]), &METADATA))
                }),
                Source::Sum(sum) => sum.get().clone(),
            }
        }
    }

    #[derive(Debug)]
    pub(super) struct Gauges<const N: usize> {
        labels: Labels,
        values: [&'static str; N],
        handles: OnceLock<[Gauge; N]>,
    }

    impl<const N: usize> Gauges<N> {
        pub(super) const fn new(labels: Labels, values: [&'static str; N]) -> Self {
            Self { labels, values, handles: OnceLock::new() }
        }

        pub(super) fn get(&self) -> &[Gauge; N] {
            self.handles.get_or_init(|| {
                with_recorder(|recorder| {
                    self.labels.describe(recorder);
                    array::from_fn(|which| recorder.register_gauge(&self.labels.key(self.values[which]), &METADATA))
                })
            })
        }
    }

    #[derive(Debug)]
    pub(super) struct Histogram {
        labels: Labels,
        handle: OnceLock<metrics::Histogram>,
    }

    impl Histogram {
        pub(super) const fn new(labels: Labels) -> Self {
            Self { labels, handle: OnceLock::new() }
        }

        #[inline]
        pub(super) fn record(&self, duration: Duration) {
            let resolve = || {
                with_recorder(|recorder| {
                    self.labels.describe(recorder);
                    recorder.register_histogram(&self.labels.key(""), &METADATA)
                })
            };
            self.handle.get_or_init(resolve).record(duration.as_secs_f64());
        }
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    /// What is exported for this name, by labels.
    fn exported(recorder: &DebuggingRecorder, name: &str) -> Vec<(String, DebugValue)> {
        let entries = recorder.snapshotter().snapshot().into_vec().into_iter();
        let mut exported: Vec<_> = entries
            .filter(|(key, ..)| key.key().labels().any(|label| label.value() == name))
            .map(|(key, _, description, value)| {
                assert!(description.is_some());
                let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
                (labels.join(" "), value)
            })
            .collect();
        exported.sort_by(|one, other| one.0.cmp(&other.0));
        exported
    }

    #[test]
    fn counts_of_several_instruments_of_one_name_add_up() {
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, || {
            let new = || Tally::<2>::new(&Name::from("both"), names::CALLS, "outcome", ["success", "refused"]);
            let (one, other) = (new(), new());
            one.add(0);
            one.add(1);
            (0..3).for_each(|_| other.add(0));
            assert_eq!((one.all(), other.all()), ([1, 1], [3, 0]));
        });
        let counts =
            [("both refused".to_owned(), DebugValue::Counter(1)), ("both success".to_owned(), DebugValue::Counter(4))];
        assert_eq!(exported(&recorder, "both"), counts);
    }

    #[test]
    fn levels_of_one_name_add_up_and_leave_when_they_are_dropped() {
        let recorder = DebuggingRecorder::new();
        // A look takes the gauge back to zero.
        let mut level = 0.0;
        let mut shown = || {
            let DebugValue::Gauge(change) = exported(&recorder, "pool").remove(0).1 else { panic!("it is a gauge") };
            level += change.into_inner();
            level
        };
        metrics::with_local_recorder(&recorder, || {
            let new = || Level::new(&Name::from("pool"), names::BALANCE_ENDPOINTS);
            let (one, other) = (new(), new());
            assert_eq!(shown(), 0.0, "shown before the first change");
            one.set(3.0);
            other.set(4.0);
            one.set(1.0);
            assert_eq!(shown(), 5.0);
            drop(other);
            assert_eq!(shown(), 1.0);
        });
    }

    #[test]
    fn a_recorder_that_is_installed_after_the_first_count_gets_nothing_of_that_instrument() {
        let recorder = DebuggingRecorder::new();
        let tally = Tally::<2>::new(&Name::from("early"), names::CALLS, "outcome", ["success", "refused"]);
        tally.add(0);
        metrics::with_local_recorder(&recorder, || tally.add(0));
        assert!(exported(&recorder, "early").is_empty());
        assert_eq!(tally.all(), [2, 0], "its own count is exact");
    }
}
