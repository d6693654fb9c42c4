//! [`AcceptContextLayer`]: a server takes up what its callers say of deadline, attempt and criticality.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use ::http::{HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::context_headers::{ContextHeaders, SharedHeaders, number};
use super::headers::{GAVE_UP, YES};
use crate::InvalidConfig;
use crate::context::{Context, Criticality, FullScope, InScope};

/// What an [`AcceptContextLayer`] believes at most.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::context::Criticality;
/// use mainstay::http::AcceptContextConfig;
///
/// let mut config = AcceptContextConfig::default();
/// config.max_deadline = Duration::from_secs(5);
/// config.max_criticality = Criticality::CriticalPlus;
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct AcceptContextConfig {
    /// The longest deadline that is taken over, from the request's arrival; a longer one is cut to this. Above zero; 60 s by
    /// default.
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration"))]
    pub max_deadline: Duration,
    /// The deadline of requests that bring none (or one that cannot be read); `None`, which is the default, gives them none. Above
    /// zero and at most [`max_deadline`](Self::max_deadline).
    #[cfg_attr(feature = "serde", serde(with = "crate::cores::serde_duration::option"))]
    pub default_deadline: Option<Duration>,
    /// The highest criticality that is taken over; a higher one is lowered to this. `Critical` by default: a caller may say that
    /// its request matters less than others, not that it matters more.
    #[cfg_attr(feature = "serde", serde(with = "serde_criticality"))]
    pub max_criticality: Criticality,
    /// Whether a 5xx answer is marked as [given up](super::GAVE_UP) when a retry within the server gave up on it. `true` by
    /// default; opt out where callers have somewhere else to go.
    pub mark_gave_up: bool,
}

/// Runs the service under the context that the request's headers describe, within bounds.
///
/// Headers can be set by anybody. Putting this layer onto a server is what says that its callers are trusted this far; without it
/// nothing of them is read. At the edge, where callers are strangers, leave it out: with a deadline of zero a stranger only
/// harms himself, but with a criticality he could harm others.
///
/// What is taken up: what was left of the caller's deadline, counted from now (the time on the wire is not known, and lost); the
/// number of the attempt; the criticality. The ambient context around the service is replaced by it altogether. A value
/// that cannot be read is as good as none. Nothing is refused here: that is the business of the layers within, which see a deadline
/// that has passed.
///
/// On the way back, a 5xx answer on which a retry inside of the service gave up gets the header [`GAVE_UP`](super::GAVE_UP), by which
/// the caller's [`HttpClassifier`](super::HttpClassifier) knows that it was retried already: of nested retries, across processes too, the innermost
/// one works.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use http::{Request, Response};
/// use mainstay::context;
/// use mainstay::http::AcceptContextLayer;
/// use tokio::time::Instant;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let server = ServiceBuilder::new().layer(AcceptContextLayer::default()).service(service_fn(|_: Request<()>| async {
///     Ok::<_, std::io::Error>(Response::new(context::current().remaining(Instant::now())))
/// }));
/// let request = Request::get("/").header("x-mainstay-deadline-ms", "750").body(()).unwrap();
/// assert_eq!(server.oneshot(request).await.unwrap().into_body(), Some(Duration::from_millis(750)));
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct AcceptContextLayer {
    config: AcceptContextConfig,
    headers: SharedHeaders,
}

/// The service that [`AcceptContextLayer`] makes.
///
/// # Examples
///
/// ```
/// use mainstay::http::AcceptContextLayer;
/// use tower::Layer;
///
/// let service = AcceptContextLayer::default().layer("a server");
/// assert_eq!(service.get_ref(), &"a server");
/// ```
#[derive(Clone, Debug)]
pub struct AcceptContext<S> {
    inner: S,
    config: AcceptContextConfig,
    headers: SharedHeaders,
}

pin_project! {
    /// The response future of [`AcceptContext`].
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the inner future, within its context, and nothing else.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Request, Response};
    /// use mainstay::http::AcceptContextLayer;
    /// use tower::{Layer, Service, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), std::io::Error> {
    /// let mut server =
    ///     AcceptContextLayer::default().layer(service_fn(|_: Request<()>| async { Ok::<_, std::io::Error>(Response::new("answer")) }));
    /// let response: Response<_> = server.call(Request::new(())).await?;
    /// assert_eq!(*response.body(), "answer");
    /// # Ok::<(), std::io::Error>(())
    /// # }
    /// ```
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct AcceptContextFuture<F> {
        #[pin]
        inner: InScope<FullScope, F>,
        mark_gave_up: bool,
    }
}

// === impl AcceptContextConfig ===

impl Default for AcceptContextConfig {
    fn default() -> Self {
        Self {
            max_deadline: Duration::from_secs(60),
            default_deadline: None,
            max_criticality: Criticality::Critical,
            mark_gave_up: true,
        }
    }
}

impl AcceptContextConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::AcceptContextConfig;
    ///
    /// let mut config = AcceptContextConfig::default();
    /// config.max_deadline = std::time::Duration::ZERO;
    /// assert_eq!(config.validate().unwrap_err().field(), "max_deadline");
    /// ```
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.max_deadline.is_zero() {
            return Err(InvalidConfig::new("max_deadline", self.max_deadline, "must be above zero"));
        }
        match self.default_deadline {
            Some(default) if default.is_zero() || default > self.max_deadline => {
                Err(InvalidConfig::new("default_deadline", default, "must be above zero and at most `max_deadline`"))
            }
            _ => Ok(()),
        }
    }

    /// What `headers` say, as far as it is believed.
    fn read(&self, names: &ContextHeaders, headers: &HeaderMap) -> Context {
        let mut context = Context::new();
        if let Some(remaining) = names.remaining(headers).or(self.default_deadline) {
            let now = Instant::now();
            // A bound that cannot be added is none.
            if let Some(deadline) = now.checked_add(remaining.min(self.max_deadline)) {
                context = context.with_deadline(deadline);
            }
        }
        if let Some(attempt) = number(headers, &names.attempt) {
            context = context.with_attempt(u32::try_from(attempt).unwrap_or(u32::MAX));
        }
        let criticality =
            headers.get(&names.criticality).and_then(|value| Criticality::from_name(value.to_str().ok()?));
        context.with_criticality(criticality.unwrap_or_default().min(self.max_criticality))
    }
}

// === impl AcceptContextLayer ===

impl AcceptContextLayer {
    /// The layer, with these bounds.
    ///
    /// # Errors
    ///
    /// When the configuration is [not valid](AcceptContextConfig::validate).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::{AcceptContextConfig, AcceptContextLayer};
    ///
    /// let layer = AcceptContextLayer::new(AcceptContextConfig::default())?;
    /// # let _ = layer;
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn new(config: AcceptContextConfig) -> Result<Self, InvalidConfig> {
        config.validate()?;
        Ok(Self { config, headers: SharedHeaders::DEFAULT })
    }

    /// Reads these headers instead of the default ones.
    ///
    /// # Errors
    ///
    /// When a name is [used twice](ContextHeaders::validate).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::{AcceptContextLayer, ContextHeaders};
    ///
    /// // For a gRPC server, whose callers say `grpc-timeout`.
    /// let layer = AcceptContextLayer::default().headers(ContextHeaders::new().grpc_timeout(true))?;
    /// # let _ = layer;
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn headers(mut self, headers: ContextHeaders) -> Result<Self, InvalidConfig> {
        self.headers = SharedHeaders::new(headers)?;
        Ok(self)
    }
}

impl<S> Layer<S> for AcceptContextLayer {
    type Service = AcceptContext<S>;

    fn layer(&self, inner: S) -> AcceptContext<S> {
        AcceptContext { inner, config: self.config, headers: self.headers.clone() }
    }
}

// === impl AcceptContext ===

crate::macros::wrapper_methods!(AcceptContext<S>, "mainstay::http::AcceptContextLayer::default()");

impl<S, B, R> Service<Request<B>> for AcceptContext<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = AcceptContextFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let scope = FullScope::from(self.config.read(self.headers.get(), request.headers()));
        let inner = InScope::call(scope, || self.inner.call(request));
        AcceptContextFuture { inner, mark_gave_up: self.config.mark_gave_up }
    }
}

// === impl AcceptContextFuture ===

impl<F, R, E> Future for AcceptContextFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut result = ready!(this.inner.as_mut().poll(cx));
        if let Ok(response) = &mut result
            && *this.mark_gave_up
            && response.status().is_server_error()
            && this.inner.scope().gave_up()
        {
            response.headers_mut().insert(GAVE_UP, YES);
        }
        Poll::Ready(result)
    }
}

#[cfg(feature = "serde")]
mod serde_criticality {
    //! By name, as in the header.

    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Criticality;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(criticality: &Criticality, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(criticality.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Criticality, D::Error> {
        let name = Cow::<'de, str>::deserialize(deserializer)?;
        Criticality::from_name(&name)
            .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&name), &"the name of a criticality"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_test::block_on;

    use super::super::headers::{ATTEMPT, CRITICALITY, DEADLINE_MS};
    use super::*;
    use crate::context;

    fn read(config: &AcceptContextConfig, headers: &HeaderMap) -> Context {
        config.read(&ContextHeaders::new(), headers)
    }

    fn headers(name: ::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_counted_from_now_and_clamped() {
        let config = AcceptContextConfig { max_deadline: Duration::from_secs(5), ..AcceptContextConfig::default() };
        let left = |value: &str| read(&config, &headers(DEADLINE_MS, value)).remaining(Instant::now());
        assert_eq!(left("750"), Some(Duration::from_millis(750)));
        assert_eq!(left("0"), Some(Duration::ZERO));
        for long in ["5001", "18446744073709551615", "18446744073709551616", &"9".repeat(1_000)] {
            assert_eq!(left(long), Some(Duration::from_secs(5)));
        }
        for none in ["", "-1", "+1", "1.5", "10s", "ten"] {
            assert_eq!(left(none), None, "{none:?}");
        }
        assert_eq!(read(&config, &HeaderMap::new()), Context::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_a_deadline_gets_the_default() {
        let config = AcceptContextConfig { default_deadline: Some(Duration::from_secs(9)), ..Default::default() };
        let left = |headers: &HeaderMap| read(&config, headers).remaining(Instant::now());
        assert_eq!(left(&HeaderMap::new()), Some(Duration::from_secs(9)));
        assert_eq!(left(&headers(DEADLINE_MS, "soon")), Some(Duration::from_secs(9)));
        assert_eq!(left(&headers(DEADLINE_MS, "20000")), Some(Duration::from_secs(20)));
    }

    #[test]
    fn a_caller_may_lower_its_criticality_but_not_raise_it() {
        let config = AcceptContextConfig::default();
        let of = |config: &AcceptContextConfig, value: &str| read(config, &headers(CRITICALITY, value)).criticality();
        assert_eq!(of(&config, "sheddable"), Criticality::Sheddable);
        assert_eq!(of(&config, "critical_plus"), Criticality::Critical);
        assert_eq!(of(&config, "divine"), Criticality::Critical);
        let trusting = AcceptContextConfig { max_criticality: Criticality::CriticalPlus, ..config };
        assert_eq!(of(&trusting, "critical_plus"), Criticality::CriticalPlus);
        let low = AcceptContextConfig { max_criticality: Criticality::Sheddable, ..config };
        assert_eq!(read(&low, &HeaderMap::new()).criticality(), Criticality::Sheddable);
    }

    #[test]
    fn bad_bounds_are_refused() {
        let bad = |config: AcceptContextConfig| AcceptContextLayer::new(config).unwrap_err().field().to_owned();
        let config = AcceptContextConfig::default();
        assert_eq!(bad(AcceptContextConfig { max_deadline: Duration::ZERO, ..config }), "max_deadline");
        for default in [Duration::ZERO, Duration::from_secs(61)] {
            assert_eq!(bad(AcceptContextConfig { default_deadline: Some(default), ..config }), "default_deadline");
        }
    }

    #[test]
    fn a_retry_that_gave_up_inside_marks_the_failure_and_nothing_else() {
        let answer = |status: u16, gives_up: bool, config: AcceptContextConfig| {
            let service = tower::service_fn(move |_: Request<()>| async move {
                if gives_up {
                    context::mark_gave_up(|| None);
                }
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(()).unwrap())
            });
            let mut server = AcceptContextLayer::new(config).unwrap().layer(service);
            block_on(server.call(Request::new(()))).unwrap().headers().contains_key(GAVE_UP)
        };
        let config = AcceptContextConfig::default();
        assert!(answer(503, true, config));
        assert!(!answer(503, false, config));
        assert!(!answer(200, true, config), "served all the same, from a fallback");
        assert!(!answer(503, true, AcceptContextConfig { mark_gave_up: false, ..config }));
    }

    proptest! {
        /// What goes out comes in: the same to the millisecond, and never more.
        #[test]
        fn a_deadline_survives_the_way_by_any_header(millis in 0..60_000_u64, micros in 0..1_000_u64, grpc: bool) {
            let names = ContextHeaders::new().grpc_timeout(grpc);
            let left = Duration::from_millis(millis) + Duration::from_micros(micros);
            let mut headers = headers(DEADLINE_MS, &left.as_millis().to_string());
            if grpc {
                headers.insert(super::super::GRPC_TIMEOUT, super::super::format_grpc_timeout(left));
            }
            let read = names.remaining(&headers);
            prop_assert_eq!(read, Some(Duration::from_millis(millis)));
        }

        #[test]
        fn no_header_can_exceed_the_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..32), which in 0..3_usize) {
            let Ok(value) = ::http::HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let headers = HeaderMap::from_iter([([DEADLINE_MS, ATTEMPT, CRITICALITY][which].clone(), value)]);
            let context = read(&AcceptContextConfig::default(), &headers);
            prop_assert!(context.remaining(Instant::now()).is_none_or(|left| left <= Duration::from_secs(60)));
            prop_assert!(context.criticality() <= Criticality::Critical);
        }
    }
}
