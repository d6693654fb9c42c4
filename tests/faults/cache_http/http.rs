//! Request bodies, deadlines in headers, and what a failure says about the callee.
#![cfg(all(feature = "http", feature = "retry", feature = "timeout", feature = "circuit-breaker"))]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::backoff::{BackoffConfig, Jitter};
use mainstay::budget::Budget;
use mainstay::circuit_breaker::{CircuitBreakerConfig, SlowCalls};
use mainstay::http::{
    AcceptContextLayer, ContextHeaders, DeadlineBody, DeadlineBodyLayer, ErrorRules, IdleBodyError, IdleTimeout,
    PropagateLayer, ReplayBodies, ReplayBody, ReplayError, ReplayLayer,
};
use mainstay::retry::{RequestPolicy, RetryHandle};
use mainstay::{
    BoxError, CircuitBreakerHandle, CircuitBreakerLayer, CircuitState, Classify, HttpClassifier, Outcome, Rejectable,
    Rejected, RetryHint, RetryLayer, TimeoutLayer, judge,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_test::{assert_pending, task};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const BACKOFF: Duration = Duration::from_millis(500);

type Answer = Response<BoxBody<Bytes, Infallible>>;
type Sent = Result<Frame<Bytes>, Broken>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Broken(&'static str);

/// Serves `handler` over HTTP/1 on a port of its own; the URL.
async fn serve<F, Fut>(handler: F) -> String
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
            drop(tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service)));
        }
    });
    url
}

fn client<B>() -> Client<HttpConnector, B>
where
    B: Body<Data: Send> + Send,
{
    Client::builder(TokioExecutor::new()).build_http()
}

fn answer(status: u16) -> Answer {
    Response::builder().status(status).body(Full::from("answer").boxed()).unwrap()
}

/// A body whose frames come by hand; it ends when the sender is dropped.
struct ByHand(mpsc::UnboundedReceiver<Sent>);

fn by_hand() -> (mpsc::UnboundedSender<Sent>, ByHand) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, ByHand(receiver))
}

impl Body for ByHand {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Sent>> {
        self.0.poll_recv(cx)
    }
}

fn data(text: &'static str) -> Sent {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn trailers() -> HeaderMap {
    [("x-checksum".parse().unwrap(), "17".parse().unwrap())].into_iter().collect()
}

/// A retry of uploads, three attempts half a second apart.
fn uploads() -> RetryLayer<HttpClassifier, mainstay::http::HttpRequests<ReplayBodies>> {
    RetryLayer::builder("uploads")
        .backoff(BackoffConfig::constant(BACKOFF).with_jitter(Jitter::None))
        .budget(Budget::unlimited())
        .requests(ReplayBodies::new())
        .http()
        .build()
        .unwrap()
}

// === entry 1: a lost body is never sent again ===

/// The situation of the list, with a real client and a real server.
#[tokio::test(start_paused = true)]
async fn entry_01_a_body_that_is_lost_while_a_retry_waits_is_not_sent_again() {
    let (asked, mut asks) = mpsc::unbounded_channel();
    let (read, mut reads) = mpsc::unbounded_channel();
    let url = serve(move |request| {
        asked.send(()).unwrap();
        let read = read.clone();
        // The server answers at once and reads on.
        tokio::spawn(async move { read.send(request.into_body().collect().await.map(|body| body.to_bytes().len())) });
        std::future::ready(answer(503))
    })
    .await;
    let layer = uploads();
    let handle = layer.handle();
    let service = ServiceBuilder::new().layer(ReplayLayer::new(16)).layer(layer).service(
        client::<ReplayBody<StreamBody<futures_util::stream::BoxStream<'static, Sent>>>>().map_err(BoxError::from),
    );
    let (sender, body) = by_hand();
    sender.send(data("sixteen, no more")).unwrap();
    let frames =
        futures_util::stream::unfold(body, |mut body| async move { body.0.recv().await.map(|frame| (frame, body)) });
    let body = StreamBody::new(Box::pin(frames) as futures_util::stream::BoxStream<'static, Sent>);
    let call = tokio::spawn(service.oneshot(Request::put(url).body(body).unwrap()));
    asks.recv().await.unwrap();
    tokio::time::sleep(BACKOFF / 2).await;
    for _ in 0..4 {
        sender.send(data("sixteen, no more")).unwrap();
    }
    drop(sender);
    let response = call.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "the last result");
    assert_eq!(reads.recv().await.unwrap().unwrap(), 80, "the first attempt went on");
    assert!(asks.try_recv().is_err(), "no second attempt");
    let counted = handle.statistics();
    assert_eq!((counted.retries, counted.gave_up_not_replayable), (0, 1));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "answer");
}

/// What a server that reads on while the retry waits received in the end: the bodies that came whole, the status that the caller
/// saw, and the counts. `during` is what happens to the body half-way through the delay.
async fn read_on(cap: usize, first: Vec<Sent>, during: Vec<Sent>, end: bool) -> (Vec<Bytes>, u16, RetryHandle) {
    let layer = uploads();
    let (handle, whole) = (layer.handle(), Arc::new(Mutex::new(Vec::new())));
    let log = whole.clone();
    let server = service_fn(move |request: Request<ReplayBody<ByHand>>| {
        let (log, first) = (log.clone(), mainstay::context::current().attempt() == 1);
        let reading = tokio::spawn(async move {
            match request.into_body().collect().await {
                Ok(body) => {
                    log.lock().unwrap().push(body.to_bytes());
                    Ok(())
                }
                Err(error) => Err(error),
            }
        });
        async move {
            if first {
                return Ok(Response::builder().status(503).body(()).unwrap());
            }
            reading.await.unwrap()?;
            Ok::<_, BoxError>(Response::new(()))
        }
    });
    let service = ServiceBuilder::new().layer(ReplayLayer::new(cap)).layer(layer).service(server);
    let (sender, body) = by_hand();
    first.into_iter().for_each(|frame| sender.send(frame).unwrap());
    let call = tokio::spawn(service.oneshot(Request::put("/").body(body).unwrap()));
    tokio::time::sleep(BACKOFF / 2).await;
    for frame in during {
        let _ = sender.send(frame);
    }
    let sender = (!end).then_some(sender);
    tokio::time::sleep(BACKOFF).await;
    drop(sender);
    let status = call.await.unwrap().unwrap().status().as_u16();
    let whole = std::mem::take(&mut *whole.lock().unwrap());
    (whole, status, handle)
}

#[tokio::test(start_paused = true)]
async fn entry_01_a_body_that_exceeds_the_cap_or_fails_during_the_delay_ends_the_call_with_the_last_result() {
    let gave_up = |(_, status, handle): &(Vec<Bytes>, u16, RetryHandle)| {
        let counted = handle.statistics();
        (*status, counted.retries, counted.gave_up_not_replayable)
    };
    // Beyond the cap, and at its end; beyond the cap, and still going on; failed.
    let ended = read_on(4, vec![data("four")], vec![data("more")], true).await;
    assert_eq!(
        (gave_up(&ended), ended.0),
        ((503, 0, 1), vec![Bytes::from("fourmore")]),
        "the first attempt read it all"
    );
    assert_eq!(gave_up(&read_on(4, vec![data("four")], vec![data("more")], false).await), (503, 0, 1));
    assert_eq!(gave_up(&read_on(64, vec![data("four")], vec![Err(Broken("the disk"))], true).await), (503, 0, 1));
    assert_eq!(gave_up(&read_on(0, vec![], vec![data("x")], true).await), (503, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn entry_01_a_body_that_ends_during_the_delay_within_the_cap_is_sent_again_whole() {
    for (first, during) in [
        (vec![data("four")], vec![data("more")]),
        (vec![], vec![data("four"), data(""), data("more")]),
        (vec![data("fourmore")], vec![]),
        (vec![data("four"), data("")], vec![data("more"), Ok(Frame::trailers(trailers()))]),
    ] {
        let (whole, status, handle) = read_on(8, first, during, true).await;
        let expected = vec![Bytes::from("fourmore"); 2];
        assert_eq!((whole, status, handle.statistics().retries), (expected, 200, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn entry_01_a_body_without_a_reader_cannot_be_lost_and_the_result_is_not_kept() {
    // The last result is dropped before the delay, or a slot that its body holds would be held through it.
    #[derive(Debug)]
    struct Held(Arc<AtomicBool>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    for reads_on in [false, true] {
        let dropped = Arc::new(AtomicBool::new(false));
        let seen = dropped.clone();
        let server = service_fn(move |request: Request<ReplayBody<ByHand>>| {
            let held = Held(seen.clone());
            let mut body = request.into_body();
            async move {
                body.frame().await.unwrap()?;
                if reads_on {
                    tokio::spawn(body.collect());
                }
                Ok::<_, BoxError>(Response::builder().status(503).body(held).unwrap())
            }
        });
        let mut service = ServiceBuilder::new().layer(ReplayLayer::new(64)).layer(uploads()).service(server);
        let (sender, body) = by_hand();
        sender.send(data("four")).unwrap();
        let mut call = task::spawn(tower::Service::call(&mut service, Request::put("/").body(body).unwrap()));
        assert_pending!(call.poll());
        assert_eq!(dropped.load(Relaxed), !reads_on);
    }
}

#[tokio::test]
async fn entry_01_a_lost_copy_never_looks_like_an_empty_or_a_complete_body() {
    let (sender, body) = by_hand();
    sender.send(data("longer than four")).unwrap();
    drop(sender);
    let first = ReplayBody::new(body, 4);
    let mut lost = first.again();
    assert_eq!(first.collect().await.unwrap().to_bytes(), "longer than four");
    assert!(!lost.is_replayable() && !lost.is_end_stream());
    assert_eq!(lost.size_hint().exact(), None);
    assert_eq!(lost.frame().await.unwrap().unwrap_err(), ReplayError::Lost);

    // An empty body is one, and stays so.
    let empty = ReplayBody::new(Full::<Bytes>::default(), 0);
    let copy = empty.again();
    empty.collect().await.unwrap();
    assert!(copy.is_replayable() && copy.is_end_stream());
    assert_eq!(copy.size_hint().exact(), Some(0));
}

#[tokio::test]
async fn entry_01_a_reader_that_was_overtaken_never_looks_complete() {
    let (sender, body) = by_hand();
    let mut stale = ReplayBody::new(body, 8);
    let mut current = stale.again();
    let kept = stale.again();
    sender.send(data("four")).unwrap();
    stale.frame().await.unwrap().unwrap();
    assert_eq!(current.frame().await.unwrap().unwrap().into_data().unwrap(), "four");
    sender.send(data("beyond the cap")).unwrap();
    drop(sender);
    assert_eq!(current.collect().await.unwrap().to_bytes(), "beyond the cap");
    assert!(!stale.is_end_stream(), "it has not seen the second chunk, which is gone");
    assert_eq!(stale.size_hint().exact(), None);
    assert_eq!(stale.frame().await.unwrap().unwrap_err(), ReplayError::Superseded);
    assert!(!kept.is_replayable() && !kept.is_end_stream());
}

#[tokio::test]
async fn entry_01_a_reader_that_was_dropped_half_way_leaves_a_whole_body() {
    let (sender, body) = by_hand();
    let mut first = ReplayBody::new(body, 64);
    let copy = first.again();
    sender.send(data("one ")).unwrap();
    first.frame().await.unwrap().unwrap();
    let mut waiting = task::spawn(first.frame());
    assert_pending!(waiting.poll());
    drop(waiting);
    drop(first);
    sender.send(data("")).unwrap();
    sender.send(data("two")).unwrap();
    sender.send(Ok(Frame::trailers(trailers()))).unwrap();
    drop(sender);
    assert!(copy.is_replayable());
    let again = copy.again();
    for body in [copy, again] {
        let whole = body.collect().await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers()));
        assert_eq!(whole.to_bytes(), "one two");
    }
}

/// The last reader takes what is kept instead of sharing it: then nothing can follow.
#[tokio::test]
async fn entry_01_what_the_last_reader_took_is_not_replayed_empty() {
    let first = ReplayBody::new(Full::<Bytes>::from("text"), 64);
    let mut last = first.again();
    first.collect().await.unwrap();
    assert_eq!(last.frame().await.unwrap().unwrap().into_data().unwrap(), "text");
    assert!(!last.is_replayable());
    let mut after = last.again();
    assert!(!after.is_end_stream());
    assert_eq!(after.frame().await.unwrap().unwrap_err(), ReplayError::Lost);
    assert!(last.frame().await.is_none(), "the last reader itself has the whole");
}

#[tokio::test]
async fn entry_01_trailers_come_once_and_a_copy_announces_no_length_that_would_drop_them() {
    let (sender, body) = by_hand();
    sender.send(data("text")).unwrap();
    sender.send(Ok(Frame::trailers(trailers()))).unwrap();
    drop(sender);
    let first = ReplayBody::new(body, 64);
    let copy = first.again();
    let mut announced = SizeHint::default();
    for mut body in [first, copy] {
        assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (announced.lower(), None));
        let mut frames = Vec::new();
        while let Some(frame) = body.frame().await {
            frames.push(frame.unwrap().is_trailers());
        }
        assert_eq!(frames, [false, true]);
        assert!(body.is_end_stream());
        // Of the copy as much is known, and no exact length: HTTP/1 sends no trailers after a body of an announced length.
        announced.set_lower(4);
    }
}

/// What was withdrawn for the attempt that is not made goes back.
#[tokio::test(start_paused = true)]
async fn entry_01_an_attempt_that_is_not_made_costs_no_budget() {
    #[derive(Clone)]
    struct Lost;
    struct Policy(AtomicU32);
    impl RequestPolicy<Lost> for Policy {
        fn try_clone(&self, request: &Lost) -> Option<Lost> {
            Some(request.clone())
        }

        fn is_replayable(&self, _: &Lost) -> bool {
            // Yes after the attempt, and no after the delay.
            self.0.fetch_add(1, Relaxed).is_multiple_of(2)
        }
    }
    let budget = Budget::default();
    let layer = RetryLayer::builder("lost")
        .backoff(BackoffConfig::constant(Duration::from_millis(1)).with_jitter(Jitter::None))
        .budget(budget.clone())
        .requests(Policy(AtomicU32::new(0)))
        .build()
        .unwrap();
    let service = layer.layer(service_fn(|_: Lost| std::future::ready(Err::<(), BoxError>("failure".into()))));
    let before = budget.balance();
    for _ in 0..100 {
        ServiceExt::oneshot(service.clone(), Lost).await.unwrap_err();
    }
    let counted = layer.handle().statistics();
    assert_eq!((counted.gave_up_not_replayable, counted.gave_up_budget, counted.retries), (100, 0, 0));
    assert!(budget.balance() >= before, "{before} {}", budget.balance());
}

/// The same for a policy of a user: it is consulted again after the delay, and the last result is returned.
#[tokio::test(start_paused = true)]
async fn entry_01_any_policy_is_consulted_again_after_the_delay() {
    #[derive(Clone)]
    struct Buffer(Arc<AtomicBool>);
    struct Buffers;
    impl RequestPolicy<Buffer> for Buffers {
        fn try_clone(&self, request: &Buffer) -> Option<Buffer> {
            Some(request.clone())
        }

        fn is_replayable(&self, copy: &Buffer) -> bool {
            !copy.0.load(Relaxed)
        }
    }
    let sent = Arc::new(AtomicU32::new(0));
    let count = sent.clone();
    let layer = RetryLayer::builder("buffers")
        .backoff(BackoffConfig::constant(BACKOFF).with_jitter(Jitter::None))
        .requests(Buffers)
        .build()
        .unwrap();
    let handle = layer.handle();
    let service = ServiceBuilder::new().layer(layer).service(service_fn(move |_: Buffer| {
        let number = count.fetch_add(1, Relaxed) + 1;
        async move { Err::<(), BoxError>(format!("failure {number}").into()) }
    }));
    let lost = Arc::new(AtomicBool::new(false));
    let call = tokio::spawn(service.oneshot(Buffer(lost.clone())));
    // The first delay passes, and in the second the copy is lost.
    tokio::time::sleep(BACKOFF + BACKOFF / 2).await;
    assert_eq!(sent.load(Relaxed), 2);
    lost.store(true, Relaxed);
    assert_eq!(call.await.unwrap().unwrap_err().to_string(), "failure 2");
    let counted = handle.statistics();
    assert_eq!((counted.attempts(), counted.gave_up_not_replayable), (2, 1));
}

// === entry 6: a failed body of a request is the caller's failure ===

/// A client made of a real one and a breaker, with these errors; five uploads that fail half-way.
async fn failing_uploads<B>(body: impl Fn(ByHand) -> B) -> CircuitBreakerHandle
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let url = serve(|request| async move {
        let whole = request.into_body().collect().await;
        answer(if whole.is_ok() { 200 } else { 400 })
    })
    .await;
    // A stalled upload is as slow as its caller, which is no evidence either.
    let mut config = CircuitBreakerConfig::default();
    config.slow_calls = Some(SlowCalls { longer_than: SECOND, rate: 0.1 });
    config.minimum_calls = 2;
    config.consecutive_failures = Some(5);
    let layer = CircuitBreakerLayer::builder("files").config(config).classify(HttpClassifier::new()).build().unwrap();
    let service = layer.layer(client::<B>().map_err(BoxError::from));
    for number in 0..5 {
        let (sender, upload) = by_hand();
        sender.send(data("half")).unwrap();
        let request = Request::post(&url).body(body(upload)).unwrap();
        let call = tokio::spawn(ServiceExt::oneshot(service.clone(), request));
        tokio::time::sleep(BACKOFF).await;
        // Every other caller stalls for good instead.
        let stalled =
            if number % 2 == 0 { sender.send(Err(Broken("aborted"))).err().map(|_| sender) } else { Some(sender) };
        call.await.unwrap().unwrap_err();
        drop(stalled);
    }
    layer.handle()
}

#[tokio::test(start_paused = true)]
async fn entry_06_five_uploads_that_fail_do_not_open_the_circuit() {
    let idle = IdleTimeout::new(60 * BACKOFF).unwrap();
    let replayed = failing_uploads(move |upload| ReplayBody::new(Box::pin(idle.limit(upload)), 1024)).await;
    let limited =
        failing_uploads(move |upload| Box::pin(idle.limit(BodyExt::map_err(upload, Rejected::request_body_failed))))
            .await;
    for breaker in [replayed, limited] {
        let counted = breaker.statistics();
        assert_eq!((breaker.state(), counted.ignored, counted.failures), (CircuitState::Closed, 5, 0));
    }
}

#[test]
fn entry_06_a_failed_body_is_recognised_at_any_depth_of_a_boxed_error_and_not_retried() {
    #[derive(Debug, thiserror::Error)]
    #[error("the client failed")]
    struct Outer<E: std::error::Error + 'static>(#[source] E);

    let body = || ReplayError::Body(Rejected::request_body_failed(Broken("the disk")));
    let idle = || IdleBodyError::<Broken>::Idle { timeout: BACKOFF };
    let errors: [BoxError; 6] = [
        body().into(),
        Outer(body()).into(),
        Outer(Outer(ReplayError::Lost)).into(),
        Outer(Outer(Outer(ReplayError::Superseded))).into(),
        Outer(Outer(idle())).into(),
        Outer(Rejected::request_body_failed("aborted")).into(),
    ];
    for error in errors {
        let rejected = error.as_rejected().unwrap();
        assert!(rejected.is_request_body_failed() && rejected.was_sent(), "{error:?}");
        assert_eq!((rejected.retry(), rejected.retry_after()), (RetryHint::No, None));
        for outcome in [
            judge(&HttpClassifier::new(), Err::<&Response<()>, _>(&error)),
            judge(&HttpClassifier::new().on_error(Outcome::Permanent), Err::<&Response<()>, _>(&error)),
        ] {
            assert_eq!(outcome, Outcome::Ignored, "{error:?}");
        }
    }
    // The error of the body itself stays in the chain.
    let chain = Outer(body());
    let mut link: Option<&(dyn std::error::Error + 'static)> = Some(&chain);
    while let Some(error) = link.filter(|error| !error.is::<Broken>()) {
        link = error.source();
    }
    assert_eq!(link.unwrap().to_string(), "the disk");
    // What failed by itself below an idle limit says nothing of whose body it was.
    let other: BoxError = Outer(IdleBodyError::Body(Broken("reset"))).into();
    assert_eq!(judge(&HttpClassifier::new(), Err::<&Response<()>, _>(&other)), Outcome::Transient);
}

/// A body of any other type: by a rule of the classifier, for boxed, lifted and plain errors.
#[test]
fn entry_06_a_rule_of_the_classifier_knows_other_bodies() {
    #[derive(Debug, thiserror::Error)]
    #[error("hyper")]
    struct Client(#[source] Broken);
    let aborted = |broken: &Broken| broken.0 == "aborted";
    let by_body = HttpClassifier::new().on_error_if(aborted, Outcome::Ignored);
    let by_client = HttpClassifier::new().on_error_if(move |client: &Client| aborted(&client.0), Outcome::Ignored);
    let grpc = mainstay_grpc(aborted);
    for (text, expected) in [("aborted", Outcome::Ignored), ("reset", Outcome::Transient)] {
        let boxed: BoxError = Client(Broken(text)).into();
        let lifted = mainstay::Error::Service(Client(Broken(text)));
        let of = |classifier: &HttpClassifier<ErrorRules>| {
            [classifier.classify(Err::<&Response<()>, _>(&boxed)), judge(classifier, Err::<&Response<()>, _>(&boxed))]
        };
        assert_eq!(of(&by_body), [expected; 2]);
        assert_eq!(of(&by_client), [expected; 2]);
        assert_eq!(judge(&by_client, Err::<&Response<()>, _>(&lifted)), expected);
        let lifted_box = mainstay::Error::Service(BoxError::from(Client(Broken(text))));
        assert_eq!(judge(&by_body, Err::<&Response<()>, _>(&lifted_box)), expected);
        assert_eq!(by_client.classify(Err::<&Response<()>, _>(&Client(Broken(text)))), expected);
        assert_eq!(grpc(&boxed), expected);
    }
    // Under a type that a rule knows, a failed body is seen by itself.
    #[derive(Debug, thiserror::Error)]
    #[error("hyper")]
    struct Sending(#[source] ReplayError);
    let lifted = mainstay::Error::Service(Sending(ReplayError::Lost));
    assert_eq!(judge(&HttpClassifier::new(), Err::<&Response<()>, _>(&lifted)), Outcome::Transient);
    let knows = HttpClassifier::new().not_sent_if(|_: &Sending| false);
    assert_eq!(judge(&knows, Err::<&Response<()>, _>(&lifted)), Outcome::Ignored);
}

/// What a gRPC classifier with this rule says of a boxed error.
fn mainstay_grpc(aborted: fn(&Broken) -> bool) -> impl Fn(&BoxError) -> Outcome {
    #[cfg(feature = "grpc")]
    let classifier = mainstay::grpc::GrpcClassifier::new().on_error_if(aborted, Outcome::Ignored);
    #[cfg(not(feature = "grpc"))]
    let classifier = HttpClassifier::new().on_error_if(aborted, Outcome::Ignored);
    move |error| classifier.classify(Err::<&Response<()>, _>(error))
}

// === core, entry 17: what was certainly not sent is repeated whatever its method ===

#[test]
fn core_entry_17_the_first_of_several_rules_holds_and_each_link_of_the_chain_is_seen() {
    let classifier = HttpClassifier::new()
        .on_error(Outcome::Permanent)
        .not_sent_if(|error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        .not_sent_if(|error: &Broken| error.0 == "refused")
        .on_error_if(|_: &Broken| true, Outcome::Ignored);
    let of = |error: BoxError| classifier.classify(Err::<&Response<()>, _>(&error));
    assert_eq!(of(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()), Outcome::NotSent);
    assert_eq!(of(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()), Outcome::Permanent);
    assert_eq!(of(Broken("refused").into()), Outcome::NotSent);
    assert_eq!(of(Broken("reset").into()), Outcome::Ignored);
    assert_eq!(of("anything".into()), Outcome::Permanent);
    let fine = Response::new(());
    assert_eq!(classifier.classify(Ok::<_, &BoxError>(&fine)), Outcome::Success);
}

/// A retry over a real client whose connections are refused: a POST is repeated where the classifier knows that it was not sent.
#[tokio::test(start_paused = true)]
async fn core_entry_17_a_post_that_no_server_took_is_repeated() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let connect = |error: &hyper_util::client::legacy::Error| error.is_connect();
    let layer = |classifier: HttpClassifier<ErrorRules>| {
        let layer = RetryLayer::builder("post").http().classify(classifier).build().unwrap();
        (layer.handle(), layer)
    };
    let post = || Request::post(&url).body(Full::<Bytes>::default()).unwrap();
    let (handle, boxed) = layer(HttpClassifier::new().not_sent_if(connect));
    boxed.layer(client().map_err(BoxError::from)).oneshot(post()).await.unwrap_err();
    assert_eq!((handle.statistics().attempts(), handle.statistics().gave_up_attempts), (3, 1));
    let (handle, lifted) = layer(HttpClassifier::new().not_sent_if(connect));
    lifted.layer(mainstay::LiftLayer::new().layer(client())).oneshot(post()).await.unwrap_err();
    assert_eq!((handle.statistics().attempts(), handle.statistics().gave_up_attempts), (3, 1));
    let (handle, ignorant) = layer(HttpClassifier::new().not_sent_if(|_: &std::fmt::Error| true));
    ignorant.layer(client().map_err(BoxError::from)).oneshot(post()).await.unwrap_err();
    assert_eq!((handle.statistics().attempts(), handle.statistics().gave_up_not_idempotent), (1, 1));
}

/// The situation of the list: a pool of one live endpoint and one that refuses connections, and twenty POSTs.
#[cfg(feature = "balance")]
#[tokio::test(start_paused = true)]
async fn core_entry_17_twenty_posts_succeed_beside_a_dead_endpoint() {
    use tower::util::BoxCloneSyncService;

    type Endpoint = BoxCloneSyncService<Request<Full<Bytes>>, Response<Incoming>, BoxError>;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let live = serve(|_| std::future::ready(answer(200))).await;
    let endpoint = |url: String| -> Endpoint {
        let client = client().map_err(BoxError::from);
        BoxCloneSyncService::new(client.map_request(move |request: Request<Full<Bytes>>| {
            let (mut head, body) = request.into_parts();
            head.uri = url.parse().unwrap();
            Request::from_parts(head, body)
        }))
    };
    let classifier =
        || HttpClassifier::new().not_sent_if(|error: &hyper_util::client::legacy::Error| error.is_connect());
    let pool =
        mainstay::balance::Pool::<&str, Endpoint>::builder("app").classify(classifier()).seed(7).build().unwrap();
    pool.handle().add("live", endpoint(live));
    pool.handle().add("dead", endpoint(dead));
    let service = RetryLayer::builder("app").http().classify(classifier()).build().unwrap().layer(pool);
    for number in 0..20 {
        let request = Request::post("/").body(Full::default()).unwrap();
        let response =
            ServiceExt::oneshot(service.clone(), request).await.unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(response.status(), StatusCode::OK);
    }
}

// === entry 17: a deadline that has passed is not propagated ===

#[tokio::test(start_paused = true)]
async fn entry_17_a_call_whose_deadline_has_passed_fails_locally_and_no_zero_goes_out() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = sent.clone();
    let client = service_fn(move |request: Request<()>| {
        let grpc = request.headers().get("grpc-timeout").cloned();
        log.lock().unwrap().push((request.headers()[mainstay::http::DEADLINE_MS].clone(), grpc));
        std::future::ready(Ok::<_, BoxError>(Response::new(())))
    });
    for grpc in [false, true] {
        let layer = PropagateLayer::new().headers(ContextHeaders::new().grpc_timeout(grpc)).unwrap();
        for micros in [0, 1, 999, 1_000, 5_000] {
            sent.lock().unwrap().clear();
            let context =
                mainstay::context::Context::new().with_deadline(Instant::now() + Duration::from_micros(micros));
            let call = context.scope(ServiceExt::oneshot(layer.layer(client.clone()), Request::new(()))).await;
            let sent = sent.lock().unwrap();
            if micros < 1_000 {
                let error = call.unwrap_err();
                assert_eq!(error.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: false }));
                assert_eq!(judge(&HttpClassifier::new(), Err::<&Response<()>, _>(&error)), Outcome::Ignored);
                assert!(sent.is_empty());
            } else {
                assert!(call.is_ok());
                assert_eq!(sent[0].0, (micros / 1_000).to_string().as_str());
                assert_eq!(sent[0].1.is_some(), grpc);
            }
        }
        // In the past.
        let past = mainstay::context::Context::new().with_deadline(Instant::now());
        tokio::time::advance(BACKOFF).await;
        let error = past.scope(ServiceExt::oneshot(layer.layer(client.clone()), Request::new(()))).await.unwrap_err();
        assert_eq!(error.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: false }));
    }
}

/// A client may set its own limit, and set it to zero.
#[tokio::test(start_paused = true)]
async fn entry_17_a_grpc_timeout_of_zero_that_the_client_set_is_not_sent_either() {
    let client = service_fn(|request: Request<()>| {
        std::future::ready(Ok::<_, BoxError>(Response::new(request.headers()["grpc-timeout"].clone())))
    });
    let grpc = PropagateLayer::new().headers(ContextHeaders::new().grpc_timeout(true)).unwrap().layer(client);
    let request = |own: &str| Request::post("/").header("grpc-timeout", own).body(()).unwrap();
    let context = mainstay::context::Context::new().with_deadline(Instant::now() + BACKOFF);
    for zero in ["0n", "0S", "00000000m"] {
        for context in [context, mainstay::context::Context::new()] {
            let error = context.scope(ServiceExt::oneshot(grpc.clone(), request(zero))).await.unwrap_err();
            assert_eq!(error.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: false }), "{zero}");
        }
    }
    let limited = context.scope(ServiceExt::oneshot(grpc.clone(), request("1n"))).await.unwrap();
    assert_eq!(limited.into_body(), "1n", "its own, and nearer");
    // Where `grpc-timeout` is not ours, it is a header like any other.
    let plain = PropagateLayer::new().layer(service_fn(|request: Request<()>| {
        std::future::ready(Ok::<_, BoxError>(Response::new(request.headers()["grpc-timeout"].clone())))
    }));
    assert_eq!(ServiceExt::oneshot(plain, request("0n")).await.unwrap().into_body(), "0n");
}

// === core, entry 19: the nearer of deadline and attempt timeout is propagated ===

#[tokio::test(start_paused = true)]
async fn core_entry_19_headers_carry_the_nearer_of_the_deadline_and_the_attempt_timeout() {
    let ms = Duration::from_millis;
    // Total and attempt timeout; what goes out at each of two attempts, the first of which takes 300 ms, with no time between.
    for (total, attempt, expected) in [
        (Some(ms(2_000)), Some(ms(500)), ["500", "500"]),
        (Some(ms(700)), Some(ms(500)), ["500", "400"]),
        (Some(ms(400)), Some(ms(500)), ["400", "100"]),
        (Some(ms(2_000)), None, ["2000", "1700"]),
        (None, Some(ms(500)), ["500", "500"]),
        (None, Some(Duration::from_micros(10)), ["1", "1"]),
    ] {
        for by_retry in [false, true] {
            let sent = Arc::new(Mutex::new(Vec::new()));
            let log = sent.clone();
            let client = service_fn(move |request: Request<Full<Bytes>>| {
                let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
                log.lock().unwrap().push((header("x-mainstay-deadline-ms"), header("grpc-timeout")));
                async move {
                    tokio::time::sleep(ms(300)).await;
                    Ok::<_, BoxError>(Response::builder().status(503).body(()).unwrap())
                }
            });
            let retry = RetryLayer::builder("app").max_attempts(2).backoff(BackoffConfig::none()).http();
            let retry = retry.attempt_timeout(attempt.filter(|_| by_retry)).build().unwrap();
            let longest = Duration::from_secs(3_600);
            let attempts = TimeoutLayer::attempt("app", attempt.filter(|_| !by_retry).unwrap_or(longest)).unwrap();
            let service = ServiceBuilder::new()
                .layer(TimeoutLayer::total("app", total.unwrap_or(longest)).unwrap())
                .layer(retry)
                .option_layer(attempt.filter(|_| !by_retry).map(|_| attempts))
                .layer(PropagateLayer::new().headers(ContextHeaders::new().grpc_timeout(true)).unwrap())
                .service(client);
            let request = Request::get("/").body(Full::default()).unwrap();
            let _ = ServiceExt::oneshot(service, request).await;
            let sent = sent.lock().unwrap();
            let millis: Vec<_> = sent.iter().map(|(millis, _)| millis.as_str()).collect();
            assert_eq!(millis, expected, "{total:?} {attempt:?}");
            for (millis, grpc) in sent.iter() {
                let grpc = mainstay::http::parse_grpc_timeout(&grpc.parse().unwrap()).unwrap();
                assert_eq!(grpc.as_millis().to_string(), *millis);
            }
        }
    }
}

// === entry 18: "out of time" within the caller's own spent deadline is no evidence ===

/// Five callers, each with so much time, of a dependency that answers 504 after so much of it; the breaker of the dependency.
async fn out_of_time(left: Option<Duration>, answers_after: Duration) -> CircuitBreakerHandle {
    let layer = CircuitBreakerLayer::builder("dependency")
        .consecutive_failures(5)
        .classify(HttpClassifier::new())
        .build()
        .unwrap();
    let client = layer.layer(service_fn(move |_: Request<()>| async move {
        tokio::time::sleep(answers_after).await;
        Ok::<_, BoxError>(Response::builder().status(504).body(()).unwrap())
    }));
    let server = ServiceBuilder::new().layer(AcceptContextLayer::default()).service(client);
    for _ in 0..5 {
        let request = Request::get("/");
        let request = match left {
            Some(left) => request.header("x-mainstay-deadline-ms", left.as_millis().to_string()),
            None => request,
        };
        assert_eq!(ServiceExt::oneshot(server.clone(), request.body(()).unwrap()).await.unwrap().status(), 504);
    }
    layer.handle()
}

#[tokio::test(start_paused = true)]
async fn entry_18_five_strangers_with_five_milliseconds_do_not_open_the_circuit() {
    let ms = Duration::from_millis;
    for (left, answers_after) in [(5, 0), (5, 5), (5, 9), (1, 1), (250, 250), (250, 240), (1_000, 5_000)] {
        let breaker = out_of_time(Some(ms(left)), ms(answers_after)).await;
        let counted = breaker.statistics();
        assert_eq!((breaker.state(), counted.ignored, counted.failures), (CircuitState::Closed, 5, 0), "{left}");
    }
    // Long before the deadline, or without one, it is the dependency that is too slow.
    for (left, answers_after) in [(Some(ms(2_000)), 100), (Some(ms(250)), 239), (Some(ms(11)), 0), (None, 10_000)] {
        let breaker = out_of_time(left, ms(answers_after)).await;
        assert_eq!((breaker.state(), breaker.statistics().failures), (CircuitState::Open, 5), "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_18_other_failures_and_settings_by_hand_count_within_a_spent_deadline_too() {
    let spent = mainstay::context::Context::new().with_deadline(Instant::now());
    let of = |classifier: HttpClassifier, status: u16| {
        let response = Response::builder().status(status).body(()).unwrap();
        spent.enter(|| classifier.classify(Ok::<_, &BoxError>(&response)))
    };
    assert_eq!(of(HttpClassifier::new(), 504), Outcome::Ignored);
    for status in [500, 502, 503] {
        assert_eq!(of(HttpClassifier::new(), status), Outcome::Transient);
    }
    let by_hand = HttpClassifier::new().on_status(StatusCode::GATEWAY_TIMEOUT, Outcome::Permanent);
    assert_eq!(of(by_hand, 504), Outcome::Permanent);
}

// === core, entry 18: the body of a response is under the deadline, too ===

/// A body that streams a chunk every so often, this many times.
fn streams(every: Duration, chunks: u32) -> impl Body<Data = Bytes, Error = Broken> {
    let frames = futures_util::stream::unfold(0, move |sent| async move {
        if sent == chunks {
            return None;
        }
        tokio::time::sleep(every).await;
        Some((data("chunk"), sent + 1))
    });
    StreamBody::new(Box::pin(frames))
}

/// Reads a response with 2 s in total, whose body streams like this; how much came, when it ended, and in what.
async fn within_two_seconds(every: Duration, chunks: u32) -> (usize, Duration, Result<(), mainstay::Error<Broken>>) {
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::total("whole", 2 * SECOND).unwrap())
        .layer(DeadlineBodyLayer::new())
        .service(service_fn(move |_: Request<()>| async move {
            tokio::time::sleep(SECOND / 2).await;
            Ok::<_, BoxError>(Response::new(streams(every, chunks)))
        }));
    let start = Instant::now();
    let mut body = Box::pin(ServiceExt::oneshot(service, Request::new(())).await.unwrap().into_body());
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(_) => read += 1,
            Err(error) => {
                assert!(body.is_end_stream() && body.size_hint().exact() == Some(0) && body.frame().await.is_none());
                return (read, start.elapsed(), Err(error));
            }
        }
    }
    (read, start.elapsed(), Ok(()))
}

#[tokio::test(start_paused = true)]
async fn core_entry_18_a_body_of_five_seconds_ends_at_the_deadline() {
    let late = mainstay::Error::Rejected(Rejected::DeadlineExceeded { sent: true });
    assert_eq!(within_two_seconds(SECOND, 5).await, (1, 2 * SECOND, Err(late.clone())));
    assert_eq!(within_two_seconds(SECOND / 10, 10).await, (10, SECOND * 3 / 2, Ok(())), "in time");
    assert_eq!(within_two_seconds(60 * SECOND, 1).await, (0, 2 * SECOND, Err(late.clone())));
    // A caller that sees nothing but a boxed error finds the rejection in it.
    let boxed: BoxError = late.into();
    assert_eq!(boxed.as_rejected(), Some(&Rejected::DeadlineExceeded { sent: true }));
}

#[tokio::test(start_paused = true)]
async fn core_entry_18_the_deadline_is_that_of_the_call_wherever_the_body_is_read() {
    let dropped = Arc::new(AtomicBool::new(false));
    struct Held(Arc<AtomicBool>, mpsc::UnboundedReceiver<Sent>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    impl Body for Held {
        type Data = Bytes;
        type Error = Broken;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Sent>> {
            self.1.poll_recv(cx)
        }
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let held = Mutex::new(Some(Held(dropped.clone(), receiver)));
    let server = ServiceBuilder::new().layer(AcceptContextLayer::default()).layer(DeadlineBodyLayer::new()).service(
        service_fn(move |_: Request<()>| {
            std::future::ready(Ok::<_, BoxError>(Response::new(held.lock().unwrap().take().unwrap())))
        }),
    );
    let request = Request::get("/").header("x-mainstay-deadline-ms", "1000").body(()).unwrap();
    let body = ServiceExt::oneshot(server, request).await.unwrap().into_body();
    // Read elsewhere, under another deadline.
    let other = mainstay::context::Context::new().with_deadline(Instant::now() + 60 * SECOND);
    let reading = tokio::spawn(other.scope(async move {
        let mut body = Box::pin(body);
        body.frame().await.unwrap().unwrap();
        let mut given_up = task::spawn(body.frame());
        assert_pending!(given_up.poll());
        drop(given_up);
        let late = body.frame().await.unwrap().unwrap_err();
        (late, Instant::now())
    }));
    let start = Instant::now();
    tokio::time::sleep(SECOND / 2).await;
    sender.send(data("early")).unwrap();
    let (late, at) = reading.await.unwrap();
    assert!(late.as_rejected().is_some_and(Rejected::is_deadline_exceeded));
    assert_eq!(at - start, SECOND);
    assert!(dropped.load(Relaxed));
}

#[test]
fn core_entry_18_no_timer_is_armed_before_the_body_waits_or_without_a_deadline() {
    // Outside of a runtime a timer would panic.
    let read = |deadline| {
        let mut body = Box::pin(DeadlineBody::new(Full::new(Bytes::from("whole")), deadline));
        let frame = tokio_test::assert_ready!(task::spawn(body.frame()).poll()).unwrap().unwrap();
        assert!(body.is_end_stream());
        frame.into_data().unwrap()
    };
    assert_eq!(read(None), "whole");
    assert_eq!(read(Some(Instant::now() + SECOND)), "whole");
    assert_eq!(read(Some(Instant::now())), "whole", "a body that is complete wins over a deadline that has passed");
    let (_sender, waits) = by_hand();
    let mut unlimited = Box::pin(DeadlineBody::new(waits, None));
    assert_pending!(task::spawn(unlimited.frame()).poll());
}

#[tokio::test(start_paused = true)]
async fn core_entry_18_a_body_that_never_waits_ends_too_and_its_end_and_errors_win() {
    let late = |frame: Option<Result<Frame<Bytes>, mainstay::Error<Broken>>>| match frame.unwrap() {
        Ok(_) => false,
        Err(error) => error.as_rejected().is_some_and(Rejected::is_deadline_exceeded),
    };
    let endless = StreamBody::new(futures_util::stream::repeat_with(|| data("chunk")));
    let mut body = Box::pin(DeadlineBody::new(endless, Some(Instant::now() + SECOND)));
    for _ in 0..1_000 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    tokio::time::advance(SECOND).await;
    assert!(late(body.frame().await));

    let past = Some(Instant::now());
    for (frame, expected) in
        [(Some(Ok(Frame::trailers(trailers()))), true), (Some(Err(Broken("reset"))), false), (None, true)]
    {
        let (sender, body) = by_hand();
        let mut body = Box::pin(DeadlineBody::new(body, past));
        frame.into_iter().for_each(|frame| sender.send(frame).unwrap());
        drop(sender);
        match body.frame().await {
            None => assert!(expected),
            Some(Ok(frame)) => assert!(expected && frame.is_trailers()),
            Some(Err(error)) => assert_eq!((expected, error), (false, mainstay::Error::Service(Broken("reset")))),
        }
    }
}

// === entry 13: what an HTTP cache may store, and under which key ===

#[cfg(feature = "cache")]
mod caching {
    use http::Method;
    use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION};
    use mainstay::CacheLayer;
    use mainstay::http::{HttpCaching, HttpKey};

    use super::*;

    type Page = Response<String>;

    fn request(method: Method, uri: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let request = Request::builder().method(method).uri(uri);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    fn response(status: u16, headers: &[(&'static str, &str)]) -> Response<()> {
        let response = Response::builder().status(status);
        headers.iter().fold(response, |response, (name, value)| response.header(*name, *value)).body(()).unwrap()
    }

    fn get(headers: &[(&'static str, &str)]) -> Option<HttpKey> {
        HttpCaching::new().key(&request(Method::GET, "https://example.com/page", headers))
    }

    fn stored(caching: &HttpCaching, asked: &[(&'static str, &str)], answered: &[(&'static str, &str)]) -> bool {
        let key = caching.key(&request(Method::GET, "https://example.com/page", asked)).unwrap();
        caching.may_store(&key, &response(200, answered))
    }

    #[test]
    fn entry_13_only_get_and_head_are_cached_and_apart() {
        let caching = HttpCaching::new();
        let key = |method, uri: &str, headers: &[_]| caching.key(&request(method, uri, headers));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::TRACE] {
            assert_eq!(key(method, "https://example.com/page", &[]), None);
        }
        let page = key(Method::GET, "https://example.com/page", &[]);
        assert_ne!(page, key(Method::HEAD, "https://example.com/page", &[]));
        assert_eq!(page, key(Method::GET, "https://EXAMPLE.com/page", &[]));
        for other in ["https://example.org/page", "http://example.com/page", "https://example.com/page?a", "/page"] {
            assert_ne!(page, key(Method::GET, other, &[]), "{other}");
        }
        // On a server the authority is in the host header, unless the URI has it.
        let host = |host| key(Method::GET, "/page", &[("host", host)]);
        assert_ne!(host("a.example"), host("b.example"));
        assert_eq!(host("a.example"), host("A.example"));
        assert_eq!(host("not a host"), None);
        assert_eq!(page, key(Method::GET, "https://example.com/page", &[("host", "a.example")]));
        for header in ["range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"] {
            assert_eq!(get(&[(header, "anything")]), None, "{header}");
        }
        assert_eq!(get(&[("cache-control", "max-age=0, No-Store")]), None);
        assert_eq!(get(&[("accept", "text/html")]), page);
    }

    #[test]
    fn entry_13_only_whole_final_answers_are_stored() {
        let key = get(&[]).unwrap();
        let storable: Vec<_> =
            (100..600).filter(|&status| HttpCaching::new().may_store(&key, &response(status, &[]))).collect();
        assert_eq!(storable, [200, 203, 204, 300, 301, 308, 404, 410]);
        let stored = |headers: &[_]| stored(&HttpCaching::new(), &[], headers);
        assert!(stored(&[("cache-control", "max-age=60, stale-while-revalidate=\"private, no-store\"")]));
        for headers in [
            [("set-cookie", "session=1"), ("cache-control", "public")],
            [("cache-control", "public"), ("cache-control", "Private")],
            [("cache-control", "max-age=60,no-store"), ("age", "0")],
            [("cache-control", "private=\"x-user\""), ("age", "0")],
            [("cache-control", "no-cache"), ("age", "0")],
            [("cache-control", "a=\"\\\"\", no-store"), ("age", "0")],
        ] {
            assert!(!stored(&headers), "{headers:?}");
        }
    }

    #[test]
    fn entry_13_an_answer_to_credentials_is_for_others_only_if_it_says_so() {
        let caching = HttpCaching::new();
        for credentials in [("authorization", "Bearer one"), ("cookie", "session=1")] {
            assert!(!stored(&caching, &[credentials], &[]));
            assert!(!stored(&caching, &[credentials], &[("cache-control", "max-age=60")]));
            assert!(!stored(&caching, &[credentials], &[("cache-control", "private=\"a, public\", max-age=60")]));
            assert!(!stored(&caching, &[credentials], &[("cache-control", "extension=\"a, public, b\"")]));
            assert!(stored(&caching, &[credentials], &[("cache-control", "PUBLIC")]));
            assert!(stored(&caching, &[credentials], &[("cache-control", "s-maxage=60")]));
            assert_ne!(get(&[credentials]), get(&[]), "nor does it get the answer to one without");
        }
        let each = HttpCaching::new().by_authorization(true);
        let key = |token: &str| each.key(&request(Method::GET, "/", &[("authorization", token)])).unwrap();
        assert_eq!(key("Bearer one"), key("Bearer one"));
        assert_ne!(key("Bearer one"), key("Bearer two"));
        assert!(!format!("{:?}", key("Bearer one")).contains("Bearer"), "credentials are not for logs");
        assert!(stored(&each, &[("authorization", "Bearer one")], &[("vary", "authorization")]));
        assert!(!stored(&each, &[("authorization", "Bearer one"), ("cookie", "a=b")], &[]));
        assert!(!stored(&each, &[("authorization", "Bearer one")], &[("cache-control", "private")]));
        assert!(!stored(&caching, &[], &[("vary", AUTHORIZATION.as_str())]));
    }

    #[test]
    fn entry_13_an_answer_that_varies_is_stored_only_where_the_key_has_what_it_varies_by() {
        let plain = HttpCaching::new();
        assert!(!stored(&plain, &[], &[("vary", "accept-language")]));
        assert!(stored(&plain, &[], &[("vary", "Host,, ")]), "that is in every key");
        let caching = HttpCaching::new().vary([ACCEPT_LANGUAGE, ACCEPT_ENCODING]);
        let key = |language: &str| caching.key(&request(Method::GET, "/", &[("accept-language", language)])).unwrap();
        assert_eq!(key("en"), key("en"));
        assert_ne!(key("en"), key("de"));
        assert!(stored(&caching, &[], &[("vary", "Accept-Language , accept-encoding")]));
        for vary in ["*", "accept-language, *", "accept-language, origin", "not a name"] {
            assert!(!stored(&caching, &[], &[("vary", vary)]), "{vary}");
        }
        assert!(!stored(&caching, &[], &[("vary", "accept-language"), ("vary", "origin")]));
    }

    #[test]
    fn entry_13_freshness_is_what_the_answer_says_for_shared_caches() {
        let of = |headers: &[_]| HttpCaching::new().fresh_for(&response(200, headers)).map(|fresh| fresh.as_secs());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("cache-control", "max-age=60")]), Some(60));
        assert_eq!(of(&[("cache-control", "max-age=60, s-maxage=\"10\"")]), Some(10));
        assert_eq!(of(&[("cache-control", "max-age=60"), ("age", "59")]), Some(1));
        assert_eq!(of(&[("cache-control", "max-age=60"), ("age", "61")]), Some(0));
        assert_eq!(of(&[("cache-control", "max-age=60"), ("cache-control", "max-age=6")]), Some(6));
        assert_eq!(of(&[("cache-control", "max-age=6, max-age=60")]), Some(6), "the shorter one holds");
        assert_eq!(of(&[("cache-control", "s-maxage=6"), ("cache-control", "s-maxage=60")]), Some(6));
        assert_eq!(of(&[("cache-control", "max-age=99999999999999999999")]), Some(u64::MAX));
        for unreadable in ["max-age", "max-age=", "max-age=soon", "max-age=-1"] {
            assert_eq!(of(&[("cache-control", unreadable)]), Some(0), "{unreadable}");
        }
    }

    /// The situations of the list, through the layer.
    #[tokio::test(start_paused = true)]
    async fn entry_13_the_preset_sends_a_post_and_serves_only_what_may_be_stored() {
        let sent = Arc::new(AtomicU32::new(0));
        let count = sent.clone();
        let layer = CacheLayer::builder("pages")
            .http::<()>(HttpCaching::new())
            .negative_ttl(60 * SECOND)
            .cache_if_for(|_: &HttpKey, _: &Page| true)
            .build()
            .unwrap();
        let pages = layer.layer(service_fn(move |request: Request<()>| {
            let number = count.fetch_add(1, Relaxed);
            let status = request.uri().path()[1..].parse::<u16>().unwrap();
            let mut page = Response::builder().status(status).body(format!("{} {number}", request.method())).unwrap();
            if status == 203 {
                page.headers_mut().insert("set-cookie", "session=1".parse().unwrap());
            }
            if status == 204 {
                page.headers_mut().insert("cache-control", "max-age=1".parse().unwrap());
            }
            std::future::ready(Ok::<_, BoxError>(page))
        }));
        let loads = |requests: Vec<Request<()>>| {
            let (pages, sent) = (pages.clone(), sent.clone());
            async move {
                sent.store(0, Relaxed);
                for request in requests {
                    ServiceExt::oneshot(pages.clone(), request).await.unwrap();
                }
                sent.load(Relaxed)
            }
        };
        let twice = |method: Method, status: u16, headers: &[(&'static str, &str)]| {
            vec![
                request(method.clone(), &format!("/{status}"), headers),
                request(method, &format!("/{status}"), headers),
            ]
        };
        assert_eq!(loads(twice(Method::GET, 200, &[])).await, 1);
        assert_eq!(loads(twice(Method::GET, 404, &[])).await, 1);
        assert_eq!(loads(twice(Method::HEAD, 200, &[])).await, 1, "apart from the page");
        assert_eq!(loads(twice(Method::POST, 200, &[])).await, 2);
        assert_eq!(loads(twice(Method::GET, 200, &[("authorization", "Bearer one")])).await, 2);
        for status in [203, 206, 304, 403, 431, 302, 503] {
            assert_eq!(loads(twice(Method::GET, status, &[])).await, 2, "{status}");
        }
        assert_eq!(loads(twice(Method::GET, 204, &[])).await, 1);
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(loads(vec![request(Method::GET, "/204", &[])]).await, 1, "its own second is over");
    }
}
