//! Bodies: standing still, ending, and the verdict that waits for the end.
#![cfg(feature = "http")]

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use mainstay::http::{IdleBodyError, IdleTimeoutBody, OnEnd, OnEndBody};
use tokio::sync::mpsc;
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};

const SECOND: Duration = Duration::from_secs(1);

type Sent = Result<Frame<Bytes>, &'static str>;

/// A body whose frames come by hand.
#[derive(Debug)]
struct ByHand(mpsc::UnboundedReceiver<Sent>);

fn by_hand() -> (mpsc::UnboundedSender<Sent>, ByHand) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, ByHand(receiver))
}

impl Body for ByHand {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Sent>> {
        self.0.poll_recv(cx)
    }
}

fn data() -> Sent {
    Ok(Frame::data(Bytes::from("data")))
}

fn trailers(pairs: &[(&'static str, &str)]) -> Sent {
    let pairs = pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
    Ok(Frame::trailers(pairs.collect::<HeaderMap>()))
}

// === idle ===

#[tokio::test(start_paused = true)]
async fn a_body_may_take_for_ever_but_not_stand_still() {
    let (sender, body) = by_hand();
    let mut body = Box::pin(IdleTimeoutBody::new(body, SECOND).unwrap());
    for _ in 0..5 {
        let mut frame = task::spawn(body.frame());
        assert_pending!(frame.poll());
        advance(SECOND * 9 / 10).await;
        assert_pending!(frame.poll(), "each frame has its own second");
        sender.send(data()).unwrap();
        assert!(assert_ready!(frame.poll()).unwrap().is_ok());
    }
    let start = Instant::now();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(start.elapsed(), SECOND);
    assert!(matches!(error, IdleBodyError::Idle { timeout: SECOND }));
    assert!(sender.is_closed(), "the inner body was dropped at once");
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn time_runs_only_while_somebody_waits_and_a_frame_that_came_wins() {
    let (sender, body) = by_hand();
    let mut body = Box::pin(IdleTimeoutBody::new(body, SECOND).unwrap());
    advance(60 * SECOND).await;
    assert_pending!(task::spawn(body.frame()).poll());
    advance(60 * SECOND).await;
    sender.send(data()).unwrap();
    assert!(body.frame().await.unwrap().is_ok(), "late, but there");
    sender.send(Err("reset")).unwrap();
    assert!(matches!(body.frame().await, Some(Err(IdleBodyError::Body("reset")))));
}

#[test]
fn a_body_that_never_lets_its_reader_wait_arms_no_timer() {
    // Outside of a runtime a timer would panic.
    let mut body = Box::pin(IdleTimeoutBody::new(http_body_util::Full::new(Bytes::from("whole")), SECOND).unwrap());
    let frame = assert_ready!(task::spawn(body.frame()).poll());
    assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "whole");
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_is_none() {
    let (_sender, body) = by_hand();
    let mut body = Box::pin(IdleTimeoutBody::new(body, Duration::MAX).unwrap());
    let mut frame = task::spawn(body.frame());
    assert_pending!(frame.poll());
    advance(Duration::from_secs(86_400)).await;
    assert_pending!(frame.poll());
}

// === the end ===

/// What a body told of its end.
fn ends(sent: impl IntoIterator<Item = Sent>, read: usize) -> Option<Result<bool, &'static str>> {
    let (sender, body) = by_hand();
    sent.into_iter().for_each(|frame| sender.send(frame).unwrap());
    drop(sender);
    let mut told = None;
    let mut body = OnEndBody::new(body, |end: Result<Option<&HeaderMap>, &&'static str>| {
        told = Some(end.map(|trailers| trailers.is_some()).map_err(|error| *error));
    });
    for _ in 0..read {
        let _ = assert_ready!(task::spawn(body.frame()).poll());
    }
    drop(body);
    told
}

#[test]
fn the_end_is_told_once_with_what_it_was() {
    assert_eq!(ends([data()], 2), Some(Ok(false)));
    assert_eq!(ends([data(), trailers(&[])], 2), Some(Ok(true)), "nothing comes after trailers");
    assert_eq!(ends([data(), Err("reset"), data()], 3), Some(Err("reset")));
    assert_eq!(ends([data(), trailers(&[])], 1), None, "dropped before");
    assert_eq!(ends([], 0), None);
}

#[tokio::test]
async fn a_body_that_knows_its_length_ends_with_its_last_byte() {
    let mut ended = false;
    let whole = http_body_util::Full::new(Bytes::from("whole"));
    let mut body = OnEndBody::new(whole, |end: Result<Option<&HeaderMap>, &Infallible>| ended = end.is_ok());
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert!(ended, "nobody polls on after that");
}

/// A body of an announced length that ends only when the channel does.
struct OfLength(ByHand, u64);

impl Body for OfLength {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Sent>> {
        let frame = std::task::ready!(self.0.0.poll_recv(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.1 -= data.len() as u64;
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

/// A function is told of trailers after the last byte; who wants none is told with that.
#[test]
fn the_last_byte_of_an_announced_length_is_the_end_for_whoever_wants_no_trailers() {
    struct Ends<'a>(&'a std::cell::Cell<u32>, bool);
    impl OnEnd<&'static str> for Ends<'_> {
        fn ended(self, end: Result<Option<&HeaderMap>, &&'static str>) {
            self.0.set(if end.unwrap().is_some() { 2 } else { 1 });
        }
        fn ends_with_data(&self) -> bool {
            self.1
        }
    }
    for (wants_none, after_data, after_trailers) in [(true, 1, 1), (false, 0, 2)] {
        let ended = std::cell::Cell::new(0);
        let (sender, body) = by_hand();
        [data(), data(), trailers(&[])].into_iter().for_each(|frame| sender.send(frame).unwrap());
        let mut body = OnEndBody::of(OfLength(body, 8), Ends(&ended, wants_none));
        for expected in [0, after_data, after_trailers] {
            let _ = assert_ready!(task::spawn(body.frame()).poll());
            assert_eq!(ended.get(), expected, "{wants_none}");
        }
    }
    let ended = std::cell::Cell::new(0);
    drop(OnEndBody::of(OfLength(by_hand().1, 0), Ends(&ended, true)));
    assert_eq!(ended.get(), 1, "no byte is the last of none");
}

// === the breaker ===

#[cfg(feature = "circuit-breaker")]
mod breaker {
    use http::Response;
    use mainstay::http::{ClassifyEnd, StreamBreakerLayer};
    use mainstay::{
        BoxError, CircuitBreakerConfig, CircuitBreakerHandle, CircuitState, Classify, HttpClassifier, Outcome,
        Rejectable,
    };
    use tower::{Layer, Service, ServiceExt, service_fn};

    use super::*;

    fn breaker(config: CircuitBreakerConfig) -> CircuitBreakerHandle {
        CircuitBreakerHandle::new("test", config).unwrap()
    }

    fn layer(handle: &CircuitBreakerHandle) -> StreamBreakerLayer<HttpClassifier> {
        StreamBreakerLayer::new(handle.clone(), HttpClassifier::new())
    }

    /// Answers with this status; the body comes by hand.
    async fn answer(handle: &CircuitBreakerHandle, status: u16) -> (mpsc::UnboundedSender<Sent>, Response<impl Body>) {
        let (sender, body) = by_hand();
        let mut body = Some(body);
        let service = layer(handle).layer(service_fn(move |()| {
            let response = Response::builder().status(status).body(body.take().unwrap()).unwrap();
            async { Ok::<_, BoxError>(response) }
        }));
        (sender, service.oneshot(()).await.unwrap())
    }

    /// Judges by the head where it says so, and else every end as a failure.
    #[derive(Clone)]
    struct ByHead;

    impl<B, E> Classify<Response<B>, E> for ByHead {
        fn classify(&self, _: Result<&Response<B>, &E>) -> Outcome {
            Outcome::Success
        }
    }

    impl<E> ClassifyEnd<E> for ByHead {
        fn is_final(&self, head: &HeaderMap) -> bool {
            head.contains_key("x-final")
        }

        fn classify_end(&self, _: Result<Option<&HeaderMap>, &E>) -> Outcome {
            Outcome::Permanent
        }
    }

    #[tokio::test]
    async fn a_head_that_is_final_is_the_verdict_however_the_body_ends() {
        for (is_final, counted) in [(true, (1, 0)), (false, (0, 1))] {
            let handle = breaker(CircuitBreakerConfig::default());
            let (sender, body) = by_hand();
            let mut body = Some(body);
            let service = StreamBreakerLayer::new(handle.clone(), ByHead).layer(service_fn(move |()| {
                let response = Response::builder().header(if is_final { "x-final" } else { "x-other" }, "1");
                std::future::ready(Ok::<_, BoxError>(response.body(body.take().unwrap()).unwrap()))
            }));
            let response = ServiceExt::oneshot(service, ()).await.unwrap();
            assert_eq!(handle.statistics().calls(), u64::from(is_final), "before the body was read");
            drop(sender);
            response.into_body().collect().await.unwrap();
            assert_eq!((handle.statistics().successes, handle.statistics().failures), counted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_is_a_failure_although_its_head_was_fine() {
        let handle = breaker(CircuitBreakerConfig::default());
        let (sender, response) = answer(&handle, 200).await;
        assert_eq!(handle.statistics().calls(), 0);
        sender.send(data()).unwrap();
        sender.send(Err("reset")).unwrap();
        assert!(response.into_body().collect().await.is_err());
        assert_eq!((handle.statistics().failures, handle.statistics().calls()), (1, 1));

        let (sender, response) = answer(&handle, 200).await;
        drop(sender);
        let _ = response.into_body().collect().await;
        assert_eq!((handle.statistics().successes, handle.statistics().calls()), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_fails_is_the_verdict() {
        let handle = breaker(CircuitBreakerConfig::default());
        let (_sender, response) = answer(&handle, 503).await;
        assert_eq!(handle.statistics().failures, 1);
        drop(response);
        assert_eq!((handle.statistics().failures, handle.statistics().calls()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_dropped_before_its_end_is_abandoned_or_a_failure_as_the_setting_says() {
        for abandoned_is_failure in [false, true] {
            let mut config = CircuitBreakerConfig::default();
            config.abandoned_is_failure = abandoned_is_failure;
            config.consecutive_failures = Some(1);
            let handle = breaker(config);
            let (_sender, response) = answer(&handle, 200).await;
            drop(response);
            assert_eq!((handle.statistics().abandoned, handle.statistics().calls()), (1, 1));
            assert_eq!(handle.state() == CircuitState::Open, abandoned_is_failure);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_can_have_no_body_is_judged_by_its_head() {
        for status in [204, 304] {
            let handle = breaker(CircuitBreakerConfig::default());
            // This body does not know that it is empty; a decoder's may not.
            let (_sender, response) = answer(&handle, status).await;
            drop(response);
            assert_eq!((handle.statistics().successes, handle.statistics().calls()), (1, 1), "{status}");
        }
    }

    /// A body that stands still is the callee's failure inside, and nobody's outside.
    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_a_failure_where_the_idle_timeout_is_inside() {
        for inside in [true, false] {
            let handle = breaker(CircuitBreakerConfig::default());
            let idle = mainstay::http::IdleTimeout::new(SECOND).unwrap();
            let (_sender, body) = by_hand();
            let mut body = Some(body);
            let client = service_fn(move |()| {
                let response = Response::new(body.take().unwrap());
                async { Ok::<_, BoxError>(response) }
            });
            if inside {
                let client = client.map_response(move |response: Response<_>| response.map(|body| idle.limit(body)));
                let response = ServiceExt::oneshot(layer(&handle).layer(client), ()).await.unwrap();
                assert!(Box::pin(response.into_body()).frame().await.unwrap().unwrap_err().is_idle());
            } else {
                let response = ServiceExt::oneshot(layer(&handle).layer(client), ()).await.unwrap();
                let body = response.map(|body| idle.limit(body)).into_body();
                assert!(Box::pin(body).frame().await.unwrap().unwrap_err().is_idle());
            }
            let counted = handle.statistics();
            assert_eq!((counted.failures, counted.abandoned), (u64::from(inside), u64::from(!inside)));
        }
    }

    #[tokio::test]
    async fn a_panic_while_the_body_is_polled_is_a_failure_and_no_callers_leaving() {
        let handle = breaker(CircuitBreakerConfig::default());
        let (sender, body) = by_hand();
        let mut body = Some(body.map_frame(|_| -> Frame<Bytes> { panic!("of the body") }));
        let service = layer(&handle).layer(service_fn(move |()| {
            let response = Response::new(body.take().unwrap());
            async { Ok::<_, BoxError>(response) }
        }));
        let response = ServiceExt::oneshot(service, ()).await.unwrap();
        sender.send(data()).unwrap();
        assert!(tokio::spawn(response.into_body().collect()).await.unwrap_err().is_panic());
        assert_eq!((handle.statistics().failures, handle.statistics().calls()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_holds_its_slot_until_its_body_has_ended() {
        let mut config = CircuitBreakerConfig::default();
        config.probes = 1;
        let handle = breaker(config);
        handle.transition_to(CircuitState::Open).unwrap();
        handle.transition_to(CircuitState::HalfOpen).unwrap();
        let (sender, response) = answer(&handle, 200).await;
        assert!(handle.try_acquire().is_err());
        drop(sender);
        let _ = response.into_body().collect().await;
        assert_eq!(handle.state(), CircuitState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_refuses_without_asking_the_inner_service() {
        let handle = breaker(CircuitBreakerConfig::default());
        handle.force_open();
        let (mock, mut inner) = tower_test::mock::pair::<(), Response<ByHand>>();
        inner.allow(0);
        let mut service = layer(&handle).layer(mock);
        let error = service.ready().await.unwrap().call(()).await.err().unwrap();
        assert!(error.as_rejected().is_some_and(|rejected| !rejected.was_sent()));
        // It may admit again by the time of the call; what is not ready is not called for that.
        service.ready().await.unwrap();
        handle.close();
        assert!(service.call(()).await.is_err());
        assert_pending!(task::spawn(inner.next_request()).poll());
    }

    #[tokio::test]
    async fn a_panic_of_the_classifier_is_no_callers_leaving() {
        #[derive(Clone)]
        struct Panics;
        impl<R, E> mainstay::Classify<R, E> for Panics {
            fn classify(&self, _: Result<&R, &E>) -> mainstay::Outcome {
                mainstay::Outcome::Success
            }
        }
        impl<E> mainstay::http::ClassifyEnd<E> for Panics {
            fn classify_end(&self, _: Result<Option<&HeaderMap>, &E>) -> mainstay::Outcome {
                panic!("of the classifier")
            }
        }
        let handle = breaker(CircuitBreakerConfig::default());
        let service = StreamBreakerLayer::new(handle.clone(), Panics)
            .layer(service_fn(|()| async { Ok::<_, BoxError>(Response::new(http_body_util::Empty::<Bytes>::new())) }));
        assert!(tokio::spawn(service.oneshot(())).await.unwrap_err().is_panic());
        assert_eq!((handle.statistics().failures, handle.statistics().calls()), (1, 1));
    }

    #[tokio::test]
    async fn a_panic_of_the_inner_service_is_a_failure() {
        let handle = breaker(CircuitBreakerConfig::default());
        let service = layer(&handle).layer(service_fn(|panics: bool| async move {
            assert!(!panics, "of the inner service");
            Ok::<_, BoxError>(Response::new(http_body_util::Empty::<Bytes>::new()))
        }));
        assert!(tokio::spawn(service.clone().oneshot(true)).await.unwrap_err().is_panic());
        service.oneshot(false).await.unwrap();
        let statistics = handle.statistics();
        assert_eq!((statistics.failures, statistics.successes, statistics.calls()), (1, 1, 2));
    }
}

/// With a real client: a server that promises more than it sends.
#[cfg(feature = "circuit-breaker")]
#[tokio::test]
async fn a_connection_that_breaks_off_within_a_body_is_a_failure_by_reqwest_too() {
    use mainstay::http::StreamBreakerLayer;
    use mainstay::{BoxError, CircuitBreakerHandle, HttpClassifier};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::{Layer, ServiceExt, service_fn};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for length in [4, 400] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1_024]).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\nfour");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });

    let reqwest = reqwest::Client::builder().no_proxy().build().unwrap();
    let client = service_fn(move |request: http::Request<&'static str>| {
        let reqwest = reqwest.clone();
        async move {
            let response = reqwest.execute(request.map(reqwest::Body::from).try_into()?).await?;
            Ok::<http::Response<reqwest::Body>, BoxError>(response.into())
        }
    });
    let breaker = CircuitBreakerHandle::builder("test").build_handle().unwrap();
    let client = StreamBreakerLayer::new(breaker.clone(), HttpClassifier::new()).layer(client);
    let request = || http::Request::get(&url).body("").unwrap();
    let whole = client.clone().oneshot(request()).await.unwrap();
    assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), "four");
    assert_eq!((breaker.statistics().successes, breaker.statistics().calls()), (1, 1));
    let broken = client.oneshot(request()).await.unwrap();
    assert_eq!(broken.status(), 200);
    assert!(broken.into_body().collect().await.is_err());
    assert_eq!((breaker.statistics().failures, breaker.statistics().calls()), (1, 2));
}
