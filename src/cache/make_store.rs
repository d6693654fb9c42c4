//! [`MakeStore`]: what a builder's store is made of when it is built.

use super::config::CacheConfig;
use super::key::CacheKey;
use super::store::{MemoryStore, Store};

/// What makes a builder's store when it is built; sealed.
///
/// # Examples
///
/// ```
/// use mainstay::cache::{CacheBuilder, CacheLayer, MakeStore, Store};
/// use mainstay::{DefaultClassifier, InvalidConfig};
///
/// // A function over every builder, whatever its store.
/// fn built<F, M>(builder: CacheBuilder<u32, String, F, DefaultClassifier, M>) -> Result<(), InvalidConfig>
/// where
///     M: MakeStore<u32, String>,
///     M::Store: Store<u32, String>,
/// {
///     builder.build().map(drop)
/// }
/// built(CacheLayer::builder("users").key(|id: &u32| Some(*id)))?;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
pub trait MakeStore<K, V>: sealed::Sealed {
    /// The store it makes.
    type Store;

    /// Makes the store.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::{CacheConfig, MakeStore, MemoryStore};
    ///
    /// // What `build` does.
    /// fn made<M: MakeStore<u32, String>>(store: M) -> M::Store {
    ///     store.make(&CacheConfig::default())
    /// }
    /// # let _ = made::<mainstay::cache::InMemory>;
    /// ```
    fn make(self, config: &CacheConfig) -> Self::Store;
}

/// A [`MemoryStore`] of [`capacity`](CacheConfig::capacity) entries.
///
/// # Examples
///
/// ```
/// use mainstay::cache::{CacheBuilder, CacheLayer, InMemory, NoKey};
///
/// let builder: CacheBuilder<(), String, NoKey, _, InMemory> = CacheLayer::builder("users");
/// # let _: CacheBuilder<(), String, NoKey> = builder;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct InMemory(pub(super) ());

/// A [`MemoryStore`] whose entries' weights add up to [`capacity`](CacheConfig::capacity).
///
/// # Examples
///
/// ```
/// use mainstay::cache::CacheLayer;
///
/// let builder = CacheLayer::builder("pages")
///     .key(|path: &String| Some(path.clone()))
///     .weigher(|_: &String, page: Option<&String>| page.map_or(1, |page| u32::try_from(page.len()).unwrap_or(u32::MAX)));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Weighted<W>(pub(super) W);

/// A store made elsewhere.
///
/// # Examples
///
/// ```
/// use mainstay::cache::{CacheLayer, MemoryStore};
///
/// let store: MemoryStore<u32, String> = MemoryStore::new(100);
/// let builder = CacheLayer::builder("users").key(|id: &u32| Some(*id)).store(store);
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Custom<St>(pub(super) St);

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::InMemory {}
    impl<W> Sealed for super::Weighted<W> {}
    impl<St> Sealed for super::Custom<St> {}
}

// === impl MakeStore ===

impl<K: CacheKey, V: Send + Sync + 'static> MakeStore<K, V> for InMemory {
    type Store = MemoryStore<K, V>;

    fn make(self, config: &CacheConfig) -> Self::Store {
        MemoryStore::new(config.capacity)
    }
}

impl<K: CacheKey, V: Send + Sync + 'static, W> MakeStore<K, V> for Weighted<W>
where
    W: Fn(&K, Option<&V>) -> u32 + Send + Sync + 'static,
{
    type Store = MemoryStore<K, V>;

    fn make(self, config: &CacheConfig) -> Self::Store {
        MemoryStore::weighted(config.capacity, self.0)
    }
}

impl<K, V, St: Store<K, V>> MakeStore<K, V> for Custom<St> {
    type Store = St;

    fn make(self, _: &CacheConfig) -> Self::Store {
        self.0
    }
}
