//! [`Policy`]: what is the user's in a cache: the classifier and the hooks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::served::{Served, StaleReason};
use super::versions::Tags;
use crate::error::Rejectable;

pub(crate) type StoreIf<V> = Arc<dyn Fn(&V) -> bool + Send + Sync>;
pub(crate) type StoreIfFor<K, V> = Arc<dyn Fn(&K, &V) -> bool + Send + Sync>;
pub(crate) type TtlOf<V> = Arc<dyn Fn(&V) -> Option<Duration> + Send + Sync>;
pub(crate) type TagsOf<K, V> = Arc<dyn Fn(&K, &V, &mut Tags<'_>) + Send + Sync>;
pub(crate) type OnServed<V> = Arc<dyn Fn(&mut V, Served) + Send + Sync>;

/// The classifier and the hooks.
pub(crate) struct Policy<K, V, C> {
    pub(crate) classifier: C,
    pub(crate) cache_if: Option<StoreIf<V>>,
    pub(crate) cache_if_for: Option<StoreIfFor<K, V>>,
    pub(crate) ttl_of: Option<TtlOf<V>>,
    pub(crate) tags: Option<TagsOf<K, V>>,
    pub(crate) on_served: Option<OnServed<V>>,
}

// === impl Policy ===

impl<K, V, C> Policy<K, V, C> {
    pub(crate) const fn new(classifier: C) -> Self {
        Self { classifier, cache_if: None, cache_if_for: None, ttl_of: None, tags: None, on_served: None }
    }

    pub(crate) fn with_classifier<D>(self, classifier: D) -> Policy<K, V, D> {
        Policy {
            classifier,
            cache_if: self.cache_if,
            cache_if_for: self.cache_if_for,
            ttl_of: self.ttl_of,
            tags: self.tags,
            on_served: self.on_served,
        }
    }

    /// Tells the hook how `response` came about.
    #[inline]
    pub(crate) fn served(&self, mut response: V, served: Served) -> V {
        if let Some(on_served) = &self.on_served {
            on_served(&mut response, served);
        }
        response
    }

    /// The entry's answer, fresh (`None`) or old for a reason.
    #[inline]
    pub(crate) fn answer<E: Rejectable>(
        &self,
        entry: &Entry<V>,
        now: Instant,
        stale: Option<StaleReason>,
    ) -> Result<V, E>
    where
        V: Clone,
    {
        let response = match entry.answer() {
            Ok(response) => response.clone(),
            Err(refused) => return Err(E::from_rejected(refused.clone().into())),
        };
        let Some(on_served) = &self.on_served else {
            return Ok(response);
        };
        let age = entry.age(now);
        let served = match stale {
            Some(reason) => Served::Stale { age, reason },
            None if entry.is_negative() => Served::NegativeHit { age },
            None => Served::Hit { age },
        };
        let mut response = response;
        on_served(&mut response, served);
        Ok(response)
    }

    /// Whether the hooks let `response` be stored, a success or a refusal.
    pub(crate) fn may_store(&self, key: &K, response: &V) -> bool {
        self.cache_if.as_ref().is_none_or(|cache_if| cache_if(response))
            && self.cache_if_for.as_ref().is_none_or(|cache_if| cache_if(key, response))
    }

    /// How long `response`, a success, is fresh before the jitter.
    pub(crate) fn ttl(&self, response: &V, default: Duration) -> Duration {
        self.ttl_of.as_ref().and_then(|ttl_of| ttl_of(response)).unwrap_or(default)
    }
}

impl<K, V, C> fmt::Debug for Policy<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").finish_non_exhaustive()
    }
}
