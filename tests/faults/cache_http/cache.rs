//! Invalidation, single flight, and what may be shared or stored.
#![cfg(feature = "cache")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay::cache::CacheLayer;
use mainstay::{BoxError, Classify, Outcome, classify_fn};
use tower::{Layer, service_fn};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// === what is stored for others ===

/// The second of two callers of one path, each of whose answers has the status of its own request.
#[cfg(feature = "http")]
async fn second_status(first: u16, build: impl FnOnce(HttpBuilder) -> HttpBuilder) -> u16 {
    let inner = service_fn(|request: http::Request<u16>| async move {
        Ok::<_, BoxError>(http::Response::builder().status(*request.body()).body(()).unwrap())
    });
    let key: HttpKey = |request| Some(request.uri().path().to_owned());
    let builder = CacheLayer::builder("pages").key(key).classify(mainstay::HttpClassifier::new());
    let cache = build(builder.negative_ttl(secs(60))).build().unwrap().layer(inner);
    let request = |status| http::Request::builder().uri("/page").body(status).unwrap();
    cache.clone().oneshot(request(first)).await.unwrap();
    cache.clone().oneshot(request(200)).await.unwrap().status().as_u16()
}

#[cfg(feature = "http")]
type HttpKey = fn(&http::Request<u16>) -> Option<String>;
#[cfg(feature = "http")]
type HttpBuilder = mainstay::cache::CacheBuilder<String, http::Response<()>, HttpKey, mainstay::HttpClassifier>;

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn entry_12_only_refusals_that_are_the_same_for_all_callers_are_remembered() {
    for status in [404, 410] {
        assert_eq!(second_status(status, |builder| builder).await, status);
    }
    for status in [400, 401, 403, 405, 406, 409, 411, 412, 413, 414, 415, 416, 417, 422, 426, 428, 431, 451] {
        assert_eq!(second_status(status, |builder| builder).await, 200, "after a {status}");
    }
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn entry_12_cache_if_decides_for_refusals_too() {
    assert_eq!(second_status(404, |builder| builder.cache_if(|page| page.status() == 200)).await, 200);
    assert_eq!(second_status(404, |builder| builder.cache_if(|page| page.status() == 404)).await, 404);
    assert_eq!(second_status(404, |builder| builder.cache_if_for(|path, _| path != "/page")).await, 200);
}

#[cfg(feature = "grpc")]
#[test]
fn entry_12_over_grpc_only_not_found_is_the_same_for_all_callers() {
    let depends = |code: &'static str| {
        let response = http::Response::builder().header("grpc-status", code).body(()).unwrap();
        mainstay::GrpcClassifier::new().depends_on_caller(Ok::<_, &BoxError>(&response))
    };
    assert!(!depends("5"));
    for code in ["3", "6", "7", "9", "10", "11", "16"] {
        assert!(depends(code), "code {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_12_a_classifier_says_which_refused_errors_are_remembered() {
    struct ByWords;
    impl Classify<u32, BoxError> for ByWords {
        fn classify(&self, result: Result<&u32, &BoxError>) -> Outcome {
            if result.is_ok() { Outcome::Success } else { Outcome::Refused }
        }
        fn depends_on_caller(&self, result: Result<&u32, &BoxError>) -> bool {
            result.is_err_and(|error| error.to_string() == "not yours")
        }
    }
    for (words, loads) in [("no such row", 1), ("not yours", 3)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let inner = service_fn({
            let asked = Arc::clone(&asked);
            move |_: u32| {
                asked.fetch_add(1, Ordering::SeqCst);
                async move { Err::<u32, BoxError>(words.into()) }
            }
        });
        let builder = CacheLayer::builder("rows").key(|key: &u32| Some(*key)).classify(ByWords);
        let cache = builder.negative_ttl(secs(60)).build().unwrap().layer(inner);
        for _ in 0..3 {
            cache.clone().oneshot(1).await.unwrap_err();
        }
        assert_eq!(asked.load(Ordering::SeqCst), loads, "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_13_the_store_decision_sees_the_key() {
    let asked = Arc::new(AtomicUsize::new(0));
    let inner = service_fn({
        let asked = Arc::clone(&asked);
        move |(_, signed_in): (u32, bool)| {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, BoxError>((number, signed_in)) }
        }
    });
    let layer = CacheLayer::builder("pages")
        .key(|request: &(u32, bool)| (request.0 != 0).then_some(*request))
        .classify(classify_fn(|_: Result<&(usize, bool), &BoxError>| Outcome::Success))
        .cache_if_for(|key: &(u32, bool), _| !key.1)
        .build()
        .unwrap();
    let cache = layer.layer(inner);
    let mut numbers = Vec::new();
    for request in [(1, false), (1, false), (1, true), (1, true), (0, false), (0, false)] {
        numbers.push(cache.clone().oneshot(request).await.unwrap().0);
    }
    assert_eq!(numbers, [0, 0, 1, 2, 3, 4], "stored, not stored by its key, and sent past the cache");
}
