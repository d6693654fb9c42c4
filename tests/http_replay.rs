//! Bodies that stream and are sent again.
#![cfg(all(feature = "http", feature = "retry"))]

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use mainstay::backoff::BackoffConfig;
use mainstay::budget::Budget;
use mainstay::http::{HttpRequests, ReplayBodies, ReplayBody, ReplayError, ReplayLayer};
use mainstay::retry::{RetryHandle, RetryLayer};
use mainstay::{BoxError, context};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// A body of these frames; it counts its reads, and `None` among them is a wait without end.
#[derive(Default)]
struct Frames {
    frames: VecDeque<Option<Result<Frame<Bytes>, &'static str>>>,
    reads: Arc<AtomicU32>,
}

impl Frames {
    fn of(chunks: &[&'static str]) -> Self {
        let frames = chunks.iter().map(|chunk| Some(Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))))).collect();
        Self { frames, reads: Arc::default() }
    }

    fn then(mut self, frame: Option<Result<Frame<Bytes>, &'static str>>) -> Self {
        self.frames.push_back(frame);
        self
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.reads.fetch_add(1, Relaxed);
        match self.frames.pop_front() {
            Some(None) => Poll::Pending,
            Some(frame) => Poll::Ready(frame),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.frames.iter().flatten().flatten().filter_map(Frame::data_ref);
        SizeHint::with_exact(data.map(|data| data.len() as u64).sum())
    }
}

/// Sends `body` by `PUT` to a server that reads so many frames of it before it answers 503, and the whole of it at the third
/// attempt. Returns what came whole, the last status, and the counts.
async fn send(body: Frames, cap: usize, frames_read: usize) -> (Vec<Bytes>, u16, RetryHandle) {
    let layer = RetryLayer::builder("uploads")
        .backoff(BackoffConfig::none())
        .budget(Budget::unlimited())
        .requests(ReplayBodies::new())
        .http()
        .build()
        .unwrap();
    let (handle, whole) = (layer.handle(), Arc::new(Mutex::new(Vec::new())));
    let log = whole.clone();
    let server = service_fn(move |request: Request<ReplayBody<Frames>>| {
        let log = log.clone();
        async move {
            assert_eq!(request.headers()["x-kept"], "yes");
            let mut body = request.into_body();
            if context::current().attempt() < 3 {
                for _ in 0..frames_read {
                    let _ = body.frame().await;
                }
                return Ok(Response::builder().status(503).body(()).unwrap());
            }
            let all = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            log.lock().unwrap().push(all);
            Ok::<_, BoxError>(Response::new(()))
        }
    });
    let client = ServiceBuilder::new().layer(ReplayLayer::new(cap)).layer(layer).service(server);
    let request = Request::put("/").header("x-kept", "yes").body(body).unwrap();
    let status = client.oneshot(request).await.unwrap().status().as_u16();
    let whole = std::mem::take(&mut *whole.lock().unwrap());
    (whole, status, handle)
}

#[tokio::test]
async fn a_body_that_streams_is_sent_again_whole_wherever_the_attempt_before_stopped() {
    for frames_read in 0..5 {
        let body = Frames::of(&["one ", "two ", "three"]);
        let reads = body.reads.clone();
        let (whole, status, handle) = send(body, 13, frames_read).await;
        assert_eq!((whole, status), (vec![Bytes::from("one two three")], 200), "{frames_read}");
        assert_eq!(handle.statistics().retries, 2);
        assert_eq!(reads.load(Relaxed), 4, "each frame and the end are read once");
    }
}

#[tokio::test]
async fn beyond_the_cap_no_retry_follows_and_the_reason_is_named() {
    let (whole, status, handle) = send(Frames::of(&["one ", "two ", "three"]), 12, 3).await;
    assert_eq!((whole.len(), status), (0, 503), "the last real result");
    assert_eq!((handle.statistics().retries, handle.statistics().gave_up_not_replayable), (0, 1));
    // What was not read past the cap can go on.
    let (whole, status, _) = send(Frames::of(&["one ", "two ", "three"]), 12, 2).await;
    assert_eq!((whole, status), (vec![Bytes::from("one two three")], 200));
}

#[tokio::test]
async fn a_body_that_failed_is_not_sent_again() {
    let (_, status, handle) = send(Frames::of(&["one "]).then(Some(Err("the disk"))), 1024, 2).await;
    assert_eq!((status, handle.statistics().gave_up_not_replayable), (503, 1));
}

#[tokio::test]
async fn nothing_is_kept_when_no_attempt_can_follow() {
    let mut last = ReplayBody::new(Frames::of(&["one ", "two"]), 1024);
    last.frame().await.unwrap().unwrap();
    assert!(!last.is_replayable());
    let copy = last.again();
    let error = copy.collect().await.unwrap_err();
    assert_eq!(error, ReplayError::Lost);
    assert_eq!(last.collect().await.unwrap().to_bytes(), "two", "the attempt itself goes on");
}

#[tokio::test]
async fn trailers_and_the_length_are_those_of_the_body() {
    let trailers: HeaderMap = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
    let body = ReplayBody::new(Frames::of(&["one ", "two"]).then(Some(Ok(Frame::trailers(trailers.clone())))), 7);
    let copy = body.again();
    for mut body in [body, copy] {
        assert_eq!(body.size_hint().exact(), Some(7));
        body.frame().await.unwrap().unwrap();
        assert_eq!(body.size_hint().exact(), Some(3));
        let rest = body.collect().await.unwrap();
        assert_eq!(rest.trailers(), Some(&trailers));
        assert_eq!(rest.to_bytes(), "two");
    }
}

#[tokio::test]
async fn an_attempt_that_was_given_up_and_still_reads_is_woken_and_told() {
    let mut stale = ReplayBody::new(Frames::of(&["one "]).then(None).then(Some(Ok(Frame::data("two".into())))), 1024);
    let copy = stale.again();
    stale.frame().await.unwrap().unwrap();
    let mut reading = task::spawn(stale.frame());
    assert_pending!(reading.poll());
    assert_eq!(copy.collect().await.unwrap().to_bytes(), "one two");
    assert!(reading.is_woken());
    assert_eq!(assert_ready!(reading.poll()).unwrap().unwrap_err(), ReplayError::Superseded);
}

/// Scenario R10, with a body.
#[tokio::test]
async fn a_post_is_not_repeated_because_its_body_could_be() {
    use mainstay::retry::RequestPolicy;

    let policy = HttpRequests::new(ReplayBodies::new());
    let request = |method: &str| Request::builder().method(method).body(ReplayBody::new(Frames::default(), 1)).unwrap();
    assert!(policy.is_idempotent(&request("PUT")) && !policy.is_idempotent(&request("POST")));
}

/// What a client reads from a body before and between its frames decides how it is sent: by length, in chunks, or not at all.
#[tokio::test]
async fn a_reader_is_at_its_end_when_it_has_read_every_chunk_and_the_trailers_and_not_before() {
    let trailers: HeaderMap = [("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect();
    for with_trailers in [false, true] {
        let mut body = Frames::of(&["one ", "two"]);
        if with_trailers {
            body = body.then(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        let first = ReplayBody::new(body, 7);
        let (mut second, third) = (first.again(), first.again());
        assert!(!second.is_end_stream(), "nothing was read");
        let whole = first.collect().await.unwrap();
        assert_eq!(whole.trailers().is_some(), with_trailers);
        for left in [7, 3] {
            assert!(!second.is_end_stream());
            assert_eq!(second.size_hint().exact(), Some(left));
            second.frame().await.unwrap().unwrap();
        }
        assert_eq!(second.is_end_stream(), !with_trailers, "after the data");
        if with_trailers {
            assert_eq!(second.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
        }
        assert!(second.is_end_stream());
        assert_eq!(second.size_hint().exact(), Some(0));
        assert!(second.frame().await.is_none() && second.frame().await.is_none());
        assert_eq!(third.collect().await.unwrap().to_bytes(), "one two");
    }
}

#[tokio::test]
async fn a_copy_may_be_lost_only_while_another_reader_has_not_read_to_the_end() {
    use mainstay::retry::RequestPolicy;

    let policy = HttpRequests::new(ReplayBodies::new());
    let mut request = Request::put("/").body(ReplayBody::new(Frames::of(&["one ", "two"]), 1024)).unwrap();
    let copy = policy.try_clone(&request).unwrap();
    let state = || (policy.is_replayable(&copy), policy.may_be_lost(&copy));
    assert_eq!(state(), (true, true), "nothing was read");
    request.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(state(), (true, true), "half of it was");
    while request.body_mut().frame().await.is_some() {}
    assert_eq!(state(), (true, false), "all of it was");

    let mut request = Request::put("/").body(ReplayBody::new(Frames::of(&["one ", "two"]), 1024)).unwrap();
    let copy = policy.try_clone(&request).unwrap();
    request.body_mut().frame().await.unwrap().unwrap();
    drop(request);
    assert_eq!((policy.is_replayable(&copy), policy.may_be_lost(&copy)), (true, false), "no other reader is left");

    let mut request = Request::put("/").body(ReplayBody::new(Frames::of(&["one ", "two"]), 1)).unwrap();
    let copy = policy.try_clone(&request).unwrap();
    request.body_mut().frame().await.unwrap().unwrap();
    assert_eq!((policy.is_replayable(&copy), policy.may_be_lost(&copy)), (false, false), "it is lost already");
}

#[test]
fn the_policy_inside_has_its_say_beside_the_method() {
    use mainstay::retry::{CloneRequests, IdempotentIf, RequestPolicy, RetryIf};

    let request = |method: &str, path: &str| Request::builder().method(method).uri(path).body(()).unwrap();
    let small = |request: &Request<()>| request.uri().path() == "/small";
    let repeats = HttpRequests::new(IdempotentIf::new(CloneRequests, small));
    let idempotent: Vec<_> = [("GET", "/small"), ("GET", "/large"), ("POST", "/small"), ("POST", "/large")]
        .map(|(method, path)| repeats.is_idempotent(&request(method, path)))
        .into();
    assert_eq!(idempotent, [true, false, false, false]);
    let retries = HttpRequests::new(RetryIf::new(CloneRequests, small));
    assert!(retries.may_retry(&request("GET", "/small")) && !retries.may_retry(&request("GET", "/large")));
    assert!(!repeats.may_be_lost(&request("GET", "/small")), "a clone is independent");
    assert!(repeats.is_replayable(&request("GET", "/small")));
}
