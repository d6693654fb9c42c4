//! [`CacheBuilder`]: a cache's settings, hooks and store, one by one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::config::CacheConfig;
use super::core::Core;
use super::key::CacheKey;
use super::layer::CacheLayer;
use super::make_store::{Custom, InMemory, MakeStore, Weighted};
use super::policy::Policy;
use super::served::Served;
use super::service::Parts;
use super::store::Store;
use super::versions::Tags;
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::outcome::DefaultClassifier;
use crate::telemetry::{Emitter, Listener};

/// Builds a [`CacheLayer`].
///
/// Start with [`CacheLayer::builder`], say how requests map to keys with [`key`](Self::key), and end with
/// [`build`](Self::build).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use mainstay::{BoxError, Outcome, classify_fn};
/// use mainstay::cache::{CacheLayer, Served};
///
/// #[derive(Clone)]
/// struct Page { status: u16, max_age: Option<Duration>, author: u64, stale: bool }
///
/// let layer = CacheLayer::builder("pages")
///     .key(|path: &String| (!path.starts_with("/private")).then(|| path.clone()))
///     .classify(classify_fn(|result: Result<&Page, &BoxError>| match result {
///         Ok(page) if page.status < 400 => Outcome::Success,
///         Ok(page) if page.status < 500 => Outcome::Refused,
///         Ok(_) | Err(_) => Outcome::Transient,
///     }))
///     .cache_if(|page: &Page| matches!(page.status, 200 | 404))
///     .ttl_of(|page| page.max_age)
///     .negative_ttl(Duration::from_secs(5))
///     .tags(|_path, page, tags| tags.add(&format!("author:{}", page.author)))
///     .on_served(|page, served: Served| page.stale = served.is_stale())
///     .build()?;
/// layer.handle().invalidate_tag("author:7");
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct CacheBuilder<K, V, F, C = DefaultClassifier, M = InMemory> {
    name: Name,
    config: CacheConfig,
    key: F,
    policy: Policy<K, V, C>,
    store: M,
    listener: Option<Arc<dyn Listener>>,
}

/// No key function yet: [`CacheBuilder::key`] sets it.
///
/// # Examples
///
/// ```
/// use mainstay::cache::{CacheBuilder, CacheLayer, NoKey};
///
/// let keyless: CacheBuilder<(), String, NoKey> = CacheLayer::builder("users");
/// let builder = keyless.key(|id: &u32| Some(*id));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NoKey(());

// === impl CacheBuilder: what it is made of ===

impl<V> CacheBuilder<(), V, NoKey> {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            config: CacheConfig::default(),
            key: NoKey(()),
            policy: Policy::new(DefaultClassifier),
            store: InMemory(()),
            listener: None,
        }
    }
}

impl<V, C, M> CacheBuilder<(), V, NoKey, C, M> {
    /// How a request maps to the key of its answer; `None` sends it to the inner service uncached.
    ///
    /// Everything that the answer depends on belongs into the key; see [`CacheKey`]. The function runs once a call, on the
    /// caller's task; a panic in it unwinds to the caller and leaves nothing behind. It comes before the hooks
    /// that know the key.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<String, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("pages")
    ///     .key(|path: &String| (!path.starts_with("/private")).then(|| path.clone()))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn key<Req, K, F>(self, key: F) -> CacheBuilder<K, V, F, C, M>
    where
        K: CacheKey,
        F: Fn(&Req) -> Option<K>,
    {
        let policy = Policy {
            classifier: self.policy.classifier,
            cache_if: self.policy.cache_if,
            ttl_of: self.policy.ttl_of,
            // Set after the key only, since they see it.
            cache_if_for: None,
            tags: None,
            on_served: self.policy.on_served,
        };
        CacheBuilder { name: self.name, config: self.config, key, policy, store: self.store, listener: self.listener }
    }
}

impl<K, V, F, C, M> CacheBuilder<K, V, F, C, M> {
    /// Judges the results of loads: only a [`Success`](crate::Outcome::Success) is stored, and with
    /// [`negative_ttl`](CacheConfig::negative_ttl) a [`Refused`](crate::Outcome::Refused). Default: [`DefaultClassifier`],
    /// for which every `Ok` is a success.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    /// use mainstay::{BoxError, Outcome, classify_fn};
    ///
    /// let layer = CacheLayer::builder("users")
    ///     .key(|id: &u32| Some(*id))
    ///     .classify(classify_fn(|result: Result<&Option<String>, &BoxError>| match result {
    ///         Ok(Some(_)) => Outcome::Success,
    ///         Ok(None) => Outcome::Refused,
    ///         Err(_) => Outcome::Transient,
    ///     }))
    ///     .build()?;
    /// # let _: mainstay::CacheLayer<u32, Option<String>, _, _> = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn classify<D>(self, classifier: D) -> CacheBuilder<K, V, F, D, M> {
        CacheBuilder {
            name: self.name,
            config: self.config,
            key: self.key,
            policy: self.policy.with_classifier(classifier),
            store: self.store,
            listener: self.listener,
        }
    }

    /// Keeps the entries in a store of your own.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::{CacheLayer, MemoryStore};
    ///
    /// let store: MemoryStore<u32, String> = MemoryStore::new(10);
    /// let layer = CacheLayer::builder("users").key(|id: &u32| Some(*id)).store(store.clone()).build()?;
    /// assert_eq!(layer.handle().store().len(), store.len());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn store<St>(self, store: St) -> CacheBuilder<K, V, F, C, Custom<St>>
    where
        St: Store<K, V>,
    {
        self.with_store(Custom(store))
    }

    /// Bounds the memory store by weight instead of number: the weights of all entries add up to
    /// [`capacity`](CacheConfig::capacity) at most. See [`MemoryStore::weighted`](super::MemoryStore::weighted).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// let layer = CacheLayer::builder("pages")
    ///     .key(|path: &String| Some(path.clone()))
    ///     .capacity(64 << 20)
    ///     .weigher(|path: &String, page: Option<&Vec<u8>>| {
    ///         u32::try_from(path.len() + page.map_or(0, Vec::len)).unwrap_or(u32::MAX)
    ///     })
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn weigher<W>(self, weigh: W) -> CacheBuilder<K, V, F, C, Weighted<W>>
    where
        W: Fn(&K, Option<&V>) -> u32 + Send + Sync + 'static,
    {
        self.with_store(Weighted(weigh))
    }

    fn with_store<N>(self, store: N) -> CacheBuilder<K, V, F, C, N> {
        CacheBuilder {
            name: self.name,
            config: self.config,
            key: self.key,
            policy: self.policy,
            store,
            listener: self.listener,
        }
    }

    /// Tells `listener` of failed loads, refused calls and a failing store.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    /// use mainstay::telemetry::Event;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users")
    ///     .key(|id: &u32| Some(*id))
    ///     .listener(|event: &Event<'_>| eprintln!("{event}"))
    ///     .build()?;
    /// # let _ = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn listener(mut self, listener: impl Listener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    // === hooks ===

    /// Stores only the responses for which this is true, successes and refusals alike. It runs after the classifier, in the
    /// task of the load.
    ///
    /// A response that is not stored goes only to the call that led the load; the calls that waited for it
    /// [load for themselves](crate::cache#what-is-shared).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// struct Page { status: u16, max_age: u64, author: u32, stale: bool }
    ///
    /// let layer = CacheLayer::builder("pages")
    ///     .key(|id: &u32| Some(*id))
    ///     .cache_if(|page: &Page| page.status == 200)
    ///     .build()?;
    /// # let _: mainstay::CacheLayer<u32, Page, _> = layer;
    /// # let _ = |page: Page| (page.status, page.max_age, page.author, page.stale);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn cache_if(mut self, cache_if: impl Fn(&V) -> bool + Send + Sync + 'static) -> Self {
        self.policy.cache_if = Some(Arc::new(cache_if));
        self
    }

    /// Stores only the responses for which this is true, given their keys; [`cache_if`](Self::cache_if) with the key in sight.
    ///
    /// Where the decision depends on the request, the key is to carry what it depends on: its method, or whether it had
    /// credentials. If both hooks are set, or this one more than once, all of them have to agree.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// #[derive(Clone, PartialEq, Eq, Hash)]
    /// struct Key { path: String, signed_in: bool }
    /// struct Request { key: Key }
    /// struct Page { public: bool }
    ///
    /// let layer = CacheLayer::builder("pages")
    ///     .key(|request: &Request| Some(request.key.clone()))
    ///     .cache_if_for(|key: &Key, page: &Page| page.public || !key.signed_in)
    ///     .build()?;
    /// # let _: mainstay::CacheLayer<Key, Page, _> = layer;
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn cache_if_for(mut self, cache_if: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self
    where
        K: 'static,
        V: 'static,
    {
        self.policy.cache_if_for = Some(match self.policy.cache_if_for {
            Some(earlier) => Arc::new(move |key, response| earlier(key, response) && cache_if(key, response)),
            None => Arc::new(cache_if),
        });
        self
    }

    /// How long this response is fresh, where it says so itself; `None` takes [`ttl`](CacheConfig::ttl), zero does not store it.
    /// The jitter applies.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// struct Page { status: u16, max_age: u64, author: u32, stale: bool }
    ///
    /// let layer = CacheLayer::builder("pages")
    ///     .key(|id: &u32| Some(*id))
    ///     .ttl_of(|page: &Page| Some(Duration::from_secs(page.max_age)))
    ///     .build()?;
    /// # let _: mainstay::CacheLayer<u32, Page, _> = layer;
    /// # let _ = |page: Page| (page.status, page.max_age, page.author, page.stale);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn ttl_of(mut self, ttl_of: impl Fn(&V) -> Option<Duration> + Send + Sync + 'static) -> Self {
        self.policy.ttl_of = Some(Arc::new(ttl_of));
        self
    }

    /// Tags a response as it is stored, for [`CacheHandle::invalidate_tag`](super::CacheHandle::invalidate_tag).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// struct Page { status: u16, max_age: u64, author: u32, stale: bool }
    ///
    /// let layer = CacheLayer::builder("pages")
    ///     .key(|id: &u32| Some(*id))
    ///     .tags(|_id, page: &Page, tags| tags.add(&format!("author:{}", page.author)))
    ///     .build()?;
    /// # let _: mainstay::CacheLayer<u32, Page, _> = layer;
    /// # let _ = |page: Page| (page.status, page.max_age, page.author, page.stale);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn tags(mut self, tags: impl Fn(&K, &V, &mut Tags<'_>) + Send + Sync + 'static) -> Self {
        self.policy.tags = Some(Arc::new(tags));
        self
    }

    /// Tells a response how it came about, so that it can say so: a flag, a header `Age`. It runs on the caller's own copy,
    /// for every answer with a key.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::{CacheLayer, Served};
    ///
    /// struct Page { status: u16, max_age: u64, author: u32, stale: bool }
    ///
    /// let layer = CacheLayer::builder("pages")
    ///     .key(|id: &u32| Some(*id))
    ///     .on_served(|page: &mut Page, served: Served| page.stale = served.is_stale())
    ///     .build()?;
    /// # let _: mainstay::CacheLayer<u32, Page, _> = layer;
    /// # let _ = |page: Page| (page.status, page.max_age, page.author, page.stale);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn on_served(mut self, on_served: impl Fn(&mut V, Served) + Send + Sync + 'static) -> Self {
        self.policy.on_served = Some(Arc::new(on_served));
        self
    }

    // === settings ===

    /// Sets all settings at once; those set before are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::{CacheConfig, CacheLayer};
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> =
    ///     CacheLayer::builder("users").key(|id: &u32| Some(*id)).config(CacheConfig::default()).build()?;
    /// assert_eq!(layer.handle().config(), CacheConfig::default());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn config(mut self, config: CacheConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets [`CacheConfig::capacity`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).capacity(50_000).build()?;
    /// assert_eq!(layer.handle().config().capacity, 50_000);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn capacity(mut self, capacity: u64) -> Self {
        self.config.capacity = capacity;
        self
    }

    /// Sets [`CacheConfig::ttl`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).ttl(Duration::from_secs(5)).build()?;
    /// assert_eq!(layer.handle().config().ttl, Duration::from_secs(5));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.config.ttl = ttl;
        self
    }

    /// Sets [`CacheConfig::ttl_jitter`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).ttl_jitter(0.2).build()?;
    /// assert_eq!(layer.handle().config().ttl_jitter, 0.2);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn ttl_jitter(mut self, share: f64) -> Self {
        self.config.ttl_jitter = share;
        self
    }

    /// Sets [`CacheConfig::negative_ttl`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).negative_ttl(Duration::from_secs(5)).build()?;
    /// assert_eq!(layer.handle().config().negative_ttl, Some(Duration::from_secs(5)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn negative_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.config.negative_ttl = ttl.into();
        self
    }

    /// Sets [`CacheConfig::stale_while_revalidate`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).stale_while_revalidate(Duration::from_secs(30)).build()?;
    /// assert_eq!(layer.handle().config().stale_while_revalidate, Duration::from_secs(30));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.config.stale_while_revalidate = window;
        self
    }

    /// Sets [`CacheConfig::stale_if_error`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).stale_if_error(Duration::from_secs(3600)).build()?;
    /// assert_eq!(layer.handle().config().stale_if_error, Duration::from_secs(3600));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn stale_if_error(mut self, window: Duration) -> Self {
        self.config.stale_if_error = window;
        self
    }

    /// Sets [`CacheConfig::refresh_backoff`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).refresh_backoff(Duration::from_secs(2)).build()?;
    /// assert_eq!(layer.handle().config().refresh_backoff, Duration::from_secs(2));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn refresh_backoff(mut self, first: Duration) -> Self {
        self.config.refresh_backoff = first;
        self
    }

    /// Sets [`CacheConfig::max_refresh_backoff`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).max_refresh_backoff(Duration::from_secs(120)).build()?;
    /// assert_eq!(layer.handle().config().max_refresh_backoff, Duration::from_secs(120));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn max_refresh_backoff(mut self, max: Duration) -> Self {
        self.config.max_refresh_backoff = max;
        self
    }

    /// Sets [`CacheConfig::load_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).load_timeout(Duration::from_secs(3)).build()?;
    /// assert_eq!(layer.handle().config().load_timeout, Some(Duration::from_secs(3)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn load_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.load_timeout = timeout.into();
        self
    }

    /// Sets [`CacheConfig::soft_load_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).soft_load_timeout(Duration::from_millis(200)).build()?;
    /// assert_eq!(layer.handle().config().soft_load_timeout, Some(Duration::from_millis(200)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn soft_load_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.soft_load_timeout = timeout.into();
        self
    }

    /// Sets [`CacheConfig::max_concurrent_loads`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).max_concurrent_loads(64).build()?;
    /// assert_eq!(layer.handle().config().max_concurrent_loads, 64);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn max_concurrent_loads(mut self, loads: usize) -> Self {
        self.config.max_concurrent_loads = loads;
        self
    }

    /// Sets [`CacheConfig::max_queued_loads`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).max_queued_loads(1_000).build()?;
    /// assert_eq!(layer.handle().config().max_queued_loads, 1_000);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn max_queued_loads(mut self, loads: usize) -> Self {
        self.config.max_queued_loads = loads;
        self
    }

    /// Sets [`CacheConfig::store_timeout`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).store_timeout(Duration::from_millis(50)).build()?;
    /// assert_eq!(layer.handle().config().store_timeout, Duration::from_millis(50));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn store_timeout(mut self, timeout: Duration) -> Self {
        self.config.store_timeout = timeout;
        self
    }

    /// Sets [`CacheConfig::store_failures`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).store_failures(3).build()?;
    /// assert_eq!(layer.handle().config().store_failures, 3);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn store_failures(mut self, failures: u32) -> Self {
        self.config.store_failures = failures;
        self
    }

    /// Sets [`CacheConfig::store_backoff`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).store_backoff(Duration::from_secs(2)).build()?;
    /// assert_eq!(layer.handle().config().store_backoff, Duration::from_secs(2));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn store_backoff(mut self, first: Duration) -> Self {
        self.config.store_backoff = first;
        self
    }

    /// Sets [`CacheConfig::max_store_backoff`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).max_store_backoff(Duration::from_secs(60)).build()?;
    /// assert_eq!(layer.handle().config().max_store_backoff, Duration::from_secs(60));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn max_store_backoff(mut self, max: Duration) -> Self {
        self.config.max_store_backoff = max;
        self
    }

    /// Sets [`CacheConfig::seed`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// # type Layer<F> = CacheLayer<u32, String, F>;
    /// let layer: Layer<_> = CacheLayer::builder("users").key(|id: &u32| Some(*id)).seed(7).build()?;
    /// assert_eq!(layer.handle().config().seed, Some(7));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.config.seed = seed.into();
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// The first setting whose value cannot be used; see [`CacheConfig::validate`].
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::CacheLayer;
    ///
    /// let built = CacheLayer::builder::<String>("users").key(|id: &u32| Some(*id)).ttl_jitter(2.0).build();
    /// assert_eq!(built.err().map(|error| error.field().to_owned()), Some("ttl_jitter".to_owned()));
    /// ```
    pub fn build(self) -> Result<CacheLayer<K, V, F, C, M::Store>, InvalidConfig>
    where
        K: CacheKey,
        V: Send + Sync + 'static,
        M: MakeStore<K, V>,
        M::Store: Store<K, V>,
    {
        self.config.validate().map_err(|error| error.of_layer(self.name.clone()))?;
        let store = self.store.make(&self.config);
        let (core, owner) = Core::new(self.config, store, Emitter::new(&self.name, self.listener));
        let parts =
            Parts { key: self.key, policy: Arc::new(self.policy), core: Arc::new(core), owner: Arc::new(owner) };
        Ok(CacheLayer { parts: Arc::new(parts) })
    }
}

impl<K, V, F, C, M> fmt::Debug for CacheBuilder<K, V, F, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}
