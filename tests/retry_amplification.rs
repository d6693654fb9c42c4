//! How much load retries add to a dead backend, and what a call leaves behind that is dropped at any point.
#![cfg(feature = "retry")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use mainstay::BoxError;
use mainstay::backoff::BackoffConfig;
use mainstay::retry::{RetryBuilder, RetryLayer};
use tower::{Layer, ServiceExt, service_fn};

const CALLS: u32 = 10_000;

/// Four attempts at once, and the budget that is on by default.
fn four() -> RetryBuilder {
    RetryLayer::builder("client").max_attempts(4).backoff(BackoffConfig::none())
}

/// Scenario 24: without marks and budgets three clients of four attempts make 64 calls of one. R11.
#[tokio::test(start_paused = true)]
async fn three_stacked_clients_of_one_process_send_a_fifth_more_calls_to_a_dead_backend() {
    let load = Arc::new(AtomicU32::new(0));
    let count = load.clone();
    let dead = service_fn(move |(): ()| {
        count.fetch_add(1, Relaxed);
        std::future::ready(Err::<(), _>(BoxError::from("down")))
    });
    let layers = [four(), four(), four()].map(|builder| builder.build().unwrap());
    let client = layers[0].layer(layers[1].layer(layers[2].layer(dead)));
    for _ in 0..CALLS {
        let error = client.clone().oneshot(()).await.unwrap_err();
        assert_eq!(error.to_string(), "down", "the last real result");
    }
    let sent = load.load(Relaxed);
    assert!((11_900..=12_500).contains(&sent), "{sent} calls: the budget bounds them, and is there to be used");
    assert!(layers[2].handle().statistics().gave_up_budget > 0);
    assert_eq!(layers.map(|layer| layer.handle().statistics().calls()), [u64::from(CALLS); 3]);
}

#[cfg(feature = "http")]
mod processes {
    use super::*;
    use http::{Request, Response};
    use mainstay::http::{AcceptContextConfig, AcceptContextLayer, PropagateLayer};
    use tower::ServiceBuilder;
    use tower::util::BoxCloneService;

    type Fail = mainstay::Error<std::io::Error>;
    type Server = BoxCloneService<Request<()>, Response<()>, Fail>;

    fn answer(status: u16) -> Response<()> {
        Response::builder().status(status).body(()).unwrap()
    }

    /// A process that calls `next`, and answers in its own words. What it shares with its callers are headers or nothing: a task
    /// has no part in the context of another.
    fn process(next: Server, headers: bool) -> Server {
        let client =
            ServiceBuilder::new().layer(four().http().build().unwrap()).layer(PropagateLayer::new()).service(next);
        let handler = service_fn(move |_: Request<()>| {
            let client = client.clone();
            async move {
                let response = client.oneshot(Request::get("/").body(()).unwrap()).await?;
                Ok::<_, Fail>(answer(if response.status().is_success() { 200 } else { 503 }))
            }
        });
        if headers {
            let accept = AcceptContextLayer::new(AcceptContextConfig::default()).unwrap();
            return BoxCloneService::new(accept.layer(handler));
        }
        BoxCloneService::new(service_fn(move |request| {
            let call = tokio::spawn(handler.clone().oneshot(request));
            async { call.await.unwrap() }
        }))
    }

    /// How many calls a dead backend gets behind three processes.
    async fn load_behind_three(headers: bool) -> u32 {
        let load = Arc::new(AtomicU32::new(0));
        let count = load.clone();
        let mut server = BoxCloneService::new(service_fn(move |_: Request<()>| {
            count.fetch_add(1, Relaxed);
            std::future::ready(Ok(answer(503)))
        }));
        for _ in 0..3 {
            server = process(server, headers);
        }
        for _ in 0..CALLS {
            let status = server.clone().oneshot(Request::get("/").body(()).unwrap()).await.unwrap().status();
            assert_eq!(status, 503);
        }
        load.load(Relaxed)
    }

    /// Scenario 24.
    #[tokio::test(start_paused = true)]
    async fn three_processes_with_headers_retry_in_the_innermost_only() {
        let sent = load_behind_three(true).await;
        assert!((11_900..=13_000).contains(&sent), "{sent}");
    }

    /// Scenario 24: 1.2 to the third.
    #[tokio::test(start_paused = true)]
    async fn three_processes_without_headers_have_but_their_budgets() {
        let sent = load_behind_three(false).await;
        assert!((17_000..=17_500).contains(&sent), "{sent}");
    }
}
