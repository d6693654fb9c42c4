//! Entries 14 and 17, and the section "Compiling": errors and outcomes.
#![cfg(all(feature = "balance", feature = "cache", feature = "retry", feature = "timeout"))]

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mainstay::balance::Pool;
use mainstay::circuit_breaker::CircuitBreakerLayer;
use mainstay::retry::{RetryLayer, retry};
use mainstay::telemetry::TelemetryLayer;
use mainstay::{
    BoxError, CircuitBreakerHandle, Error, Health, LiftLayer, LoadFailed, Outcome, Rejectable, Rejected, RetryHint,
    TimeoutLayer, classify_fn,
};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, service_fn};

#[test]
fn entry_17_not_sent_is_unhealthy_and_may_be_repeated_whatever_the_method() {
    let outcome = Outcome::NotSent;
    assert_eq!((outcome.health(), outcome.retry(), outcome.was_sent()), (Health::Unhealthy, RetryHint::Yes, false));
    assert_eq!((outcome.as_str(), outcome.is_failure(), outcome.retry_after()), ("not_sent", true, None));
}

#[tokio::test(start_paused = true)]
async fn entry_17_a_call_that_was_not_sent_counts_against_the_callee() {
    let refused = classify_fn(|result: Result<&(), &BoxError>| match result {
        Ok(()) => Outcome::Success,
        Err(_) => Outcome::NotSent,
    });
    let telemetry = TelemetryLayer::new("db").classify(refused);
    let breaker = CircuitBreakerLayer::builder("db").consecutive_failures(2).classify(refused).build().unwrap();
    let (counted, handle) = (telemetry.handle(), breaker.handle());
    let service = ServiceBuilder::new()
        .layer(telemetry)
        .layer(breaker)
        .service(service_fn(|(): ()| async { Err::<(), BoxError>("connection refused".into()) }));
    for _ in 0..3 {
        service.clone().oneshot(()).await.unwrap_err();
    }
    let statistics = handle.statistics();
    assert_eq!((statistics.failures, statistics.rejected), (2, 1));
    assert_eq!(handle.try_acquire().unwrap_err().cause(), Some(Outcome::NotSent));
    assert_eq!((counted.statistics().not_sent, counted.statistics().rejected), (2, 1));
}

#[test]
fn entry_17_a_shared_load_that_was_not_sent_was_not_sent() {
    let source = Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    let rejected = Rejected::from(LoadFailed::new(Outcome::NotSent, source.clone()));
    assert_eq!((rejected.outcome(), rejected.was_sent(), rejected.retry()), (Outcome::NotSent, false, RetryHint::Yes));
    let sent = Rejected::from(LoadFailed::new(Outcome::throttled(Duration::from_secs(1)), source));
    assert_eq!((sent.was_sent(), sent.retry()), (true, RetryHint::After(Duration::from_secs(1))));
}

/// An error with a cause, as applications write them.
#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] BoxError);

/// Shows itself as its cause, which the chain of sources then skips.
#[derive(Debug, thiserror::Error)]
enum Transparent {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error(transparent)]
    Shared(#[from] Arc<Rejected>),
}

/// A rejection at every depth that an error of other crates can put it.
fn hidden() -> Vec<BoxError> {
    let boxed = || BoxError::from_rejected(Rejected::shed());
    vec![
        boxed(),
        Rejected::shed().into(),
        Box::new(Outer(boxed())),
        Box::new(Outer(Box::new(Outer(boxed())))),
        Box::new(Transparent::from(Rejected::shed())),
        Box::new(Transparent::from(Arc::new(Rejected::shed()))),
        Box::new(Arc::new(Rejected::shed())),
        Box::new(Arc::new(Outer(boxed()))),
        Box::new(Box::new(Rejected::shed())),
        Box::new(io::Error::other(Rejected::shed())),
        Box::new(io::Error::other(boxed())),
        Box::new(io::Error::other(io::Error::other(Outer(boxed())))),
        Box::new(Error::<io::Error>::Rejected(Rejected::shed())),
        Box::new(Error::Service(io::Error::other(Rejected::shed()))),
        Box::new(Error::<Error<io::Error>>::Service(Error::Rejected(Rejected::shed()))),
        Box::new(Error::Service(Outer(boxed()))),
    ]
}

#[test]
fn entry_14_a_rejection_is_found_at_any_depth() {
    for error in hidden() {
        assert!(error.as_rejected().is_some_and(Rejected::is_shed), "{error:?}");
        assert!(Rejected::find_in(&*error).is_some_and(Rejected::is_shed), "{error:?}");
        let lifted = Error::Service(error);
        assert!(lifted.as_rejected().is_some_and(Rejected::is_shed), "{lifted:?}");
        assert!(Error::Service(lifted).as_rejected().is_some_and(Rejected::is_shed));
    }
    for error in [BoxError::from("reset"), Box::new(Outer("reset".into())), Box::new(io::Error::other("reset"))] {
        assert!(error.as_rejected().is_none(), "{error:?}");
        assert!(Error::Service(error).as_rejected().is_none());
    }
}

#[test]
fn entry_14_a_rejection_is_found_through_a_lift_of_every_kind_of_error_that_can_hold_another() {
    let shed = Rejected::shed;
    let send: Box<dyn StdError + Send> = Box::new(io::Error::other(shed()));
    let local: Box<dyn StdError> = Box::new(shed());
    let shared: Arc<dyn StdError + Send + Sync> = Arc::new(Outer(shed().into()));
    assert!(Error::Service(send).as_rejected().is_some());
    assert!(Error::Service(local).as_rejected().is_some());
    assert!(Error::Service(shared).as_rejected().is_some());
    assert!(Error::Service(io::Error::other(shed())).as_rejected().is_some());
    assert!(Error::Service(shed()).as_rejected().is_some());
    assert!(Error::Service(Error::Service(io::Error::other(shed()))).as_rejected().is_some());
    assert!(Error::Service(Error::<&str>::Rejected(shed())).as_rejected().is_some());
    assert!(Error::Service(Error::Service(Error::Service(BoxError::from(shed())))).as_rejected().is_some());
    assert!(Error::Service("reset").as_rejected().is_none());
}

/// Code that knows nothing of this crate: it follows the sources.
#[test]
fn entry_14_the_chain_of_sources_is_what_it_was_and_ends() {
    for error in hidden() {
        assert!(error.as_rejected().is_some());
        let first: &(dyn StdError + 'static) = &*error;
        let chain: Vec<_> = std::iter::successors(Some(first), |&error| error.source()).take(10).collect();
        assert!(chain.len() < 10, "{error:?}");
        assert!(chain.iter().all(|link| !link.is::<Rejected>() || link.source().is_none()), "{error:?}");
    }
    assert!(BoxError::from_rejected(Rejected::shed()).is::<Rejected>());
    let failed = Rejected::from(LoadFailed::new(Outcome::Transient, Arc::new(io::Error::other("reset"))));
    assert_eq!(Rejected::find_in(&failed), Some(&failed));
    assert_eq!(failed.source().unwrap().to_string(), "reset");
}

/// A `source()` that panics or searches by itself leaves nothing behind.
#[test]
fn entry_14_a_search_leaves_no_trace() {
    #[derive(Debug, thiserror::Error)]
    #[error("odd")]
    struct Odd(bool);
    #[derive(Debug)]
    struct Asks(Rejected);
    impl std::fmt::Display for Asks {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("asks")
        }
    }
    impl StdError for Asks {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            assert!(Rejected::find_in(&Odd(false)).is_none());
            self.0.is_shed().then(|| self.0.source()).flatten().or_else(|| panic!("not in a search, or lost"))
        }
    }
    let asks = Asks(Rejected::shed());
    assert!(Rejected::find_in(&asks).is_some_and(Rejected::is_shed));
    let panics = Asks(Rejected::Limited { retry_after: None });
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Rejected::find_in(&panics).is_some())).is_err());
    assert!(Rejected::shed().source().is_none());
    let _ = Odd(true).0;
}

/// An error whose `source()` is the root of the chain that it holds: within a search, too, the chain that it follows has an end.
#[test]
fn entry_14_a_chain_that_is_followed_within_a_search_ends() {
    #[derive(Debug)]
    struct Root(Outer);
    impl std::fmt::Display for Root {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("root")
        }
    }
    impl StdError for Root {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            let first: &(dyn StdError + 'static) = &self.0;
            let chain: Vec<_> = std::iter::successors(Some(first), |&error| error.source()).take(10).collect();
            assert!(chain.len() < 10, "endless");
            chain.last().copied()
        }
    }
    let error: BoxError = Box::new(Root(Outer(Rejected::shed().into())));
    assert!(error.as_rejected().is_some_and(Rejected::is_shed));
    let error: BoxError = Box::new(Root(Outer("reset".into())));
    assert!(error.as_rejected().is_none());
}

#[tokio::test(start_paused = true)]
async fn entry_14_a_local_rejection_below_a_lift_costs_no_attempt_and_no_budget() {
    for depth in 0..hidden().len() {
        let policy = RetryLayer::builder("users").build().unwrap();
        let before = policy.handle().statistics();
        let open = CircuitBreakerHandle::builder("db").build_handle().unwrap();
        open.force_open();
        let wrap = move || -> BoxError {
            let rejected = Rejected::from(open.try_acquire().unwrap_err());
            match depth % 4 {
                0 => rejected.into(),
                1 => Box::new(Outer(rejected.into())),
                2 => Box::new(io::Error::other(rejected)),
                _ => Box::new(Transparent::Rejected(rejected)),
            }
        };
        let error = retry(&policy, || std::future::ready(Err::<(), BoxError>(wrap()))).await.unwrap_err();
        assert!(error.as_rejected().is_some_and(Rejected::is_circuit_open));
        let breaker = CircuitBreakerLayer::builder("outer").consecutive_failures(1).build().unwrap();
        let mut lifted = ServiceBuilder::new()
            .layer(policy.clone())
            .layer(breaker.clone())
            .layer(LiftLayer::new())
            .service(service_fn(|(): ()| std::future::ready(Err::<(), BoxError>(wrap()))));
        let error: Error<BoxError> = lifted.ready().await.unwrap().call(()).await.unwrap_err();
        assert!(error.as_rejected().is_some_and(Rejected::is_circuit_open));
        assert_eq!(breaker.handle().statistics().failures, 0, "no evidence against the callee");
        let after = policy.handle().statistics();
        assert_eq!(after.retries, before.retries, "at depth {depth}");
    }
}

#[test]
fn compiling_a_lifted_box_is_no_dead_end() {
    fn boxed(error: Error<BoxError>) -> Result<(), BoxError> {
        let result: Result<(), _> = Err(error);
        result.map_err(Error::into_boxed)
    }
    let error = boxed(Error::Service(Box::new(Outer("reset".into())))).unwrap_err();
    assert!(error.is::<Outer>() && error.source().is_some_and(|source| source.to_string() == "reset"));
    assert!(boxed(Error::Rejected(Rejected::shed())).unwrap_err().is::<Rejected>());
    assert_eq!(Error::Service("reset").into_boxed().to_string(), "reset");
}

/// Each of these compiles with a boxed error inside of an `async` block, where the compiler forgets lifetimes.
#[tokio::test(start_paused = true)]
async fn compiling_calls_with_a_boxed_error_can_be_spawned() {
    type Boxed = BoxCloneSyncService<u32, u32, BoxError>;
    const SECOND: Duration = Duration::from_secs(1);
    let inner = service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) });
    let pool = || {
        let pool: Pool<u16, Boxed> = Pool::builder("app").build().unwrap();
        pool.handle().add(1, BoxCloneSyncService::new(inner));
        pool
    };
    let retry = || RetryLayer::builder("app").build().unwrap();
    let breaker = || CircuitBreakerLayer::builder("app").build().unwrap();
    let total = || TimeoutLayer::total("app", SECOND).unwrap();
    let stack = || {
        ServiceBuilder::new()
            .layer(TelemetryLayer::new("app"))
            .layer(total())
            .layer(retry())
            .layer(breaker())
            .layer(TimeoutLayer::attempt("app", SECOND).unwrap())
            .service(inner)
    };
    let mut answers = Vec::new();
    macro_rules! spawned {
        ($(let mut $service:ident = $make:expr; $call:expr;)*) => {
            $({
                #[allow(unused_mut, reason = "only some of the calls need it")]
                let mut $service = $make;
                let answer: Result<u32, BoxError> = tokio::spawn(async move { $call }).await.unwrap();
                answers.push(answer.unwrap());
            })*
        };
    }
    spawned! {
        let mut s = pool(); s.oneshot(1).await;
        let mut s = pool(); tower::ServiceExt::oneshot(s, 1).await;
        let mut s = pool(); s.ready().await?.call(1).await;
        let mut s = pool(); { std::future::poll_fn(|cx| s.poll_ready(cx)).await?; s.call(1).await };
        let mut s = retry().layer(inner); s.oneshot(1).await;
        let mut s = retry().layer(inner); tower::ServiceExt::oneshot(s, 1).await;
        let mut s = retry().layer(pool()); s.oneshot(1).await;
        let mut s = retry().layer(pool()); tower::ServiceExt::oneshot(s, 1).await;
        let mut s = total().layer(inner); s.oneshot(1).await;
        let mut s = breaker().layer(inner); s.ready().await?.call(1).await;
        let mut s = TelemetryLayer::new("app").layer(inner); tower::ServiceExt::oneshot(s, 1).await;
        let mut s = stack(); s.oneshot(1).await;
        let mut s = stack(); s.ready().await?.call(1).await;
        let mut s = stack(); tower::ServiceExt::oneshot(s, 1).await;
        let mut s = stack(); tower::ServiceExt::ready(&mut s).await?.call(1).await;
        let mut s = retry(); s.run(|| async { Ok(2) }).await;
        let mut s = retry(); mainstay::retry::retry(&s, || async { Ok::<_, BoxError>(2) }).await.map_err(Error::into_boxed);
        let mut s = breaker().handle(); s.call(async { Ok(2) }).await;
        let mut s = retry().layer(LiftLayer::new().layer(inner)); s.oneshot(1).await.map_err(Error::into_boxed);
    }
    // A closure that judges boxed errors, a cache, and a lifted box, whose errors must be `'static`: by the service's own methods.
    let judge = classify_fn(|result: Result<&u32, &BoxError>| match result {
        Ok(_) => Outcome::Success,
        Err(_) => Outcome::Permanent,
    });
    let judged = move || RetryLayer::builder("app").classify(judge).build().unwrap().layer(inner);
    let judging = move || RetryLayer::builder("app").classify(judge).build().unwrap();
    let judged_stack =
        move || judging().layer(CircuitBreakerLayer::builder("app").classify(judge).build().unwrap().layer(inner));
    let judged_pool = move || {
        let pool: Pool<u16, Boxed, _> = Pool::builder("app").classify(judge).build().unwrap();
        pool.handle().add(1, BoxCloneSyncService::new(inner));
        judging().layer(pool)
    };
    let cache = || mainstay::CacheLayer::builder("app").key(|n: &u32| Some(*n)).build().unwrap().layer(inner);
    spawned! {
        let mut s = judged(); s.oneshot(1).await;
        let mut s = judged(); s.ready().await?.call(1).await;
        let mut s = CircuitBreakerLayer::builder("app").classify(judge).build().unwrap().layer(inner); s.oneshot(1).await;
        let mut s = TelemetryLayer::new("app").classify(judge).layer(breaker().layer(inner)); s.oneshot(1).await;
        let mut s = cache(); s.oneshot(1).await;
        let mut s = cache(); s.ready().await?.call(1).await;
        let mut s = BoxCloneSyncService::new(judged()); tower::ServiceExt::oneshot(s, 1).await;
        let mut s = total().layer(judged_stack()); s.oneshot(1).await;
        let mut s = total().layer(judged_stack()); s.ready().await?.call(1).await;
        let mut s = total().layer(judged_pool()); s.oneshot(1).await;
        let mut s = total().layer(judged_pool()); s.ready().await?.call(1).await;
        let mut s = total().layer(retry().layer(breaker().layer(LiftLayer::new().layer(inner))));
            s.oneshot(1).await.map_err(Error::into_boxed);
        let mut s = BoxCloneSyncService::new(cache()); tower::ServiceExt::oneshot(s, 1).await;
    }
    assert_eq!(answers, vec![2; answers.len()]);

    // A function that takes the service, a bare future, and an error that is lifted.
    async fn call(pool: Pool<u16, Boxed>) -> Result<u32, BoxError> {
        pool.oneshot(1).await
    }
    assert_eq!(tokio::spawn(call(pool())).await.unwrap().unwrap(), 2);
    assert_eq!(tokio::spawn(pool().oneshot(1)).await.unwrap().unwrap(), 2);
    let lifted = ServiceBuilder::new()
        .layer(total())
        .layer(retry())
        .layer(breaker())
        .layer(LiftLayer::new())
        .service(service_fn(|n: u32| async move { Ok::<_, io::Error>(n + 1) }));
    let spawned = lifted.clone();
    assert_eq!(tokio::spawn(async move { spawned.oneshot(1).await }).await.unwrap().unwrap(), 2);
    assert_eq!(tokio::spawn(async move { tower::ServiceExt::oneshot(lifted, 1).await }).await.unwrap().unwrap(), 2);
}

#[test]
fn compiling_a_handler_of_axum_can_make_calls() {
    use axum::extract::State;
    use axum::routing::get;
    type Users = Pool<u16, BoxCloneSyncService<(), (), BoxError>>;
    fn said(answer: Result<(), BoxError>) -> &'static str {
        if answer.is_ok() { "ok" } else { "no" }
    }
    let pool: Users = Pool::builder("app").build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(TimeoutLayer::total("app", Duration::from_secs(1)).unwrap())
        .layer(RetryLayer::builder("app").build().unwrap())
        .service(pool.clone());
    let router = axum::Router::new()
        .route("/own", get(|State(pool): State<Users>| async move { said(pool.oneshot(()).await) }))
        .route(
            "/tower",
            get(|State(pool): State<Users>| async move { said(tower::ServiceExt::oneshot(pool, ()).await) }),
        )
        .route(
            "/ready",
            get(
                |State(mut pool): State<Users>| async move { said(async { pool.ready().await?.call(()).await }.await) },
            ),
        )
        .with_state::<()>(pool)
        .route("/captured", {
            let stack = stack.clone();
            get(move || {
                let stack = stack.clone();
                async move { said(stack.oneshot(()).await) }
            })
        })
        .route("/captured-by-tower", get(move || async move { said(tower::ServiceExt::oneshot(stack, ()).await) }));
    let server_side = ServiceBuilder::new()
        .layer(axum::error_handling::HandleErrorLayer::new(|error: Error<std::convert::Infallible>| async move {
            (http::StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }))
        .layer(TimeoutLayer::total("server", Duration::from_secs(3)).unwrap())
        .layer(LiftLayer::new());
    let _ = router.layer(server_side);
}

#[cfg(feature = "http")]
#[test]
fn compiling_a_client_of_http_that_knows_what_was_not_sent() {
    type Client = BoxCloneSyncService<http::Request<String>, http::Response<String>, BoxError>;
    let refused = mainstay::HttpClassifier::new()
        .not_sent_if(|error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused)
        .not_sent_if(|error: &hyper_util::client::legacy::Error| error.is_connect())
        .not_sent_if(|error: &reqwest::Error| error.is_connect());
    let pool: Pool<u16, Client, _> = Pool::builder("app").classify(refused.clone()).build().unwrap();
    let users = ServiceBuilder::new()
        .layer(TelemetryLayer::new("app").classify(refused.clone()))
        .layer(TimeoutLayer::total("app", Duration::from_secs(1)).unwrap())
        .layer(RetryLayer::builder("app").http().classify(refused).build().unwrap())
        .service(pool);
    let get = axum::routing::get(move || async move {
        users.oneshot(http::Request::new(String::new())).await.map_err(|error| error.to_string())
    });
    let _ = axum::Router::<()>::new().route("/", get);
}

#[test]
fn compiling_clients_of_http_and_grpc_fit() {
    let attempt = || TimeoutLayer::attempt("connect", Duration::from_secs(1)).unwrap();
    let _ = reqwest::Client::builder().connector_layer(attempt()).build().unwrap();
    let breaker = CircuitBreakerLayer::builder("connect").build().unwrap();
    let _ = reqwest::Client::builder().connector_layer(breaker).build().unwrap();
    let client = ServiceBuilder::new().layer(attempt()).layer(LiftLayer::new()).service(reqwest::Client::new());
    let request = reqwest::Request::new(reqwest::Method::GET, "http://127.0.0.1:1/".parse().unwrap());
    let call = async move { client.oneshot(request).await.map(drop) };
    fn is_send<T: Send>(_: &T) {}
    is_send(&call);

    type Channel = BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, BoxError>;
    let pool: Pool<u16, Channel> = Pool::builder("grpc").build().unwrap();
    let _ = tonic::client::Grpc::new(pool);
}

/// A closure compiles as a classifier where its argument is written out, and through `classify_fn` where it is not.
#[tokio::test(start_paused = true)]
async fn compiling_a_closure_that_judges() {
    let failing = service_fn(|(): ()| async { Err::<(), BoxError>("no".into()) });
    let written = RetryLayer::builder("app").classify(|_: Result<&(), &BoxError>| Outcome::Permanent).build().unwrap();
    let inferred = RetryLayer::builder("app").classify(classify_fn(|_| Outcome::Permanent)).build().unwrap();
    written.layer(failing).oneshot(()).await.unwrap_err();
    inferred.layer(failing).oneshot(()).await.unwrap_err();
    assert_eq!(written.handle().statistics().retries, 0);
    assert_eq!(inferred.handle().statistics().retries, 0);
}
