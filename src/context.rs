//! The ambient context: what follows a request through every layer, whatever the request's type.
//!
//! A deadline, the number of the attempt, how critical the request is, and (between the layers) which endpoints the earlier
//! attempts of a retry went to.
//! It lives in a thread-local that a layer fills *around* each `call`, each `poll` and the drop of its inner future, the way
//! `tracing::Instrument` does it, and restores afterwards. Two futures polled by turns on one thread never see each other's.
//!
//! | field | set by | read by |
//! |---|---|---|
//! | [`deadline`](Context::deadline) | a total timeout, a caller's header | timeouts, retries, loads |
//! | [`propagated_deadline`](Context::propagated_deadline) | the deadline, attempt timeouts | headers |
//! | [`attempt`](Context::attempt) | retry | the service, telemetry, headers |
//! | [`criticality`](Context::criticality) | the application | limits and load shedding |
//! | endpoints tried, "an inner retry gave up" | pool, inner retry | pool, outer retry |
//!
//! A scope restores only the fields that are its own, so what an inner layer noted (endpoints tried, the mark of a retry that
//! gave up) flows back up to the layer that asked, also through a [`Context::scope`] between two layers. The mark belongs to
//! the result that the inner retry gave up with: an error that is a [`BoxError`](crate::BoxError) or a rejection is recognized, as
//! it is or as a source of another; any other result counts as marked if it comes in the same poll as the mark.
//!
//! # Boundaries
//!
//! A `tokio::spawn` and `tower::buffer` poll the work elsewhere and so lose the context. Carry it over by hand:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use std::time::Duration;
//! use mainstay::context::{self, Context};
//! use tokio::time::Instant;
//!
//! let deadline = Instant::now() + Duration::from_secs(1);
//! let seen = Context::new()
//!     .with_deadline(deadline)
//!     .scope(async {
//!         // `carry` takes the context of here along into the task.
//!         tokio::spawn(context::carry(async { context::current().deadline() })).await
//!     })
//!     .await;
//! assert_eq!(seen.unwrap(), Some(deadline));
//! # }
//! ```
//!
//! Work that is shared by several requests (a cache's flight, a refresh) runs under a context of its own, never under that of
//! whoever happens to poll it.

mod awaited;
mod scope;
mod spent;

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::error::Identities;

#[allow(unused_imports, reason = "used by the families, each behind its feature")]
pub(crate) use awaited::{is_last_poll, poll_awaited, record_awaited};
#[allow(unused_imports, reason = "used by the families, each behind its feature")]
pub(crate) use scope::{
    AttemptScope, ContextScope, DeadlineScope, FullScope, InScope, IsolatedScope, TimeoutScope, within,
};
#[allow(unused_imports, reason = "used by the families, each behind its feature")]
pub(crate) use spent::deadline_is_spent;

/// How much it matters that a request is answered, after the four levels of Google's *Site Reliability Engineering*
/// (chapter 21, "Criticality").
///
/// Ordered: what is less matters less. The default is [`Critical`](Self::Critical), as in that book.
///
/// # Examples
///
/// ```
/// use mainstay::context::Criticality;
///
/// assert!(Criticality::Sheddable < Criticality::CriticalPlus);
/// assert_eq!(Criticality::default().as_str(), "critical");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Criticality {
    /// Frequent partial and occasional full unavailability is expected.
    Sheddable,
    /// Partial unavailability is expected; batch work that can be retried minutes later.
    SheddablePlus,
    /// Users see it when it fails, but less than the most critical.
    #[default]
    Critical,
    /// Serious impact when it fails.
    CriticalPlus,
}

/// A snapshot of the ambient context, or one to run work under.
///
/// # Examples
///
/// ```
/// use mainstay::context::{self, Context, Criticality};
///
/// let background = Context::new().with_criticality(Criticality::Sheddable);
/// background.enter(|| assert_eq!(context::current().criticality(), Criticality::Sheddable));
/// assert_eq!(context::current().criticality(), Criticality::Critical);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    deadline: Option<Instant>,
    attempt_end: Option<Instant>,
    attempt: u32,
    criticality: Criticality,
}

pin_project! {
    /// A future that runs under a [`Context`]; see [`Context::scope`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner future, under the same context.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::context::{self, Context, Criticality};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let background = Context::new().with_criticality(Criticality::Sheddable);
    /// let criticality = background.scope(async { context::current().criticality() }).await;
    /// assert_eq!(criticality, Criticality::Sheddable);
    /// # }
    /// ```
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct Scoped<F> {
        #[pin]
        inner: InScope<ContextScope, F>,
    }
}

/// The context of the running code.
///
/// Outside of any scope: no deadline, attempt 0, [`Criticality::Critical`].
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::context::current().deadline(), None);
/// ```
#[must_use]
pub fn current() -> Context {
    Context {
        deadline: DEADLINE.get(),
        attempt_end: ATTEMPT_END.get(),
        attempt: ATTEMPT.get().number(),
        criticality: CRITICALITY.get(),
    }
}

/// The deadline of the running code, without the rest.
#[allow(dead_code, reason = "used by the families, each behind its feature")]
#[inline]
pub(crate) fn deadline() -> Option<Instant> {
    DEADLINE.get()
}

/// The nearer of `end` and the end of the attempt that the running code is part of.
#[allow(dead_code, reason = "used by the families, each behind its feature")]
#[inline]
pub(crate) fn nearer_attempt_end(end: Option<Instant>) -> Option<Instant> {
    nearer(end, ATTEMPT_END.get())
}

#[inline]
fn nearer(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Runs `future` under the context of here, wherever it is polled: for `tokio::spawn` and other boundaries.
///
/// # Cancel safety
///
/// That of `future`.
///
/// # Examples
///
/// ```
/// use mainstay::context::{self, Context, Criticality};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let task = Context::new()
///     .with_criticality(Criticality::Sheddable)
///     .enter(|| tokio::spawn(context::carry(async { context::current().criticality() })));
/// assert_eq!(task.await.unwrap(), Criticality::Sheddable);
/// # }
/// ```
pub fn carry<F: Future>(future: F) -> Scoped<F> {
    current().scope(future)
}

// === impl Criticality ===

impl Criticality {
    /// The name used in headers and labels: `sheddable`, `sheddable_plus`, `critical` or `critical_plus`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::context::Criticality::SheddablePlus.as_str(), "sheddable_plus");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::SheddablePlus => "sheddable_plus",
            Self::Critical => "critical",
            Self::CriticalPlus => "critical_plus",
        }
    }

    /// The level of that name; `None` for any other text.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::context::Criticality;
    ///
    /// assert_eq!(Criticality::from_name("critical_plus"), Some(Criticality::CriticalPlus));
    /// assert_eq!(Criticality::from_name("urgent"), None);
    /// ```
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sheddable, Self::SheddablePlus, Self::Critical, Self::CriticalPlus]
            .into_iter()
            .find(|level| level.as_str() == name)
    }
}

impl fmt::Display for Criticality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Context ===

impl Context {
    /// The empty context: no deadline, attempt 0, [`Criticality::Critical`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::context::{self, Context};
    ///
    /// assert_eq!(Context::new(), context::current());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { deadline: None, attempt_end: None, attempt: 0, criticality: Criticality::Critical }
    }

    /// The same, with this deadline (it may also be later than the one before).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::context::Context;
    /// use tokio::time::Instant;
    ///
    /// let now = Instant::now();
    /// assert_eq!(Context::new().with_deadline(now).deadline(), Some(now));
    /// ```
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same, as this attempt.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::context::Context::new().with_attempt(2).attempt(), 2);
    /// ```
    #[must_use]
    pub const fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The same, this critical.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::context::{Context, Criticality};
    ///
    /// let context = Context::new().with_criticality(Criticality::CriticalPlus);
    /// assert_eq!(context.criticality(), Criticality::CriticalPlus);
    /// ```
    #[must_use]
    pub const fn with_criticality(mut self, criticality: Criticality) -> Self {
        self.criticality = criticality;
        self
    }

    /// The point in time after which nobody waits for the answer.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::context::Context::new().deadline(), None);
    /// ```
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The point in time that a callee is given to answer: the nearer of the [`deadline`](Self::deadline) and the end of the
    /// attempt's timeout. `None` when there is neither.
    ///
    /// This is what headers pass on ([`PropagateLayer`](crate::http::PropagateLayer)). Layers in this process go by the deadline
    /// alone: the end of an attempt is no reason to give up the call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::{BoxError, TimeoutLayer, context};
    /// use tokio::time::Instant;
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
    /// let service = ServiceBuilder::new()
    ///     .layer(TimeoutLayer::total("users", Duration::from_secs(2))?)
    ///     .layer(TimeoutLayer::attempt("users", Duration::from_millis(500))?)
    ///     .service(service_fn(|()| async { Ok::<_, BoxError>(context::current()) }));
    /// let now = Instant::now();
    /// let context = service.oneshot(()).await?;
    /// assert_eq!(context.deadline(), Some(now + Duration::from_secs(2)));
    /// assert_eq!(context.propagated_deadline(), Some(now + Duration::from_millis(500)));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn propagated_deadline(&self) -> Option<Instant> {
        nearer(self.deadline, self.attempt_end)
    }

    /// What is left until the deadline: zero when it has passed, `None` when there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::context::Context;
    /// use tokio::time::Instant;
    ///
    /// let now = Instant::now();
    /// let context = Context::new().with_deadline(now + Duration::from_secs(2));
    /// assert_eq!(context.remaining(now), Some(Duration::from_secs(2)));
    /// assert_eq!(context.remaining(now + Duration::from_secs(9)), Some(Duration::ZERO));
    /// ```
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// The number of the attempt: 1 for the first try below a retry, 0 where no retry is above.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::context::current().attempt(), 0);
    /// ```
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How critical the request is.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::context::{Context, Criticality};
    ///
    /// assert_eq!(Context::new().criticality(), Criticality::Critical);
    /// ```
    #[must_use]
    pub const fn criticality(&self) -> Criticality {
        self.criticality
    }

    /// Runs `future` under this context: each poll, and its drop.
    ///
    /// # Cancel safety
    ///
    /// That of `future`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use mainstay::context::{self, Context};
    ///
    /// let attempt = Context::new().with_attempt(3).scope(async { context::current().attempt() }).await;
    /// assert_eq!(attempt, 3);
    /// # }
    /// ```
    pub fn scope<F: Future>(self, future: F) -> Scoped<F> {
        Scoped { inner: InScope::new(ContextScope(self), future) }
    }

    /// Runs `work` under this context.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::context::{self, Context};
    ///
    /// assert_eq!(Context::new().with_attempt(1).enter(|| context::current().attempt()), 1);
    /// ```
    pub fn enter<R>(self, work: impl FnOnce() -> R) -> R {
        within(&mut ContextScope(self), work)
    }
}

// === impl Scoped ===

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        self.project().inner.poll(cx)
    }
}

// === the thread-local and its scopes ===

// One by one, so that each access is a load or a store, wherever it is.
thread_local! {
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// When the attempt ends that the running code is part of; kept apart from the deadline, which ends the whole call.
    static ATTEMPT_END: Cell<Option<Instant>> = const { Cell::new(None) };
    static ATTEMPT: Cell<Attempt> = const { Cell::new(Attempt::OUTSIDE) };
    /// Means something only where the attempt says that some were noted.
    static TRIED: Cell<Tried> = const { Cell::new(Tried::NONE) };
    /// The errors that retries gave up with; means something only where the attempt is marked.
    static GIVEN_UP: Cell<Identities> = const { Cell::new(Identities::NONE) };
    static CRITICALITY: Cell<Criticality> = const { Cell::new(Criticality::Critical) };
}

/// What a layer that makes attempts shares with the layers below it, in one word: every call exchanges it twice.
///
/// Which endpoints were tried is kept beside it, and exchanged only where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt(u64);

/// The endpoints tried, of more than four the latest: two a word, zero where there is none. (Two words go in registers.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tried(u64, u64);

impl Attempt {
    /// How many endpoints were noted.
    const NOTED: u64 = 0xffff;
    /// An inner retry gave up in this poll.
    const GAVE_UP: u64 = 1 << 16;
    /// Some scope is there to take notes; outside of all of them a note would never be cleared.
    const SCOPED: u64 = 1 << 17;
    /// The endpoints tried and the errors given up with were exchanged too.
    const EXCHANGED: u64 = 1 << 18;
    /// One bit for each of the [`Tried::MOST`] places: it holds an endpoint that an *earlier* attempt went to.
    const EARLIER: u32 = 19;
    /// The errors that inner retries gave up with were noted.
    const MARKED: u64 = 1 << 23;
    const NUMBER: u32 = 32;

    const OUTSIDE: Self = Self(0);

    pub(crate) const fn new(number: u32) -> Self {
        Self((number as u64) << Self::NUMBER | Self::SCOPED)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
    pub(crate) const fn number(self) -> u32 {
        (self.0 >> Self::NUMBER) as u32
    }

    /// Whether an inner retry gave up in the last poll.
    const fn gave_up_in_this_poll(self) -> bool {
        self.0 & Self::GAVE_UP != 0
    }

    const fn is_marked(self) -> bool {
        self.0 & Self::MARKED != 0
    }

    /// The same notes, under another number.
    const fn with_number(self, number: u32) -> Self {
        let notes = (1 << Self::NUMBER) - 1;
        Self((number as u64) << Self::NUMBER | self.0 & notes)
    }

    #[allow(clippy::cast_possible_truncation, reason = "16 bits")]
    const fn noted(self) -> u16 {
        (self.0 & Self::NOTED) as u16
    }

    const fn is_scoped(self) -> bool {
        self.0 & Self::SCOPED != 0
    }

    /// The places of the endpoints that earlier attempts went to.
    const fn earlier(self) -> u64 {
        self.0 >> Self::EARLIER & ((1 << Tried::MOST) - 1)
    }

    /// One more endpoint was noted, by this attempt. None at all is what it never comes back to.
    const fn with_another(self) -> Self {
        let place = 1 << (Self::EARLIER as u64 + (self.0 & Self::NOTED) % Tried::MOST);
        let noted = if self.0 & Self::NOTED == Self::NOTED { Tried::MOST } else { (self.0 & Self::NOTED) + 1 };
        Self(self.0 & !(Self::NOTED | place) | noted)
    }

    /// The attempt after this one: what this one noted is earlier now, and no inner retry has given up yet.
    const fn next(self) -> Self {
        let numbered = match self.0.checked_add(1 << Self::NUMBER) {
            Some(next) => next,
            None => self.0,
        };
        let noted = self.0 & Self::NOTED;
        let places = if noted < Tried::MOST { (1 << noted) - 1 } else { (1 << Tried::MOST) - 1 };
        Self((numbered & !(Self::GAVE_UP | Self::MARKED)) | places << Self::EARLIER)
    }
}

impl Tried {
    /// How many are remembered.
    const MOST: u64 = 4;
    const NONE: Self = Self(0, 0);

    /// Whether one of `places`, a bit for each, holds `endpoint`.
    #[allow(clippy::cast_possible_truncation, reason = "two endpoints a word")]
    fn contains(self, EndpointId(endpoint): EndpointId, places: u64) -> bool {
        let held = [self.0 as u32, (self.0 >> 32) as u32, self.1 as u32, (self.1 >> 32) as u32];
        held.iter().enumerate().any(|(place, held)| places >> place & 1 == 1 && *held == endpoint.get())
    }

    /// With `endpoint` in place of the oldest, after this many.
    const fn with(self, EndpointId(endpoint): EndpointId, noted: u16) -> Self {
        let Self(first, second) = self;
        let word = if noted & 2 == 0 { first } else { second };
        let shift = (noted & 1) as u32 * 32;
        let word = word & !((u32::MAX as u64) << shift) | (endpoint.get() as u64) << shift;
        if noted & 2 == 0 { Self(word, second) } else { Self(first, word) }
    }
}

/// An endpoint of some pool, unique in the process (until 2^32 of them were made).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointId(NonZeroU32);

#[allow(dead_code, reason = "used by the families, each behind its feature")]
impl EndpointId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        loop {
            if let Some(id) = NonZeroU32::new(NEXT.fetch_add(1, Ordering::Relaxed)) {
                return Self(id);
            }
        }
    }
}

/// Notes that a call of this attempt went to `endpoint`; forgotten where no attempt is being made.
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn record_tried(endpoint: EndpointId) {
    let attempt = ATTEMPT.get();
    if attempt.is_scoped() {
        let tried = if attempt.noted() == 0 { Tried::NONE } else { TRIED.get() };
        TRIED.set(tried.with(endpoint, attempt.noted()));
        ATTEMPT.set(attempt.with_another());
    }
}

/// Whether an earlier attempt of this call went to `endpoint`.
///
/// Calls of the *same* attempt are independent of each other: a handler that makes several does not avoid the endpoints that it
/// has already called.
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn was_tried(endpoint: EndpointId) -> bool {
    let earlier = ATTEMPT.get().earlier();
    earlier != 0 && TRIED.get().contains(endpoint, earlier)
}

/// Whether an earlier attempt of this call went to any endpoint.
#[allow(dead_code, reason = "used by the families, each behind its feature")]
#[inline]
pub(crate) fn any_tried() -> bool {
    ATTEMPT.get().earlier() != 0
}

/// Marks the result that is about to be returned, for the retry further out: it was already retried in vain.
///
/// `error` identifies it, if it is an error that can be told from others; the mark then holds for this error alone, whenever it
/// comes. Otherwise the mark holds for whatever the attempt further out ends with in the same poll.
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) fn mark_gave_up(error: impl FnOnce() -> Option<Identities>) {
    let attempt = ATTEMPT.get();
    if attempt.is_scoped() {
        let mut marked = attempt.0 | Attempt::GAVE_UP;
        if let Some(error) = error() {
            let others = if attempt.is_marked() { GIVEN_UP.get() } else { Identities::NONE };
            GIVEN_UP.set(others.with(error));
            marked |= Attempt::MARKED;
        }
        ATTEMPT.set(Attempt(marked));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn in_one_second() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[test]
    fn a_scope_restores_what_was_there_on_unwinding_too() {
        let deadline = in_one_second();
        let outer = Context::new().with_deadline(deadline).with_attempt(2);
        outer.enter(|| {
            let inner = Context::new().with_criticality(Criticality::Sheddable);
            let panicked = catch_unwind(AssertUnwindSafe(|| inner.enter(|| panic!("inside"))));
            assert!(panicked.is_err());
            assert_eq!(current(), outer);
        });
        assert_eq!(current(), Context::new());
    }

    #[test]
    fn a_scope_restores_only_its_own_fields_so_notes_flow_back_up() {
        let endpoint = EndpointId::next();
        let mut attempt = AttemptScope::new(Attempt::new(1));
        within(&mut attempt, || {
            within(&mut DeadlineScope(Some(in_one_second())), || {
                record_tried(endpoint);
                mark_gave_up(|| None);
            });
            assert_eq!(current().deadline(), None);
            assert!(!was_tried(endpoint), "calls of one attempt are independent");
        });
        assert!(attempt.gave_up(|_| None));
        attempt.next_attempt();
        assert!(!was_tried(endpoint), "outside of the attempt nothing is left");
        within(&mut attempt, || assert!(was_tried(endpoint), "the next attempt sees it"));
    }

    #[test]
    fn outside_of_all_scopes_no_note_is_taken() {
        let endpoint = EndpointId::next();
        record_tried(endpoint);
        mark_gave_up(|| None);
        assert!(!was_tried(endpoint));
        assert!(!any_tried());
        assert!(!ATTEMPT.get().gave_up_in_this_poll());
    }

    #[test]
    fn of_many_endpoints_tried_the_latest_are_remembered() {
        let endpoints: Vec<_> = (0..6).map(|_| EndpointId::next()).collect();
        let mut attempt = AttemptScope::new(Attempt::new(1));
        within(&mut attempt, || endpoints.iter().copied().for_each(record_tried));
        attempt.next_attempt();
        within(&mut attempt, || {
            let tried: Vec<_> = endpoints.iter().map(|&endpoint| was_tried(endpoint)).collect();
            assert_eq!(tried, [false, false, true, true, true, true]);
            // What this attempt notes takes the places of the oldest, and is not earlier.
            record_tried(endpoints[0]);
            let tried: Vec<_> = endpoints.iter().map(|&endpoint| was_tried(endpoint)).collect();
            assert_eq!(tried, [false, false, false, true, true, true]);
        });
    }

    #[test]
    fn what_was_tried_in_a_scope_stays_in_it_and_is_there_at_the_next_attempt() {
        let [one, other, third] = [(); 3].map(|()| EndpointId::next());
        let seen = || [one, other, third].map(was_tried);
        let (mut outer, mut inner) = (AttemptScope::new(Attempt::new(1)), AttemptScope::new(Attempt::new(7)));
        within(&mut outer, || record_tried(one));
        outer.next_attempt();
        within(&mut outer, || {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                within(&mut inner, || {
                    assert!(!any_tried());
                    record_tried(other);
                    assert_eq!(seen(), [false; 3]);
                    panic!("inside");
                });
            }));
            assert!(panicked.is_err());
            assert_eq!(seen(), [true, false, false]);
            inner.next_attempt();
            within(&mut inner, || assert_eq!((seen(), current().attempt()), ([false, true, false], 8)));
            record_tried(third);
            assert_eq!((seen(), current().attempt()), ([true, false, false], 2));
        });
        assert!(!any_tried());
        within(&mut inner, || assert_eq!(seen(), [false, true, false]));
        outer.next_attempt();
        within(&mut outer, || assert_eq!(seen(), [true, false, true]));
        assert_eq!((seen(), current()), ([false; 3], Context::new()));
    }

    #[test]
    fn the_next_attempt_knows_what_was_tried_but_not_that_an_inner_retry_gave_up() {
        let endpoint = EndpointId::next();
        let mut scope = AttemptScope::new(Attempt::new(u32::MAX - 1));
        within(&mut scope, || {
            record_tried(endpoint);
            mark_gave_up(|| None);
        });
        for number in [u32::MAX, u32::MAX] {
            scope.next_attempt();
            assert!(!scope.attempt().gave_up_in_this_poll());
            within(&mut scope, || assert!(was_tried(endpoint) && current().attempt() == number));
        }
    }

    #[test]
    fn however_many_were_tried_some_were() {
        let endpoint = EndpointId::next();
        let mut attempt = AttemptScope::new(Attempt::new(1));
        for number in 1..0x1_0010 {
            within(&mut attempt, || {
                record_tried(endpoint);
                assert_eq!((any_tried(), current().attempt()), (number > 1, number));
            });
            attempt.next_attempt();
        }
    }

    #[test]
    fn the_inner_future_is_dropped_inside_its_scope() {
        struct Expect(u32);
        impl Drop for Expect {
            fn drop(&mut self) {
                assert_eq!(current().attempt(), self.0);
            }
        }
        let expect = Expect(7);
        drop(Context::new().with_attempt(7).scope(async move {
            let _held = expect;
            std::future::pending::<()>().await;
        }));
        assert_eq!(current().attempt(), 0);
    }

    #[test]
    fn a_spawn_loses_the_context_and_carry_takes_it_along() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outer = Context::new().with_attempt(3).with_criticality(Criticality::Sheddable);
        let seen = runtime.block_on(outer.scope(async {
            let plain = tokio::spawn(async { current() });
            let carried = tokio::spawn(carry(async { current() }));
            (plain.await.unwrap(), carried.await.unwrap())
        }));
        assert_eq!(seen, (Context::new(), outer));
    }

    #[test]
    fn shared_work_does_not_see_its_pollers_context() {
        Context::new().with_attempt(3).with_deadline(in_one_second()).enter(|| {
            within(&mut IsolatedScope::new(), || assert_eq!(current(), Context::new()));
            assert_eq!(current().attempt(), 3);
        });
    }

    #[test]
    fn two_futures_by_turns_on_one_thread_never_see_each_others() {
        let mut one = tokio_test::task::spawn(Context::new().with_attempt(1).scope(async {
            tokio::task::yield_now().await;
            current().attempt()
        }));
        let mut two = tokio_test::task::spawn(Context::new().with_attempt(2).scope(async { current().attempt() }));
        assert!(one.poll().is_pending());
        assert_eq!(two.poll(), Poll::Ready(2));
        assert_eq!(one.poll(), Poll::Ready(1));
    }

    #[test]
    fn the_end_of_an_attempt_is_propagated_and_is_no_deadline() {
        let (deadline, end) = (in_one_second() + Duration::from_secs(9), in_one_second());
        let seen = || (current().deadline(), current().propagated_deadline());
        within(&mut TimeoutScope::Total(Some(deadline)), || {
            assert_eq!(seen(), (Some(deadline), Some(deadline)));
            within(&mut TimeoutScope::Attempt(Some(end)), || {
                assert_eq!(seen(), (Some(deadline), Some(end)));
                let here = current();
                Context::new().enter(|| assert_eq!(seen(), (None, None)));
                Context::new().enter(|| here.enter(|| assert_eq!(seen(), (Some(deadline), Some(end)), "carried over")));
                within(&mut AttemptScope::new(Attempt::new(1)), || {
                    assert_eq!(current().propagated_deadline(), Some(end))
                });
                let mut ending = AttemptScope::new(Attempt::new(1));
                ending.set_end(Some(end - Duration::from_millis(1)));
                for _ in 0..2 {
                    within(&mut ending, || {
                        assert_eq!(current().propagated_deadline(), Some(end - Duration::from_millis(1)));
                    });
                    assert_eq!(current().propagated_deadline(), Some(end));
                }
                within(&mut IsolatedScope::new(), || assert_eq!(seen(), (None, None)));
            });
            assert_eq!(seen(), (Some(deadline), Some(deadline)));
        });
        assert_eq!(seen(), (None, None));
    }

    #[test]
    fn scopes_stay_small() {
        assert!(size_of::<DeadlineScope>() <= 16);
        assert!(size_of::<AttemptScope>() <= 48);
    }
}
