//! [`Fixed`] and [`Computed`]: where the timeout of a call comes from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Every call has the timeout that is configured; what a [`TimeoutLayer`](super::TimeoutLayer) does unless told otherwise.
///
/// # Examples
///
/// ```
/// use mainstay::timeout::{Fixed, TimeoutConfig, TimeoutLayer};
///
/// let layer: TimeoutLayer<Fixed> = TimeoutLayer::new("orders", TimeoutConfig::default())?;
/// # let _ = layer;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Fixed {
    _private: (),
}

/// A function computes the timeout of each call from its request; see
/// [`TimeoutBuilder::computed`](super::TimeoutBuilder::computed).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::timeout::{Computed, TimeoutConfig, TimeoutLayer};
///
/// let by_length = |request: &String| Some(Duration::from_millis(request.len() as u64));
/// let layer: TimeoutLayer<Computed<_>> = TimeoutLayer::computed("parse", TimeoutConfig::default(), by_length)?;
/// # let _ = layer;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
pub struct Computed<F> {
    compute: Arc<F>,
}

/// Where the timeout of a call comes from: [`Fixed`], or [`Computed`] from the request. Implemented for these two only.
///
/// # Examples
///
/// ```
/// use mainstay::timeout::{Fixed, TimeoutSource};
///
/// fn is_source<Req, T: TimeoutSource<Req>>() {}
/// is_source::<String, Fixed>();
/// ```
#[diagnostic::on_unimplemented(
    message = "the timeout of a `{Req}` cannot be computed by `{Self}`",
    note = "`computed` takes a function `Fn(&{Req}) -> Option<Duration>` of the very request that the service is called with"
)]
pub trait TimeoutSource<Req>: sealed::Source<Req> {}

impl<Req, T: sealed::Source<Req>> TimeoutSource<Req> for T {}

pub(super) mod sealed {
    use super::Duration;

    pub trait Source<Req> {
        /// Whether the timeout can be zero, which has a call refused.
        const CAN_BE_ZERO: bool;

        /// `None` is the configured one.
        fn timeout(&self, request: &Req) -> Option<Duration>;
    }
}

// === impl Fixed ===

impl Fixed {
    pub(super) const fn new() -> Self {
        Self { _private: () }
    }
}

impl<Req> sealed::Source<Req> for Fixed {
    const CAN_BE_ZERO: bool = false;

    #[inline]
    fn timeout(&self, _: &Req) -> Option<Duration> {
        None
    }
}

// === impl Computed ===

impl<F> Computed<F> {
    pub(super) fn new(compute: F) -> Self {
        Self { compute: Arc::new(compute) }
    }
}

impl<Req, F> sealed::Source<Req> for Computed<F>
where
    F: Fn(&Req) -> Option<Duration>,
{
    const CAN_BE_ZERO: bool = true;

    #[inline]
    fn timeout(&self, request: &Req) -> Option<Duration> {
        (self.compute)(request)
    }
}

impl<F> Clone for Computed<F> {
    fn clone(&self) -> Self {
        Self { compute: self.compute.clone() }
    }
}

impl<F> fmt::Debug for Computed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed").finish_non_exhaustive()
    }
}
