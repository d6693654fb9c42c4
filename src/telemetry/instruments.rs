//! Counters, gauges and histograms: our own atomics first, the recorder of the `metrics` facade second.
//!
//! The recorder's handles are resolved once, on first use. [`resolve`] makes every instrument resolve them again, for a
//! recorder that was installed late: counters then start from what was counted so far. Gauges add up: each layer adds what
//! changed, so a recorder has to be installed before the layers are built.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::names;
use crate::cores::counters::StripedCounters;
use crate::name::Name;

#[cfg(feature = "metrics")]
pub use recorder::resolve;

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

/// A level that goes up and down: one gauge, to which every layer of one name adds its share. A layer that is dropped takes its
/// share off.
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
            // Resolved before it is counted: the first resolution may publish the count so far.
            let handles = self.exported.get(|| self.counters.all());
            self.counters.add(which);
            handles[which].increment(1);
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
            exported: recorder::Counters::part_of(self.exported.clone(), self.counters.clone()),
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
        // The recorder shows it from here on.
        level.set(0.0);
        level
    }

    pub(crate) fn set(&self, level: f64) {
        let before = f64::from_bits(self.bits.swap(level.to_bits(), Ordering::Relaxed));
        #[cfg(feature = "metrics")]
        self.exported.get()[0].increment(level - before);
        #[cfg(not(feature = "metrics"))]
        let _ = before;
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
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder};

    use super::names::{self, MetricKind};
    use crate::cores::counters::StripedCounters;
    use crate::name::Name;

    static METADATA: Metadata<'static> = Metadata::new("mainstay", Level::INFO, None);

    /// How often [`resolve`] was called.
    static EPOCH: AtomicU64 = AtomicU64::new(0);

    /// Makes every layer resolve its metrics handles again: call it once after installing a recorder late.
    ///
    /// Handles are resolved on a layer's first call. A layer that was called before the recorder was installed holds handles
    /// that lead nowhere; after this it publishes to the recorder, its counters starting from all that it has counted. Under
    /// traffic the calls that are being counted at that moment may be missing from the recorder, or be there twice; the
    /// layers' own statistics stay exact.
    ///
    /// # Examples
    ///
    /// ```
    /// // install the recorder of your choice, then:
    /// mainstay::telemetry::resolve();
    /// ```
    pub fn resolve() {
        EPOCH.fetch_add(1, Ordering::Relaxed);
    }

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
        handles: Resolved<[Counter; N]>,
    }

    /// Where the handles come from.
    #[derive(Debug)]
    enum Source<const N: usize> {
        /// The recorder.
        Recorder { labels: Labels, values: [&'static str; N] },
        /// The sum that these counters are a part of, and what that has counted.
        Sum(Arc<Counters<N>>, Arc<StripedCounters<N>>),
    }

    impl<const N: usize> Counters<N> {
        pub(super) const fn new(labels: Labels, values: [&'static str; N]) -> Self {
            Self { source: Source::Recorder { labels, values }, handles: Resolved::new() }
        }

        pub(super) const fn part_of(sum: Arc<Self>, counters: Arc<StripedCounters<N>>) -> Self {
            Self { source: Source::Sum(sum, counters), handles: Resolved::new() }
        }

        /// The handles; resolved anew, they start from `so_far`.
        #[inline]
        pub(super) fn get(&self, so_far: impl FnOnce() -> [u64; N]) -> &[Counter; N] {
            self.handles.get(|| match &self.source {
                Source::Recorder { labels, values } => {
                    let so_far = so_far();
                    with_recorder(|recorder| {
                        labels.describe(recorder);
                        array::from_fn(|which| {
                            let counter = recorder.register_counter(&labels.key(values[which]), &METADATA);
                            if so_far[which] > 0 {
                                counter.absolute(so_far[which]);
                            }
                            counter
                        })
                    })
                }
                Source::Sum(sum, counters) => sum.get_dyn(&|| counters.all()).clone(),
            })
        }

        /// The same, of one type: a sum can be a part of another.
        fn get_dyn(&self, so_far: &dyn Fn() -> [u64; N]) -> &[Counter; N] {
            self.get(so_far)
        }
    }

    #[derive(Debug)]
    pub(super) struct Gauges<const N: usize> {
        labels: Labels,
        values: [&'static str; N],
        handles: Resolved<[Gauge; N]>,
    }

    impl<const N: usize> Gauges<N> {
        pub(super) const fn new(labels: Labels, values: [&'static str; N]) -> Self {
            Self { labels, values, handles: Resolved::new() }
        }

        pub(super) fn get(&self) -> &[Gauge; N] {
            self.handles.get(|| {
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
        handle: Resolved<metrics::Histogram>,
    }

    impl Histogram {
        pub(super) const fn new(labels: Labels) -> Self {
            Self { labels, handle: Resolved::new() }
        }

        #[inline]
        pub(super) fn record(&self, duration: Duration) {
            let resolve = || {
                with_recorder(|recorder| {
                    self.labels.describe(recorder);
                    recorder.register_histogram(&self.labels.key(""), &METADATA)
                })
            };
            self.handle.get(resolve).record(duration.as_secs_f64());
        }
    }

    /// A value that is made on first use, and made anew after each [`resolve`].
    ///
    /// A list that grows by one node a `resolve` instead of a lock: what was handed out stays valid, and a read is a load and
    /// a comparison. Recorders are installed once or twice in a process's life.
    #[derive(Debug)]
    struct Resolved<T> {
        first: OnceLock<Node<T>>,
    }

    #[derive(Debug)]
    struct Node<T> {
        epoch: u64,
        value: T,
        next: OnceLock<Box<Self>>,
    }

    impl<T> Resolved<T> {
        const fn new() -> Self {
            Self { first: OnceLock::new() }
        }

        #[inline]
        fn get(&self, resolve: impl FnOnce() -> T) -> &T {
            let epoch = EPOCH.load(Ordering::Relaxed);
            match self.first.get() {
                Some(node) if node.epoch == epoch => &node.value,
                _ => self.get_slow(epoch, resolve),
            }
        }

        #[cold]
        #[inline(never)]
        fn get_slow(&self, epoch: u64, resolve: impl FnOnce() -> T) -> &T {
            let mut resolve = Some(resolve);
            let mut make = || {
                // Only the end of the list is empty, so this runs once at most.
                let value = resolve.take().map(|resolve| resolve());
                Node { epoch, value: value.expect("resolved once"), next: OnceLock::new() }
            };
            let mut node = self.first.get_or_init(&mut make);
            while node.epoch < epoch {
                node = node.next.get_or_init(|| Box::new(make()));
            }
            &node.value
        }
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    /// One test: `resolve` is global, and would disturb others in the same process.
    #[test]
    fn counts_go_to_the_recorder_and_a_late_one_gets_all_of_them() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let tally: Tally<2> = Tally::new(&Name::from("late"), names::CALLS, "outcome", ["success", "refused"]);

        tally.add(0);
        tally.add(0);
        metrics::with_local_recorder(&recorder, || {
            tally.add(0);
            assert!(snapshotter.snapshot().into_vec().is_empty(), "resolved before, it leads nowhere");
            resolve();
            tally.add(0);
            tally.add(1);
        });
        assert_eq!(tally.all(), [4, 1]);

        let mut published: Vec<_> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .filter(|(key, ..)| key.key().labels().any(|label| label.value() == "late"))
            .map(|(key, _, description, value)| {
                let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
                (key.key().name().to_owned(), labels.join(" "), description.is_some(), value)
            })
            .collect();
        published.sort_by(|one, other| one.1.cmp(&other.1));
        let name = names::CALLS.to_owned();
        let expected = [
            (name.clone(), "late refused".to_owned(), true, DebugValue::Counter(1)),
            (name, "late success".to_owned(), true, DebugValue::Counter(4)),
        ];
        assert_eq!(published, expected);
    }
}
