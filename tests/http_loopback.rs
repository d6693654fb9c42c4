//! Real clients and real servers over loopback: what hyper and reqwest do with bodies and connections, seen through the layers.
//! (tonic is in `tests/grpc.rs`.)
#![cfg(all(feature = "http", feature = "retry", feature = "timeout", feature = "circuit-breaker"))]

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::http::{IdleTimeout, ReplayBodies, ReplayBody, ReplayLayer, StreamBreakerLayer};
use mainstay::{
    BoxError, CircuitBreakerHandle, CircuitState, HttpClassifier, Rejectable, Rejected, RetryLayer, TimeoutLayer,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

type Answer = Response<BoxBody<Bytes, Infallible>>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Http1,
    Http2,
}
use Version::{Http1, Http2};

/// Serves `handler` on a port of its own; the URL.
async fn serve<F, Fut>(version: Version, handler: F) -> String
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let stream = TokioIo::new(listener.accept().await.unwrap().0);
            let handler = handler.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = handler(request);
                async { Ok::<_, Infallible>(answer.await) }
            });
            match version {
                Http1 => {
                    drop(tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service)))
                }
                Http2 => drop(tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service),
                )),
            }
        }
    });
    url
}

fn client<B>(version: Version) -> Client<HttpConnector, B>
where
    B: http_body::Body<Data: Send> + Send,
{
    Client::builder(TokioExecutor::new()).http2_only(version == Http2).build_http()
}

fn answer(status: u16, body: &'static str) -> Answer {
    Response::builder().status(status).body(Full::from(body).boxed()).unwrap()
}

/// A body whose frames come by hand; it ends when the sender is dropped.
fn by_hand() -> (mpsc::UnboundedSender<Bytes>, BoxBody<Bytes, Infallible>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|data| (Ok(Frame::data(data)), receiver))
    });
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}

// === retries ===

/// Retry, R4. The clock is paused: it goes on only while nobody has anything to do, which is during the delay.
#[tokio::test(start_paused = true)]
async fn hyper_is_asked_again_when_the_server_said_and_not_before() {
    for version in [Http1, Http2] {
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let url = serve(version, move |_| {
            let first = count.fetch_add(1, Relaxed) == 0;
            async move {
                let mut busy = answer(if first { 429 } else { 200 }, "answer");
                busy.headers_mut().insert("retry-after", "7".parse().unwrap());
                busy
            }
        })
        .await;
        let layer = RetryLayer::builder("hyper").http().build().unwrap();
        let start = Instant::now();
        let request = Request::get(url).body(Empty::<Bytes>::new()).unwrap();
        let response = layer.layer(client(version).map_err(BoxError::from)).oneshot(request).await.unwrap();
        assert_eq!((response.status(), asked.load(Relaxed)), (StatusCode::OK, 2), "{version:?}");
        assert!(start.elapsed() >= 7 * SECOND, "{:?}", start.elapsed());
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "answer");
    }
}

/// The first attempt is answered while its body is still being sent.
#[tokio::test(start_paused = true)]
async fn a_body_that_streams_through_hyper_is_sent_again_whole() {
    for version in [Http1, Http2] {
        let (asked, mut asks) = mpsc::unbounded_channel();
        let count = Arc::new(AtomicU32::new(0));
        let url = serve(version, move |request| {
            let first = count.fetch_add(1, Relaxed) == 0;
            asked.send(()).unwrap();
            async move {
                let mut body = request.into_body();
                if first {
                    body.frame().await.unwrap().unwrap();
                    return answer(503, "");
                }
                let body = body.collect().await.unwrap().to_bytes();
                Response::new(Full::from(body).boxed())
            }
        })
        .await;
        let service = ServiceBuilder::new()
            .layer(ReplayLayer::new(1_024))
            .layer(RetryLayer::builder("upload").requests(ReplayBodies::new()).http().build().unwrap())
            .service(client::<ReplayBody<BoxBody<Bytes, Infallible>>>(version).map_err(BoxError::from));
        let (sender, body) = by_hand();
        sender.send(Bytes::from("first, ")).unwrap();
        let call = tokio::spawn(service.oneshot(Request::put(url).body(body).unwrap()));
        for _ in 0..2 {
            asks.recv().await.unwrap();
        }
        sender.send(Bytes::from("second")).unwrap();
        drop(sender);
        let response = call.await.unwrap().unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "first, second", "{version:?}");
    }
}

/// reqwest's own requests, copied as it says itself: one with a body that streams cannot be, and gets its one attempt.
#[tokio::test(start_paused = true)]
async fn a_request_of_reqwest_is_retried_where_it_can_be_copied() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let url = serve(Http1, move |request| {
        count.fetch_add(1, Relaxed);
        async move {
            let _ = request.into_body().collect().await;
            answer(503, "")
        }
    })
    .await;
    let reqwest = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = reqwest.clone();
    let service = service_fn(move |request: reqwest::Request| {
        let send = send.clone();
        async move { send.execute(request).await.map(Response::<reqwest::Body>::from).map_err(BoxError::from) }
    });
    let layer = RetryLayer::builder("reqwest")
        .clone_with(reqwest::Request::try_clone)
        .classify(HttpClassifier::new())
        .idempotent_if(|request: &reqwest::Request| request.method() != Method::POST)
        .build()
        .unwrap();
    let streams = reqwest::Body::wrap(by_hand().1);
    for (request, attempts) in [
        (reqwest.put(&url).body("text"), 3),
        (reqwest.put(&url).body(streams), 1),
        (reqwest.post(&url).body("text"), 1),
    ] {
        asked.store(0, Relaxed);
        let response = layer.layer(service.clone()).oneshot(request.build().unwrap()).await.unwrap();
        assert_eq!((response.status(), asked.load(Relaxed)), (StatusCode::SERVICE_UNAVAILABLE, attempts));
    }
    let counted = layer.handle().statistics();
    assert_eq!((counted.gave_up_attempts, counted.gave_up_not_cloneable), (1, 1));
    assert_eq!(counted.gave_up_not_idempotent, 1);
}

/// Retry, R10: nobody listens, so nothing was sent; but it is hyper that knows that, and no layer of this crate.
#[tokio::test(start_paused = true)]
async fn a_post_that_no_server_took_is_repeated_where_the_client_says_that_it_was_not_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let unsent_is_shed = |error: hyper_util::client::legacy::Error| match error.is_connect() {
        true => BoxError::from_rejected(Rejected::shed()),
        false => error.into(),
    };
    let post = || Request::post(&url).body(Empty::<Bytes>::new()).unwrap();
    let layer = || RetryLayer::builder("post").http().build().unwrap();
    let (plain, knowing) = (layer(), layer());
    plain.layer(client(Http1).map_err(BoxError::from)).oneshot(post()).await.unwrap_err();
    knowing.layer(client(Http1).map_err(unsent_is_shed)).oneshot(post()).await.unwrap_err();
    assert_eq!((plain.handle().statistics().attempts(), plain.handle().statistics().gave_up_not_idempotent), (1, 1));
    assert_eq!((knowing.handle().statistics().attempts(), knowing.handle().statistics().gave_up_attempts), (3, 1));
}

// === timeouts ===

/// The attempt that is cut off is dropped: the server sees that its caller has gone.
#[tokio::test]
async fn a_call_that_is_cut_off_goes_away_from_the_server_too() {
    for version in [Http1, Http2] {
        let (started, mut starts) = mpsc::unbounded_channel();
        let (left, mut leaves) = mpsc::unbounded_channel();
        let url = serve(version, move |_| {
            let (started, left) = (started.clone(), OnDrop(left.clone()));
            async move {
                started.send(()).unwrap();
                let _left = left;
                std::future::pending::<Answer>().await
            }
        })
        .await;
        let service = TimeoutLayer::total("hyper", 60 * SECOND).unwrap().layer(client(version).map_err(BoxError::from));
        let call = tokio::spawn(service.oneshot(Request::get(url).body(Empty::<Bytes>::new()).unwrap()));
        starts.recv().await.unwrap();
        // From here on nobody has anything to do until the time is up.
        tokio::time::pause();
        let error = call.await.unwrap().unwrap_err();
        assert!(error.as_rejected().is_some_and(|rejected| rejected.is_timeout() && rejected.was_sent()), "{error}");
        leaves.recv().await.unwrap();
        tokio::time::resume();
    }
}

struct OnDrop(mpsc::UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

// === the end of the body ===

/// One call through a breaker that judges at the end; what came back, and the breaker.
async fn through_breaker(
    version: Version,
    request: Request<Empty<Bytes>>,
) -> (Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug>>, CircuitBreakerHandle) {
    let breaker = CircuitBreakerHandle::builder("test").probes(1).build_handle().unwrap();
    breaker.transition_to(CircuitState::Open).unwrap();
    breaker.transition_to(CircuitState::HalfOpen).unwrap();
    let service =
        StreamBreakerLayer::new(breaker.clone(), HttpClassifier::new()).layer(client(version).map_err(BoxError::from));
    (ServiceExt::oneshot(service, request).await.unwrap(), breaker)
}

#[tokio::test]
async fn an_answer_without_a_body_is_judged_although_nobody_reads_it() {
    for version in [Http1, Http2] {
        let handler = |request: Request<Incoming>| async move {
            let mut answer = answer(request.uri().path()[1..].parse().unwrap(), "");
            if request.method() == Method::HEAD {
                answer.headers_mut().insert("content-length", "400".parse().unwrap());
            }
            answer
        };
        let url = serve(version, handler).await;
        for (method, path) in [(Method::HEAD, "200"), (Method::GET, "204"), (Method::GET, "304"), (Method::POST, "201")]
        {
            let request = Request::builder().method(method).uri(format!("{url}{path}")).body(Empty::new()).unwrap();
            let (response, breaker) = through_breaker(version, request).await;
            drop(response);
            assert_eq!((breaker.statistics().successes, breaker.statistics().abandoned), (1, 0), "{version:?} {path}");
            assert_eq!(breaker.state(), CircuitState::Closed, "the probe gave its verdict");
        }
    }
}

/// A reader that counts bytes (a proxy to HTTP/1 is one) stops with the last of them; HTTP/2 says only after it that this was all.
#[tokio::test]
async fn a_reader_that_stops_with_the_last_byte_has_read_the_whole_body() {
    for version in [Http1, Http2] {
        let (body, mut bodies) = mpsc::unbounded_channel();
        let url = serve(version, move |_| {
            let (sender, streams) = by_hand();
            sender.send(Bytes::from("four")).unwrap();
            body.send(sender).unwrap();
            std::future::ready(Response::builder().header("content-length", "4").body(streams).unwrap())
        })
        .await;
        let request = Request::get(url).body(Empty::new()).unwrap();
        let (response, breaker) = through_breaker(version, request).await;
        let _open = bodies.recv().await.unwrap();
        assert_eq!(breaker.statistics().calls(), 0);
        let mut body = Box::pin(response.into_body());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "four");
        drop(body);
        assert_eq!((breaker.statistics().successes, breaker.statistics().abandoned), (1, 0), "{version:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_dropped_early_is_abandoned_and_gives_the_slot_back() {
    for version in [Http1, Http2] {
        let (body, mut bodies) = mpsc::unbounded_channel();
        let url = serve(version, move |_| {
            let (sender, streams) = by_hand();
            sender.send(Bytes::from("some")).unwrap();
            body.send(sender).unwrap();
            std::future::ready(Response::new(streams))
        })
        .await;
        let (response, breaker) = through_breaker(version, Request::get(url).body(Empty::new()).unwrap()).await;
        let sender = bodies.recv().await.unwrap();
        let mut body = Box::pin(response.into_body());
        body.frame().await.unwrap().unwrap();
        assert!(breaker.try_acquire().is_err(), "the only probe");
        drop(body);
        assert_eq!((breaker.statistics().abandoned, breaker.statistics().probes_in_flight), (1, 0), "{version:?}");
        assert_eq!(breaker.state(), CircuitState::HalfOpen, "no evidence");
        // The server notices, too: its body is dropped.
        sender.closed().await;
    }
}

/// In the order that its documentation says, a body that stands still is a failure of the callee.
#[tokio::test]
async fn a_body_that_stands_still_is_a_failure_by_hyper() {
    let (body, mut bodies) = mpsc::unbounded_channel();
    let url = serve(Http2, move |_| {
        let (sender, streams) = by_hand();
        sender.send(Bytes::from("some")).unwrap();
        body.send(sender).unwrap();
        std::future::ready(Response::new(streams))
    })
    .await;
    let breaker = CircuitBreakerHandle::builder("test").build_handle().unwrap();
    let idle = IdleTimeout::new(60 * SECOND).unwrap();
    let mut service = StreamBreakerLayer::new(breaker.clone(), HttpClassifier::new()).layer(
        client(Http2).map_err(BoxError::from).map_response(move |response| response.map(|body| idle.limit(body))),
    );
    let request = Request::get(url).body(Empty::<Bytes>::new()).unwrap();
    let response = ServiceExt::ready(&mut service).await.unwrap().call(request).await.unwrap();
    let _open = bodies.recv().await.unwrap();
    let mut body = Box::pin(response.into_body());
    body.frame().await.unwrap().unwrap();
    tokio::time::pause();
    assert!(body.frame().await.unwrap().unwrap_err().is_idle());
    assert_eq!((breaker.statistics().failures, breaker.statistics().calls()), (1, 1));
}
