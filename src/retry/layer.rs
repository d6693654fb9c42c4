//! [`RetryLayer`] and its builder.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::handle::Core;
use super::hooks::Hooks;
use super::{
    AttemptReport, CloneRequests, CloneWith, CopyRequestsBy, IdempotentIf, NextDelay, Retry, RetryConfig, RetryHandle,
    RetryIf, TrustHint, TryCloneRequests,
};
use crate::backoff::BackoffConfig;
use crate::budget::Budget;
use crate::cores::striped_arc::StripedArc;
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::outcome::{DefaultClassifier, Outcome};
use crate::telemetry::{Emitter, Listener};

/// Sends calls again that may succeed at another attempt. See the [module documentation](crate::retry).
///
/// `C` judges results, `R` is the [`RequestPolicy`](super::RequestPolicy).
///
/// # Examples
///
/// ```
/// use mainstay::RetryLayer;
/// use mainstay::retry::RetryConfig;
///
/// let layer = RetryLayer::new("users", RetryConfig::default())?;
/// assert_eq!(layer.handle().name().as_str(), "users");
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
pub struct RetryLayer<C = DefaultClassifier, R = CloneRequests> {
    shared: StripedArc<Shared<C, R>>,
}

/// Builds a [`RetryLayer`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::RetryLayer;
/// use mainstay::backoff::BackoffConfig;
///
/// let layer = RetryLayer::builder("users")
///     .max_attempts(4)
///     .backoff(BackoffConfig::exponential(Duration::from_millis(20)))
///     .attempt_timeout(Duration::from_millis(300))
///     .idempotent_if(|query: &String| query.starts_with("SELECT"))
///     .build()?;
/// # let _ = layer;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct RetryBuilder<C = DefaultClassifier, R = CloneRequests, K = NotChosen> {
    name: Name,
    config: RetryConfig,
    classifier: C,
    requests: R,
    budget: Option<Budget>,
    listener: Option<Arc<dyn Listener>>,
    hooks: Hooks,
    chosen: PhantomData<K>,
}

/// The classifier of a [`RetryBuilder`] is the default one: a preset may replace it.
#[derive(Clone, Copy, Debug)]
pub struct NotChosen;

/// The classifier of a [`RetryBuilder`] was chosen, and stays.
#[derive(Clone, Copy, Debug)]
pub struct Chosen;

/// What all services of a layer share.
pub(super) struct Shared<C, R> {
    pub(super) core: Arc<Core>,
    pub(super) classifier: C,
    pub(super) requests: R,
}

// === impl RetryLayer ===

impl RetryLayer {
    /// The layer of `config`, for requests that are `Clone` and results judged by [`DefaultClassifier`].
    ///
    /// # Errors
    ///
    /// What [`RetryConfig::validate`] finds.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    /// use mainstay::retry::RetryConfig;
    ///
    /// assert!(RetryLayer::new("users", RetryConfig::default()).is_ok());
    /// ```
    pub fn new(name: impl Into<Name>, config: RetryConfig) -> Result<Self, InvalidConfig> {
        Self::builder(name).config(config).build()
    }

    /// A builder, starting from the default settings.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::RetryLayer::builder("users").build()?;
    /// assert_eq!(layer.handle().name().as_str(), "users");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn builder(name: impl Into<Name>) -> RetryBuilder {
        RetryBuilder {
            name: name.into(),
            config: RetryConfig::default(),
            classifier: DefaultClassifier,
            requests: CloneRequests,
            budget: None,
            listener: None,
            hooks: Hooks::default(),
            chosen: PhantomData,
        }
    }
}

impl<C, R> RetryLayer<C, R> {
    /// Reads the counts and turns retries off and on, for all services of this layer.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::RetryLayer::builder("users").build()?;
    /// assert_eq!(layer.handle().statistics().retries, 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> RetryHandle {
        RetryHandle::new(self.shared.core.clone())
    }
}

impl<C, R> RetryLayer<C, R> {
    pub(super) const fn shared(&self) -> &StripedArc<Shared<C, R>> {
        &self.shared
    }
}

impl<S, C, R> Layer<S> for RetryLayer<C, R> {
    type Service = Retry<S, C, R>;

    fn layer(&self, inner: S) -> Retry<S, C, R> {
        Retry::new(inner, self.shared.clone())
    }
}

impl<C, R> Clone for RetryLayer<C, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<C, R> fmt::Debug for RetryLayer<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").field("core", &self.shared.core).finish_non_exhaustive()
    }
}

// === impl RetryBuilder ===

impl<C, R, K> RetryBuilder<C, R, K> {
    /// Sets all settings at once; those set before are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::{RetryConfig, RetryLayer};
    ///
    /// let layer = RetryLayer::builder("users").config(RetryConfig::default()).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn config(mut self, config: RetryConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets [`RetryConfig::max_attempts`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    ///
    /// let layer = RetryLayer::builder("users").max_attempts(4).build()?;
    /// assert_eq!(layer.handle().config().max_attempts, 4);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.config.max_attempts = max_attempts;
        self
    }

    /// Sets [`RetryConfig::max_attempts`] to [`RetryConfig::UNLIMITED`]: only the budget, the deadline and
    /// [`max_elapsed`](Self::max_elapsed) end the attempts.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let layer = mainstay::RetryLayer::builder("users").unlimited_attempts().max_elapsed(Duration::from_secs(30)).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn unlimited_attempts(self) -> Self {
        self.max_attempts(RetryConfig::UNLIMITED)
    }

    /// Sets [`RetryConfig::max_elapsed`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let layer = mainstay::RetryLayer::builder("users").max_elapsed(Duration::from_secs(5)).build()?;
    /// assert_eq!(layer.handle().config().max_elapsed, Some(Duration::from_secs(5)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn max_elapsed(mut self, longest: impl Into<Option<Duration>>) -> Self {
        self.config.max_elapsed = longest.into();
        self
    }

    /// Sets [`RetryConfig::ready_timeout`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let give_up_at_once = Duration::ZERO;
    /// let layer = mainstay::RetryLayer::builder("users").ready_timeout(give_up_at_once).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn ready_timeout(mut self, longest: impl Into<Option<Duration>>) -> Self {
        self.config.ready_timeout = longest.into();
        self
    }

    /// Sets [`RetryConfig::backoff`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::RetryLayer;
    /// use mainstay::backoff::BackoffConfig;
    ///
    /// let backoff = BackoffConfig::exponential(Duration::from_millis(20));
    /// let layer = RetryLayer::builder("users").backoff(backoff).build()?;
    /// assert_eq!(layer.handle().config().backoff, backoff);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn backoff(mut self, backoff: BackoffConfig) -> Self {
        self.config.backoff = backoff;
        self
    }

    /// Draws on `budget`, which others that call the same destination share, in place of one of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    /// use mainstay::budget::Budget;
    ///
    /// let users = Budget::default();
    /// let reads = RetryLayer::builder("user-reads").budget(users.clone()).build()?;
    /// let writes = RetryLayer::builder("user-writes").budget(users).build()?;
    /// assert!(reads.handle().budget().is_same(writes.handle().budget()));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Sets [`RetryConfig::attempt_timeout`]; `None` switches it off.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::RetryLayer;
    ///
    /// let layer = RetryLayer::builder("users").attempt_timeout(Duration::from_millis(300)).build()?;
    /// assert_eq!(layer.handle().config().attempt_timeout, Some(Duration::from_millis(300)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn attempt_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.attempt_timeout = timeout.into();
        self
    }

    /// Sets [`RetryConfig::max_retry_after`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let layer = mainstay::RetryLayer::builder("users").max_retry_after(Duration::from_secs(60)).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn max_retry_after(mut self, longest: Duration) -> Self {
        self.config.max_retry_after = longest;
        self
    }

    /// Sets [`RetryConfig::throttled_initial`]: from zero. Default: 1 s.
    pub const fn throttled_initial(mut self, delay: Duration) -> Self {
        self.config.throttled_initial = delay;
        self
    }

    /// Sets [`RetryConfig::trust_hint`]. Default: [`TrustHint::Exact`].
    pub const fn trust_hint(mut self, trust: TrustHint) -> Self {
        self.config.trust_hint = trust;
        self
    }

    /// Sets [`RetryConfig::hint_jitter`]: from 0.0 to 1.0. Default: 0.2.
    pub const fn hint_jitter(mut self, share: f64) -> Self {
        self.config.hint_jitter = share;
        self
    }

    /// Sets [`RetryConfig::retry_after_inner_gave_up`].
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::RetryLayer::builder("users").retry_after_inner_gave_up(true).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn retry_after_inner_gave_up(mut self, retry: bool) -> Self {
        self.config.retry_after_inner_gave_up = retry;
        self
    }

    /// Judges results by `classifier`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Outcome, RetryLayer, classify_fn};
    ///
    /// let layer = RetryLayer::builder("users")
    ///     .classify(classify_fn(|result: Result<&u16, &std::io::Error>| match result {
    ///         Ok(503) | Err(_) => Outcome::Transient,
    ///         Ok(_) => Outcome::Success,
    ///     }))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn classify<D>(self, classifier: D) -> RetryBuilder<D, R, Chosen> {
        self.map_classifier(|_| classifier)
    }

    /// Chooses the classifier, as a function of the one so far.
    pub(crate) fn map_classifier<D>(self, choose: impl FnOnce(C) -> D) -> RetryBuilder<D, R, Chosen> {
        let Self { name, config, classifier, requests, budget, listener, hooks, .. } = self;
        let classifier = choose(classifier);
        RetryBuilder { name, config, classifier, requests, budget, listener, hooks, chosen: PhantomData }
    }

    /// Copies requests by `requests`, which also says which of them may be sent twice.
    ///
    /// The rules of [`idempotent_if`](Self::idempotent_if), [`retry_if`](Self::retry_if) and `http` hold on top of it, whether they
    /// are set before or after. A policy of the user's own cannot be replaced by another.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    /// use mainstay::retry::CloneRequests;
    ///
    /// let layer = RetryLayer::builder("users").requests(CloneRequests).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn requests<Q>(self, requests: Q) -> RetryBuilder<C, R::Policy, K>
    where
        R: CopyRequestsBy<Q>,
    {
        self.wrap_requests(|rules| rules.copy_requests_by(requests))
    }

    /// Puts another policy in the place of the one so far, of which it is made.
    pub(crate) fn wrap_requests<Q>(self, wrap: impl FnOnce(R) -> Q) -> RetryBuilder<C, Q, K> {
        let Self { name, config, classifier, requests, budget, listener, hooks, chosen } = self;
        RetryBuilder { name, config, classifier, requests: wrap(requests), budget, listener, hooks, chosen }
    }

    /// Copies requests by [`TryClone`](super::TryClone).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    ///
    /// let layer = RetryLayer::builder("upload").try_clone_requests().build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn try_clone_requests(self) -> RetryBuilder<C, R::Policy, K>
    where
        R: CopyRequestsBy<TryCloneRequests>,
    {
        self.requests(TryCloneRequests)
    }

    /// Copies requests by `clone`, which answers `None` for those that cannot be: they still get their first attempt.
    ///
    /// # Examples
    ///
    /// ```
    /// struct Upload { body: Option<Vec<u8>> }
    ///
    /// let layer = mainstay::RetryLayer::builder("upload")
    ///     .clone_with(|upload: &Upload| Some(Upload { body: Some(upload.body.clone()?) }))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn clone_with<F, Req>(self, clone: F) -> RetryBuilder<C, R::Policy, K>
    where
        F: Fn(&Req) -> Option<Req>,
        R: CopyRequestsBy<CloneWith<F>>,
    {
        self.requests(CloneWith::new(clone))
    }

    /// Lets a request be sent again after it may have reached the callee only if `predicate` returns `true`. What certainly was not
    /// sent is retried in any case.
    ///
    /// A rule of its own beside those of [`requests`](Self::requests) and `http`, whether they are set before or after: a
    /// request is sent again only if all of them permit it.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    ///
    /// let layer = RetryLayer::builder("users").idempotent_if(|query: &String| query.starts_with("SELECT")).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn idempotent_if<F, Req>(self, predicate: F) -> RetryBuilder<C, IdempotentIf<R, F>, K>
    where
        F: Fn(&Req) -> bool,
    {
        self.wrap_requests(|requests| IdempotentIf::new(requests, predicate))
    }

    /// Retries only requests of which `predicate` says so; the others are neither copied nor retried, sent or not, and leave no
    /// mark for retries further out.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    ///
    /// let layer = RetryLayer::builder("users").retry_if(|query: &String| !query.contains("nightly report")).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn retry_if<F, Req>(self, predicate: F) -> RetryBuilder<C, RetryIf<R, F>, K>
    where
        F: Fn(&Req) -> bool,
    {
        self.wrap_requests(|requests| RetryIf::new(requests, predicate))
    }

    /// Retries after exactly those outcomes of which `predicate` says so, in place of [`Outcome::retry`]. Not asked about a
    /// success, nor about a refusal by a layer of this crate, which speaks for itself. A `retry_after` still holds.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Outcome, RetryLayer};
    ///
    /// let not_when_throttled = |outcome| outcome == Outcome::Transient;
    /// let layer = RetryLayer::builder("users").retry_outcomes(not_when_throttled).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn retry_outcomes(mut self, predicate: impl Fn(Outcome) -> bool + Send + Sync + 'static) -> Self {
        self.hooks.outcomes = Some(Arc::new(predicate));
        self
    }

    /// Waits for the delays of an iterator in place of the configured backoff, and gives up when it has no more: n delays are at
    /// most n + 1 attempts, and [`max_attempts`](Self::max_attempts) of the settings if that is fewer. Never shorter than a
    /// `retry_after`; the backoff's cap and jitter do not hold for it.
    ///
    /// Calls share nothing: `make` is asked for a new iterator at each retry, of which the delay after the n-th attempt is the
    /// n-th item. So both should be cheap, and one that draws must be content to draw anew.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::RetryLayer;
    ///
    /// let three = || [10, 100, 1_000].map(Duration::from_millis);
    /// let layer = RetryLayer::builder("users").unlimited_attempts().delays(three).build()?;
    ///
    /// // Any iterator of durations will do, such as that of a crate for backoffs.
    /// let squares = || (1..).map(|n: u32| Duration::from_millis(10) * n * n);
    /// let layer = RetryLayer::builder("users").max_attempts(4).delays(squares).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn delays<I>(mut self, make: impl Fn() -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item = Duration>,
    {
        let after = move |attempt: u32| {
            let passed = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
            make().into_iter().nth(passed)
        };
        self.hooks.sequence = Some(Arc::new(after));
        self
    }

    /// Asks `delay` how long to wait after each attempt; where it answers `None`, [`delays`](Self::delays) or the configured backoff do.
    /// Never shorter than a `retry_after`; the backoff's cap does not hold for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::retry::EndedAttempt;
    /// use mainstay::{Outcome, RetryLayer};
    ///
    /// let layer = RetryLayer::builder("users")
    ///     .delay_by(|ended: &EndedAttempt| match ended.outcome {
    ///         Outcome::Throttled { .. } => Some(Duration::from_secs(1)),
    ///         _ => None,
    ///     })
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn delay_by(mut self, delay: impl NextDelay) -> Self {
        self.hooks.delay = Some(Arc::new(delay));
        self
    }

    /// Tells `observer` of each attempt that ended and of what follows it, on the calling task. A panic in it does not reach
    /// the call. Attempts that were dropped, by the caller or a panic, are not told of.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    /// use mainstay::retry::AttemptReport;
    ///
    /// let log = |report: &AttemptReport| eprintln!("attempt {}: {}", report.attempt, report.outcome);
    /// let layer = RetryLayer::builder("users").on_attempt(log).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn on_attempt(mut self, observer: impl Fn(&AttemptReport) + Send + Sync + 'static) -> Self {
        self.hooks.observer = Some(Arc::new(observer));
        self
    }

    /// Tells `listener` of each retry, and of each call that gives up.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    /// use mainstay::telemetry::Event;
    ///
    /// let layer = RetryLayer::builder("users").listener(|event: &Event<'_>| eprintln!("{event}")).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Sets [`RetryConfig::seed`], so that a test sees the same delays in each run.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::RetryLayer::builder("users").seed(7).build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn seed(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// What [`RetryConfig::validate`] finds.
    ///
    /// # Examples
    ///
    /// ```
    /// let built = mainstay::RetryLayer::builder("users").max_attempts(0).build();
    /// assert_eq!(built.unwrap_err().field(), "max_attempts");
    /// ```
    pub fn build(self) -> Result<RetryLayer<C, R>, InvalidConfig> {
        let Self { name, config, classifier, requests, budget, listener, hooks, chosen: _ } = self;
        let core = Arc::new(Core::new(Emitter::new(&name, listener), config, budget, hooks)?);
        Ok(RetryLayer { shared: StripedArc::new(Shared { core, classifier, requests }) })
    }
}

impl<C, R, K> fmt::Debug for RetryBuilder<C, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBuilder").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}
