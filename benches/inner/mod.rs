//! The services that layers are put around.
#![allow(dead_code, reason = "each benchmark uses those it needs")]

use std::hint::black_box;

use mainstay::BoxError;
use tower::{Service, service_fn};

pub(crate) fn ready() -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone {
    service_fn(|request: u64| std::future::ready(Ok(black_box(request))))
}

/// Is pending once.
pub(crate) fn pending() -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone {
    service_fn(|request: u64| async move {
        tokio::task::yield_now().await;
        Ok(request)
    })
}
