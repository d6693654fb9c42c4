//! gRPC deadlines and status codes.
#![cfg(all(feature = "grpc", feature = "circuit-breaker"))]

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use mainstay::context::Context;
use mainstay::grpc::{Code, GrpcClassifier};
use mainstay::http::{AcceptContextLayer, ContextHeaders, StreamBreakerLayer};
use mainstay::{BoxError, CircuitBreakerHandle, CircuitState, Classify, Outcome};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Five callers, each with so much time, of a dependency that answers `DEADLINE_EXCEEDED` in its trailers after so much of it. The body
/// is read outside of the context, as a server does. The breaker of the dependency.
async fn out_of_time(left: &str, answers_after: Duration) -> CircuitBreakerHandle {
    let breaker = CircuitBreakerHandle::builder("dependency").consecutive_failures(5).build_handle().unwrap();
    let client = service_fn(move |_: Request<()>| async move {
        let trailers: HeaderMap = [("grpc-status".parse().unwrap(), "4".parse().unwrap())].into_iter().collect();
        let frames = futures_util::stream::once(async move {
            tokio::time::sleep(answers_after).await;
            Ok::<_, BoxError>(Frame::<Bytes>::trailers(trailers))
        });
        Ok::<_, BoxError>(Response::new(StreamBody::new(Box::pin(frames))))
    });
    let server = ServiceBuilder::new()
        .layer(AcceptContextLayer::default().headers(ContextHeaders::new().grpc_timeout(true)).unwrap())
        .service(StreamBreakerLayer::new(breaker.clone(), GrpcClassifier::new()).layer(client));
    for _ in 0..5 {
        let request = Request::post("/").header("grpc-timeout", left).body(()).unwrap();
        let response = ServiceExt::oneshot(server.clone(), request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    breaker
}

#[tokio::test(start_paused = true)]
async fn entry_18_five_strangers_with_five_milliseconds_do_not_open_the_circuit() {
    for (left, answers_after) in [("5m", 5), ("5m", 0), ("250m", 245), ("1S", 3_000)] {
        let breaker = out_of_time(left, ms(answers_after)).await;
        let counted = breaker.statistics();
        assert_eq!((breaker.state(), counted.ignored, counted.failures), (CircuitState::Closed, 5, 0), "{left}");
    }
    for (left, answers_after) in [("2S", 100), ("250m", 200), ("soon", 0)] {
        let breaker = out_of_time(left, ms(answers_after)).await;
        assert_eq!((breaker.state(), breaker.statistics().failures), (CircuitState::Open, 5), "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn entry_18_only_an_answer_that_says_out_of_time_is_excused() {
    let spent = Context::new().with_deadline(Instant::now());
    let head = |classifier: GrpcClassifier, status: u16, code: Option<&str>| {
        let mut response = Response::builder().status(status);
        if let Some(code) = code {
            response = response.header("grpc-status", code);
        }
        let response = response.body(()).unwrap();
        let of = || classifier.classify(Ok::<_, &BoxError>(&response));
        (spent.enter(of), of())
    };
    assert_eq!(head(GrpcClassifier::new(), 200, Some("4")), (Outcome::Ignored, Outcome::Transient));
    assert_eq!(head(GrpcClassifier::new(), 504, None), (Outcome::Ignored, Outcome::Transient));
    assert_eq!(head(GrpcClassifier::new(), 503, None).0, Outcome::Transient);
    assert_eq!(head(GrpcClassifier::new(), 200, Some("14")).0, Outcome::Transient);
    assert_eq!(head(GrpcClassifier::new(), 504, Some("14")).0, Outcome::Transient, "its own status comes first");
    let refused = GrpcClassifier::new().on_code(Code::DeadlineExceeded, Outcome::Refused);
    assert_eq!(head(refused, 200, Some("4")).0, Outcome::Refused);
}
