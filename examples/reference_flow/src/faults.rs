//! What goes wrong on purpose inside of an application server. The parent asks for it by a line on the standard input, so
//! no request can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use mainstay::cache::{Entry, MemoryStore, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::net::Body;

/// A state of affairs; each command sets all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Every answer takes this long more.
    Slow(Duration),
    /// Every second request is answered with a 500.
    FailHalf,
    /// Whatever the cache's store is asked, it fails.
    CacheFails,
    /// Whatever the cache's store is asked, it never answers.
    CacheHangs,
}

/// The present state, shared by all who suffer from it.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    now: Arc<watch::Sender<Fault>>,
    requests: Arc<AtomicU64>,
}

/// The cache's store, which fails or hangs when it is told to.
#[derive(Clone, Debug)]
pub(crate) struct FaultyStore {
    store: MemoryStore<String, http::Response<Body>>,
    faults: Faults,
}

// === impl Faults ===

impl Default for Faults {
    fn default() -> Self {
        Self { now: Arc::new(watch::Sender::new(Fault::None)), requests: Arc::default() }
    }
}

impl Faults {
    pub(crate) fn set(&self, fault: Fault) {
        self.now.send_replace(fault);
    }

    /// Before a request is worked on: late, or with an error in its place.
    pub(crate) async fn request(&self) -> Result<(), StatusCode> {
        let fault = *self.now.borrow();
        match fault {
            Fault::Slow(time) => tokio::time::sleep(time).await,
            Fault::FailHalf if self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) => {
                return Err(StatusCode::INTERNAL_SERVER_ERROR);
            }
            _ => {}
        }
        Ok(())
    }

    /// Before the cache's store is used: an error, or nothing until it is well again.
    pub(crate) async fn cache(&self) -> Result<(), StoreError> {
        let fault = *self.now.borrow();
        match fault {
            Fault::CacheFails => Err(StoreError::new("out of order, on purpose")),
            Fault::CacheHangs => {
                let _ = self.now.subscribe().wait_for(|fault| *fault != Fault::CacheHangs).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

// === impl FaultyStore ===

impl FaultyStore {
    pub(crate) fn new(capacity: u64, faults: Faults) -> Self {
        Self { store: MemoryStore::new(capacity), faults }
    }
}

impl Store<String, http::Response<Body>> for FaultyStore {
    async fn get(&self, key: &String) -> Result<Option<Arc<Entry<http::Response<Body>>>>, StoreError> {
        self.faults.cache().await?;
        self.store.get(key).await
    }

    async fn set(
        &self,
        key: &String,
        entry: Arc<Entry<http::Response<Body>>>,
        keep_for: Duration,
    ) -> Result<(), StoreError> {
        self.faults.cache().await?;
        self.store.set(key, entry, keep_for).await
    }

    async fn remove(&self, key: &String) -> Result<(), StoreError> {
        self.faults.cache().await?;
        self.store.remove(key).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.store.clear().await
    }
}
