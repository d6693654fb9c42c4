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
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::backoff::{BackoffConfig, Jitter};
use mainstay::budget::Budget;
use mainstay::http::{ReplayBodies, ReplayBody, ReplayError, ReplayLayer};
use mainstay::retry::{RequestPolicy, RetryHandle};
use mainstay::{BoxError, RetryLayer};
use tokio::sync::mpsc;
use tokio_test::{assert_pending, task};
use tower::{ServiceBuilder, ServiceExt, service_fn};

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
fn uploads() -> RetryLayer<mainstay::HttpClassifier, mainstay::http::HttpRequests<ReplayBodies>> {
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
async fn entry_01_a_body_that_nobody_reads_any_more_cannot_be_lost_and_the_result_is_not_kept() {
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
    let mut copy = first.again();
    first.collect().await.unwrap();
    assert_eq!(copy.size_hint().lower(), 4);
    assert_eq!(copy.size_hint().upper(), None, "HTTP/1 sends no trailers after a body of an announced length");
    let mut frames = Vec::new();
    while let Some(frame) = copy.frame().await {
        frames.push(frame.unwrap().is_trailers());
    }
    assert_eq!(frames, [false, true]);
    assert!(copy.is_end_stream());
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
