//! A cache-aside over moka: look, else load and keep.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response};
use mainstay::BoxError;
use moka::sync::Cache;
use tokio::time::timeout;
use tower::{Service, ServiceExt as _};

use crate::CACHE_TTL;
use crate::application::Cached;
use crate::faults::Faults;
use crate::net::{Body, CACHE, HttpStack};

/// More than the flow has paths.
const CAPACITY: u64 = 100_000;

/// How long the store may take, as in mainstay's cache.
const STORE_TIMEOUT: Duration = Duration::from_millis(50);

/// The answers that are kept, by path. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    answers: Cache<String, Arc<Response<Body>>>,
    faults: Faults,
}

/// Answers from what is kept; what is not, `loads` answers. Readers that miss the same key at once all load it.
#[derive(Clone, Debug)]
pub(super) struct CacheAside {
    kept: Kept,
    loads: HttpStack,
}

// === impl Kept ===

impl Kept {
    pub(super) fn new(faults: Faults) -> Self {
        Self { answers: Cache::builder().max_capacity(CAPACITY).time_to_live(CACHE_TTL).build(), faults }
    }

    /// Nothing, too, where the store fails or is late.
    async fn get(&self, path: &str) -> Option<Arc<Response<Body>>> {
        self.store().await.ok()?;
        self.answers.get(path)
    }

    async fn set(&self, path: String, answer: Arc<Response<Body>>) {
        // Where the store fails, the next reader loads it again.
        if self.store().await.is_ok() {
            self.answers.insert(path, answer);
        }
    }

    /// Whether the store may be used now.
    async fn store(&self) -> Result<(), BoxError> {
        Ok(timeout(STORE_TIMEOUT, self.faults.cache()).await??)
    }
}

impl Cached for Kept {
    fn forget<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async {
            self.store().await?;
            self.answers.invalidate(path);
            Ok(())
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async {
            self.answers.invalidate_all();
            Ok(())
        })
    }

    fn coalesced(&self) -> u64 {
        0
    }
}

// === impl CacheAside ===

impl CacheAside {
    pub(super) fn new(kept: Kept, loads: HttpStack) -> Self {
        Self { kept, loads }
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let path = request.uri().path().to_owned();
        if let Some(answer) = self.kept.get(&path).await {
            return Ok(served(Response::clone(&answer), "hit"));
        }
        let answer = self.loads.oneshot(request).await?;
        if answer.status().is_success() {
            let (kept, answer) = (self.kept, Arc::new(answer.clone()));
            // The reader does not wait for a store that hangs (mainstay's does not, either).
            tokio::spawn(async move { kept.set(path, answer).await });
        }
        Ok(served(answer, "miss"))
    }
}

impl Service<Request<Body>> for CacheAside {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    /// Always ready: a hit must not wait for (or hold) a place among the loads.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

fn served(mut answer: Response<Body>, how: &'static str) -> Response<Body> {
    answer.headers_mut().insert(CACHE, HeaderValue::from_static(how));
    answer
}
