//! What operators see: events, counts, metrics and spans, and the one place that knows their names.
//!
//! Three ways to look, from the cheapest:
//!
//! * **Statistics**: every layer counts in its own atomics, striped by thread; its handle reads them at any time. Nothing
//!   needs to be installed.
//! * **Metrics** (feature `metrics`): the same counts go to the recorder of the `metrics` facade,
//!   under the names in [`METRICS`]. **Install the recorder before the layers are built**: each layer looks it up once, for its
//!   gauges when it is built and for its counters when it first counts. A layer that found none exports nothing from then on;
//!   its statistics stay exact. Layers, pools and caches of one name add up: counters and histograms hold the calls of all of
//!   them, gauges the sum of their levels, and what is dropped leaves the sum.
//! * **Events**: rare things (a state change, a retry, an ejection) are [`Event`]s for a [`Listener`]; with the feature
//!   `tracing` they are also `tracing` events with the target `mainstay`. Nothing is built when nobody listens.
//!
//! [`TelemetryLayer`] is the outermost layer of a stack: it counts calls by outcome, measures their duration and opens a span.
//!
//! Labels are only ever values that the operator chose (names of layers) or that this crate lists (states, outcomes): never
//! something that comes from outside.
//!
//! # Examples
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use mainstay::telemetry::{Event, Listener};
//!
//! let seen = Arc::new(AtomicU32::new(0));
//! let counter = seen.clone();
//! // Any closure over an `&Event` is a listener; hand it to a layer's builder.
//! let listener = move |event: &Event<'_>| {
//!     eprintln!("{event}");
//!     counter.fetch_add(1, Ordering::Relaxed);
//! };
//! fn is_listener(_: &impl Listener) {}
//! is_listener(&listener);
//! ```

mod emitter;
pub mod event;
mod future;
mod instruments;
mod layer;
pub(crate) mod names;
mod service;
#[cfg(feature = "tracing")]
mod tracing;

pub use event::Event;
pub use future::ResponseFuture;
pub use layer::TelemetryLayer;
pub use names::{METRICS, Metric, MetricKind};
pub use service::{Telemetry, TelemetryHandle, TelemetryStatistics};

#[allow(unused_imports, reason = "used by the families, each behind its feature")]
pub(crate) use emitter::Emitter;
#[allow(unused_imports, reason = "used by the families, each behind its feature")]
pub(crate) use instruments::{Durations, Level, StateGauges, Tally, TallySum};

/// Hears of the events of the layers that it was given to.
///
/// Closures `Fn(&Event<'_>)` are listeners. A listener runs on the calling task and must be quick; a panic in it is caught
/// and changes nothing for the call (the panic hook has reported it).
///
/// # Examples
///
/// ```
/// use mainstay::telemetry::{Event, Listener};
///
/// struct Print;
///
/// impl Listener for Print {
///     fn on_event(&self, event: &Event<'_>) {
///         println!("{}: {event}", event.name());
///     }
/// }
/// ```
pub trait Listener: Send + Sync + 'static {
    /// Something happened.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::telemetry::{Event, Listener};
    ///
    /// fn tell_both(first: &dyn Listener, second: &dyn Listener, event: &Event<'_>) {
    ///     first.on_event(event);
    ///     second.on_event(event);
    /// }
    /// # let _ = tell_both;
    /// ```
    fn on_event(&self, event: &Event<'_>);
}

impl<F> Listener for F
where
    F: Fn(&Event<'_>) + Send + Sync + 'static,
{
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}
