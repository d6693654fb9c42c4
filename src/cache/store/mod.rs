//! [`Store`]: where the answers are kept.

mod memory;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

pub use memory::MemoryStore;

use super::entry::Entry;
use crate::error::BoxError;

/// Where a cache keeps its entries.
///
/// A store keeps entries and hands them back; it judges nothing. Whether an entry may still be served is read from the entry
/// itself, so a store that drops entries early costs a load, and one that keeps them too long costs memory.
///
/// What a store does is never a call's failure: an operation that fails, panics or takes longer than
/// [`store_timeout`](super::CacheConfig::store_timeout) is counted and left out, and a store that keeps failing is not asked
/// for a while ([`store_failures`](super::CacheConfig::store_failures)).
///
/// # Examples
///
/// A store that keeps nothing:
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use mainstay::cache::{Entry, Store, StoreError};
///
/// struct Nowhere;
///
/// impl<K: Sync, V: Send + Sync> Store<K, V> for Nowhere {
///     async fn get(&self, _: &K) -> Result<Option<Arc<Entry<V>>>, StoreError> {
///         Ok(None)
///     }
///
///     async fn set(&self, _: &K, _: Arc<Entry<V>>, _: Duration) -> Result<(), StoreError> {
///         Ok(())
///     }
///
///     async fn remove(&self, _: &K) -> Result<(), StoreError> {
///         Ok(())
///     }
///
///     async fn clear(&self) -> Result<(), StoreError> {
///         Ok(())
///     }
/// }
/// ```
pub trait Store<K, V>: Send + Sync + 'static {
    /// The entry of `key`, if it can be told at once: what a store in this process's memory answers.
    ///
    /// It is asked by every call, on the caller's task, and must neither wait nor panic. The default sends the question to
    /// [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::{Lookup, MemoryStore, Store};
    ///
    /// let store: MemoryStore<u32, String> = MemoryStore::new(100);
    /// assert!(matches!(store.get_now(&7), Lookup::Known(None)));
    /// ```
    fn get_now(&self, key: &K) -> Lookup<V> {
        let _ = key;
        Lookup::Ask
    }

    /// The entry of `key`, asked by the load of the key, once for all calls that wait for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::{MemoryStore, Store, StoreError};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), StoreError> {
    /// let store: MemoryStore<u32, String> = MemoryStore::new(100);
    /// assert!(store.get(&7).await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    fn get(&self, key: &K) -> impl Future<Output = Result<Option<Arc<Entry<V>>>, StoreError>> + Send;

    /// Keeps `entry`, of which nothing will be wanted after `keep_for`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use mainstay::cache::{Entry, MemoryStore, Store, StoreError};
    ///
    /// async fn copy(to: &MemoryStore<u32, String>, key: u32, entry: Arc<Entry<String>>) -> Result<(), StoreError> {
    ///     to.set(&key, entry, Duration::from_secs(60)).await
    /// }
    /// # let _ = copy;
    /// ```
    fn set(
        &self,
        key: &K,
        entry: Arc<Entry<V>>,
        keep_for: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Forgets `key`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::{MemoryStore, Store, StoreError};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), StoreError> {
    /// let store: MemoryStore<u32, String> = MemoryStore::new(100);
    /// store.remove(&7).await?;
    /// # Ok(())
    /// # }
    /// ```
    fn remove(&self, key: &K) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Forgets everything.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::cache::{MemoryStore, Store, StoreError};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), StoreError> {
    /// let store: MemoryStore<u32, String> = MemoryStore::new(100);
    /// store.clear().await?;
    /// assert!(store.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    fn clear(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// What [`Store::get_now`] answers.
///
/// # Examples
///
/// ```
/// use mainstay::cache::Lookup;
///
/// assert!(matches!(Lookup::<u32>::Known(None), Lookup::Known(None)));
/// ```
#[derive(Debug)]
pub enum Lookup<V> {
    /// The store knows: this entry, or none.
    Known(Option<Arc<Entry<V>>>),
    /// It takes a [`get`](Store::get) to know.
    Ask,
}

/// Why a store did not do what it was asked.
///
/// # Examples
///
/// ```
/// use mainstay::cache::StoreError;
///
/// let error = StoreError::new("connection refused");
/// assert_eq!(error.to_string(), "the store failed: connection refused");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store's own error.
    #[error("the store failed: {0}")]
    Failed(#[source] BoxError),
    /// It took longer than the configured timeout.
    #[error("the store took longer than {timeout:?}")]
    TimedOut {
        /// The configured timeout.
        timeout: Duration,
    },
    /// It was not asked, because it kept failing.
    #[error("the store is left alone after it kept failing")]
    Bypassed,
    /// It panicked.
    #[error("the store panicked")]
    Panicked,
}

// === impl StoreError ===

impl StoreError {
    /// The store's own error.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = mainstay::cache::StoreError::new(std::io::Error::other("reset"));
    /// # let _ = error;
    /// ```
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self::Failed(error.into())
    }
}
