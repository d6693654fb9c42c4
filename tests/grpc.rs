//! gRPC: what codes and trailers mean, in memory and with tonic over loopback.
#![cfg(feature = "grpc")]

use std::time::Duration;

use http::{HeaderMap, HeaderName, Response};
use mainstay::grpc::{Code, GrpcClassifier};
use mainstay::http::{ClassifyEnd, DEPENDENCY_FAILED, GAVE_UP};
use mainstay::{BoxError, Classify, Outcome, RetryHint};

const THROTTLED: Outcome = Outcome::Throttled { retry_after: None };

fn metadata(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

/// The verdict of a head.
fn head(status: u16, pairs: &[(&'static str, &str)]) -> Outcome {
    let mut response = Response::builder().status(status).body(()).unwrap();
    *response.headers_mut() = metadata(pairs);
    GrpcClassifier::new().classify(Ok::<_, &BoxError>(&response))
}

/// The verdict of trailers.
fn end(pairs: &[(&'static str, &str)]) -> Outcome {
    GrpcClassifier::new().classify_end(Ok::<_, &BoxError>(Some(&metadata(pairs))))
}

#[test]
fn every_code_is_in_the_table_in_the_head_and_at_the_end() {
    let expected = |number: u32| match number {
        0 => Outcome::Success,
        1 => Outcome::Ignored,
        3 | 5 | 6 | 7 | 9 | 10 | 11 | 16 => Outcome::Refused,
        8 => THROTTLED,
        4 | 14 => Outcome::Transient,
        _ => Outcome::Permanent,
    };
    for number in 0..100 {
        let code = number.to_string();
        assert_eq!(head(200, &[("grpc-status", &code)]), expected(number), "{number}");
        assert_eq!(end(&[("grpc-status", &code)]), expected(number), "{number}");
        assert_eq!(Code::from_number(number) as u32, if number > 16 { 2 } else { number });
    }
}

#[test]
fn a_head_without_a_status_is_fine_so_far_and_an_end_without_one_is_unknown() {
    assert_eq!(head(200, &[]), Outcome::Success);
    assert_eq!(end(&[]), Outcome::Permanent);
    assert_eq!(GrpcClassifier::new().classify_end(Ok::<_, &BoxError>(None)), Outcome::Permanent);
    assert_eq!(GrpcClassifier::new().classify_end(Err(&"reset")), Outcome::Transient);
    for unreadable in ["", "-1", "+0", " 0", "0x0", "000", "OK", "4294967296", "99999999999999999999"] {
        assert_eq!(end(&[("grpc-status", unreadable)]), Outcome::Permanent, "{unreadable:?}");
    }
}

#[test]
fn a_proxys_answer_becomes_a_code_by_its_http_status() {
    for (status, expected) in [
        (400, Outcome::Permanent),
        (401, Outcome::Refused),
        (403, Outcome::Refused),
        (404, Outcome::Permanent),
        (429, Outcome::Transient),
        (502, Outcome::Transient),
        (503, Outcome::Transient),
        (504, Outcome::Transient),
        (500, Outcome::Permanent),
        (302, Outcome::Permanent),
    ] {
        assert_eq!(head(status, &[]), expected, "{status}");
    }
    assert_eq!(head(503, &[("grpc-status", "5")]), Outcome::Refused, "its own status comes first");
}

/// Retry, scenario 15: a pushback is a time, and -1 stops.
#[test]
fn a_pushback_is_heeded_where_the_call_failed() {
    let with = |code: &str, pushback: &str| end(&[("grpc-status", code), ("grpc-retry-pushback-ms", pushback)]);
    let half = Outcome::throttled(Duration::from_millis(500));
    assert_eq!(with("14", "500"), half);
    assert_eq!(with("8", "500"), half);
    assert_eq!(with("14", "-1"), Outcome::Permanent);
    assert_eq!((with("8", "-1").retry(), with("8", "-1").health()), (RetryHint::No, THROTTLED.health()));
    assert_eq!(with("8", "soon"), Outcome::Ignored);
    assert_eq!(with("13", "500"), Outcome::Permanent, "it would fail alike");
    assert_eq!(with("0", "500"), Outcome::Success);
    assert_eq!(with("5", "500"), Outcome::Refused);
    assert_eq!(head(200, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "500")]), half);
}

#[test]
fn a_marked_failure_is_the_dependencys_and_codes_can_be_overridden() {
    for mark in [DEPENDENCY_FAILED, GAVE_UP] {
        let mut trailers = metadata(&[("grpc-status", "14"), ("grpc-retry-pushback-ms", "500")]);
        trailers.insert(mark.clone(), "1".parse().unwrap());
        let judge = |trailers: &HeaderMap| GrpcClassifier::new().classify_end(Ok::<_, &BoxError>(Some(trailers)));
        assert_eq!(judge(&trailers), Outcome::DependencyFailed);
        trailers.insert("grpc-status", "5".parse().unwrap());
        assert_eq!(judge(&trailers), Outcome::Refused, "a mark means something on failures only");
    }
    let classifier = GrpcClassifier::new().on_code(Code::Unknown, Outcome::Transient).on_error(Outcome::Permanent);
    assert_eq!(classifier.classify_end(Ok::<_, &BoxError>(None)), Outcome::Transient);
    assert_eq!(classifier.classify_end(Err(&"reset")), Outcome::Permanent);
}

#[test]
fn a_classifier_with_rules_for_errors_judges_answers_and_ends_alike() {
    let plain = GrpcClassifier::new().on_code(Code::NotFound, Outcome::Permanent).on_error(Outcome::Ignored);
    let ruled = plain.not_sent_if(|error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    for number in 0..17 {
        let trailers = metadata(&[("grpc-status", &number.to_string())]);
        let mut response = Response::new(());
        *response.headers_mut() = trailers.clone();
        let result = Ok::<_, &BoxError>(&response);
        assert_eq!(ruled.classify(result), plain.classify(result));
        assert_eq!(ruled.depends_on_caller(result), number != 5, "{number}");
        assert_eq!(plain.depends_on_caller(result), number != 5, "{number}");
        let end = Ok::<_, &BoxError>(Some(&trailers));
        assert_eq!(ruled.classify_end(end), plain.classify_end(end));
    }
    for (kind, expected) in [
        (std::io::ErrorKind::ConnectionRefused, Outcome::NotSent),
        (std::io::ErrorKind::ConnectionReset, Outcome::Ignored),
    ] {
        let error: BoxError = std::io::Error::from(kind).into();
        assert_eq!(ruled.classify(Err::<&Response<()>, _>(&error)), expected);
        assert!(ruled.depends_on_caller(Err::<&Response<()>, _>(&error)));
    }
}

// === over loopback ===

#[cfg(feature = "circuit-breaker")]
mod loopback {
    use std::convert::Infallible;
    use std::future::Future;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::{BodyExt, StreamBody};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use mainstay::context::{self, Context};
    use mainstay::http::{AcceptContextLayer, ContextHeaders, PropagateLayer, StreamBreakerLayer};
    use mainstay::{CircuitBreakerHandle, CircuitBreakerStatistics};
    use tokio::time::Instant;
    use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
    use tower::{Layer, ServiceBuilder, service_fn};

    use super::*;

    /// Messages as they are: no code is generated here.
    #[derive(Clone, Default)]
    struct Raw;

    impl Codec for Raw {
        type Encode = Bytes;
        type Decode = Bytes;
        type Encoder = Self;
        type Decoder = Self;

        fn encoder(&mut self) -> Self {
            Self
        }

        fn decoder(&mut self) -> Self {
            Self
        }
    }

    impl Encoder for Raw {
        type Item = Bytes;
        type Error = tonic::Status;

        fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
            bytes::BufMut::put(buffer, item);
            Ok(())
        }
    }

    impl Decoder for Raw {
        type Item = Bytes;
        type Error = tonic::Status;

        fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
            use bytes::Buf;
            let length = buffer.remaining();
            Ok(Some(buffer.copy_to_bytes(length)))
        }
    }

    /// A server that answers "message" (if it is asked to), then the code that it is asked for; says what is left of the deadline.
    async fn handle(request: Request<hyper::body::Incoming>) -> Result<Response<tonic::body::Body>, Infallible> {
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let asked = std::str::from_utf8(&asked[5..]).unwrap();
        let (how, code) = asked.split_once(' ').unwrap();
        let left = context::current().remaining(Instant::now()).map_or(0, |left| left.as_millis());
        let response =
            Response::builder().header("content-type", "application/grpc").header("x-left", left.to_string());
        if how == "trailers-only" {
            return Ok(response.header("grpc-status", code).body(tonic::body::Body::empty()).unwrap());
        }
        let mut message = vec![0, 0, 0, 0, 7];
        message.extend_from_slice(b"message");
        let trailers = metadata(&[("grpc-status", code)]);
        let data = http_body::Frame::data(Bytes::from(message));
        let frames = [Ok::<_, tonic::Status>(data), Ok(http_body::Frame::trailers(trailers))];
        Ok(response.body(tonic::body::Body::new(StreamBody::new(tokio_stream::iter(frames)))).unwrap())
    }

    async fn serve() -> String {
        serve_by(handle).await
    }

    async fn serve_by<F, Fut>(handler: F) -> String
    where
        F: Fn(Request<hyper::body::Incoming>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<Response<tonic::body::Body>, Infallible>> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let headers = ContextHeaders::new().grpc_timeout(true);
                let service = ServiceBuilder::new()
                    .layer(AcceptContextLayer::default().headers(headers).unwrap())
                    .service(service_fn(handler.clone()));
                let service = hyper_util::service::TowerToHyperService::new(service);
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        format!("http://{address}")
    }

    /// A pushback is waited for, and a wish not to be asked again is heeded, by a tonic client whose messages are kept for that. The
    /// clock is paused: it goes on only while nobody has anything to do, which is during the delay. Retry, scenario 15.
    #[cfg(feature = "retry")]
    #[tokio::test(start_paused = true)]
    async fn a_tonic_call_is_retried_as_the_pushback_says() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

        use mainstay::RetryLayer;
        use mainstay::http::{ReplayBodies, ReplayBody, ReplayLayer};

        for (pushback, attempts, slept) in [("7000", 2, 7), ("-1", 1, 0), ("", 1, 0)] {
            let asked = Arc::new(AtomicU32::new(0));
            let count = asked.clone();
            let handler = move |request: Request<hyper::body::Incoming>| {
                let first = count.fetch_add(1, Relaxed) == 0;
                async move {
                    let mut answer = handle(request).await?;
                    if first {
                        let unavailable = metadata(&[("grpc-status", "14"), ("grpc-retry-pushback-ms", pushback)]);
                        answer = answer.map(|_| tonic::body::Body::empty());
                        answer.headers_mut().extend(unavailable);
                    }
                    Ok::<_, Infallible>(answer)
                }
            };
            let channel = tonic::transport::Endpoint::from_shared(serve_by(handler).await).unwrap();
            let layer = RetryLayer::builder("test").requests(ReplayBodies::new()).classify(GrpcClassifier::new());
            let layer = layer.build().unwrap();
            let service = ServiceBuilder::new()
                .layer(ReplayLayer::new(1_024))
                .layer(layer.clone())
                .map_request(|request: Request<ReplayBody<_>>| request.map(tonic::body::Body::new))
                .map_err(BoxError::from)
                .service(channel.connect().await.unwrap());
            let start = Instant::now();
            let mut client = tonic::client::Grpc::new(service);
            client.ready().await.unwrap();
            let path = http::uri::PathAndQuery::from_static("/test.Test/Call");
            let result = client.unary(tonic::Request::new(Bytes::from("trailers 0")), path, Raw).await;
            assert_eq!(result.is_ok(), attempts == 2, "{pushback:?}");
            assert_eq!((asked.load(Relaxed), layer.handle().statistics().retries), (attempts, u64::from(attempts - 1)));
            assert!(start.elapsed() >= Duration::from_secs(slept), "{:?}", start.elapsed());
        }
    }

    struct Called {
        result: Result<tonic::Response<Bytes>, tonic::Status>,
        statistics: CircuitBreakerStatistics,
    }

    /// One unary call of a tonic client, through a breaker that judges at the end.
    async fn call(asked: &'static str) -> Called {
        let channel = tonic::transport::Endpoint::from_shared(serve().await).unwrap().connect().await.unwrap();
        let breaker = CircuitBreakerHandle::builder("test").build_handle().unwrap();
        let propagate = PropagateLayer::new().headers(ContextHeaders::new().grpc_timeout(true)).unwrap();
        let channel = tower::util::MapErr::new(channel, BoxError::from as fn(_) -> _);
        let service = StreamBreakerLayer::new(breaker.clone(), GrpcClassifier::new()).layer(propagate.layer(channel));
        let mut client = tonic::client::Grpc::new(service);
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/test.Test/Call");
        let result = client.unary(tonic::Request::new(Bytes::from(asked)), path, Raw).await;
        Called { result, statistics: breaker.statistics() }
    }

    fn within_a_minute<F: Future>(call: F) -> impl Future<Output = F::Output> {
        Context::new().with_deadline(Instant::now() + Duration::from_secs(50)).scope(call)
    }

    #[tokio::test]
    async fn a_status_in_the_trailers_is_the_verdict_although_the_head_was_fine() {
        let Called { result, statistics } = call("trailers 14").await;
        assert_eq!(result.unwrap_err().code(), tonic::Code::Unavailable);
        assert_eq!((statistics.failures, statistics.calls()), (1, 1));

        let Called { result, statistics } = call("trailers 0").await;
        assert_eq!(result.unwrap().into_inner(), "message");
        assert_eq!((statistics.successes, statistics.calls()), (1, 1));
    }

    #[tokio::test]
    async fn a_status_in_the_head_is_the_verdict_of_trailers_only() {
        let Called { result, statistics } = call("trailers-only 14").await;
        assert_eq!(result.unwrap_err().code(), tonic::Code::Unavailable);
        assert_eq!((statistics.failures, statistics.calls()), (1, 1));
        let Called { result, statistics } = call("trailers-only 5").await;
        assert_eq!(result.unwrap_err().code(), tonic::Code::NotFound);
        assert_eq!((statistics.refused, statistics.calls()), (1, 1));
    }

    #[tokio::test]
    async fn the_deadline_goes_along_as_grpc_timeout() {
        let Called { result, .. } = within_a_minute(call("trailers 0")).await;
        let left: u64 = result.unwrap().metadata().get("x-left").unwrap().to_str().unwrap().parse().unwrap();
        assert!((1..=50_000).contains(&left), "{left}");
    }
}
