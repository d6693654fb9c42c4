//! Entry 20: what a rejection is to gRPC.
#![cfg(all(feature = "grpc", feature = "balance", feature = "timeout"))]

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::grpc::{Code, GRPC_MESSAGE, GRPC_RETRY_PUSHBACK_MS, answer, code_of};
use mainstay::{
    BoxError, CircuitBreakerLayer, CircuitOpen, CircuitState, LoadFailed, NoEndpoint, NoEndpointReason, Outcome, Pool,
    Rejectable, Rejected, TimeoutLayer,
};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

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
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

/// What a client that `tonic` generates sees of a call.
async fn call(channel: Channel) -> tonic::Status {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/test.Test/Call");
    client.unary(tonic::Request::new(Bytes::from("question")), path, Raw).await.unwrap_err()
}

/// Turns rejections into answers.
fn answered(channel: Channel) -> Channel {
    BoxCloneSyncService::new(channel.map_result(|result: Result<Response<Body>, BoxError>| match result {
        Err(error) => error.as_rejected().map(answer).ok_or(error),
        response => response,
    }))
}

/// A server over loopback whose every call ends as `rejected` does, or never.
async fn connect(rejected: Option<Rejected>) -> Channel {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let rejected = rejected.clone();
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                let rejected = rejected.clone();
                async move {
                    match &rejected {
                        Some(rejected) => Ok::<Response<Body>, Infallible>(answer(rejected)),
                        None => pending().await,
                    }
                }
            });
            let service = hyper_util::service::TowerToHyperService::new(service);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    BoxCloneSyncService::new(channel.connect().await.unwrap().map_err(BoxError::from))
}

#[tokio::test(start_paused = true)]
async fn entry_20_a_tonic_client_sees_a_deadline_and_a_rejection_by_their_codes() {
    let silent = connect(None).await;
    let timeout = TimeoutLayer::total("greeter", Duration::from_secs(2)).unwrap();
    let timed = || BoxCloneSyncService::new(timeout.layer(silent.clone()));
    let status = call(answered(timed())).await;
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::DeadlineExceeded, "no answer within the timeout of 2s")
    );
    assert_eq!(call(timed()).await.code(), tonic::Code::Unknown, "what tonic makes of an error that it does not know");

    let breaker = CircuitBreakerLayer::builder("greeter").build().unwrap();
    breaker.handle().force_open();
    let status = call(answered(BoxCloneSyncService::new(breaker.layer(silent.clone())))).await;
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().starts_with("circuit `greeter` is forced open"), "{}", status.message());

    let empty: Pool<u16, Channel> = Pool::builder("greeter").build().unwrap();
    assert_eq!(call(answered(BoxCloneSyncService::new(empty))).await.code(), tonic::Code::Unavailable);

    let shedding =
        service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(BoxError::from_rejected(Rejected::Shed)) });
    let status = call(answered(BoxCloneSyncService::new(shedding))).await;
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);

    let failing = service_fn(|_: Request<Body>| async { Err::<Response<Body>, BoxError>("reset".into()) });
    assert_eq!(call(answered(BoxCloneSyncService::new(failing))).await.message(), "reset", "not ours: left alone");
}

#[tokio::test(start_paused = true)]
async fn entry_20_a_server_answers_with_the_code_and_says_when_to_come_back() {
    let limited = Rejected::Limited { retry_after: Some(Duration::from_micros(1_500_001)) };
    let status = call(connect(Some(limited)).await).await;
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1501");
    let open = CircuitOpen::new("größe 100%", CircuitState::ForcedOpen);
    let status = call(connect(Some(open.into())).await).await;
    assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, "circuit `größe 100%` is forced open"));
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_none());
}

#[test]
fn entry_20_every_rejection_has_a_code() {
    let failed = |outcome| Rejected::from(LoadFailed::new(outcome, Arc::new(std::fmt::Error)));
    let timeout = Duration::from_secs(1);
    for (rejected, code) in [
        (Rejected::Timeout { timeout, sent: true }, Code::DeadlineExceeded),
        (Rejected::Timeout { timeout, sent: false }, Code::DeadlineExceeded),
        (Rejected::DeadlineExceeded { sent: true }, Code::DeadlineExceeded),
        (CircuitOpen::new("db", CircuitState::HalfOpen).into(), Code::Unavailable),
        (NoEndpoint::new("app", NoEndpointReason::NotReady).into(), Code::Unavailable),
        (Rejected::Limited { retry_after: None }, Code::ResourceExhausted),
        (Rejected::Shed, Code::ResourceExhausted),
        (Rejected::request_body_failed("the disk"), Code::Cancelled),
        (failed(Outcome::throttled(timeout)), Code::ResourceExhausted),
        (failed(Outcome::Permanent), Code::Internal),
        (failed(Outcome::Refused), Code::Unknown),
        (failed(Outcome::Transient), Code::Unavailable),
        (failed(Outcome::NotSent), Code::Unavailable),
        (failed(Outcome::DependencyFailed), Code::Unavailable),
    ] {
        assert_eq!(code_of(&rejected), code, "{rejected}");
        assert_eq!(tonic::Code::from_i32(code.number()) as i32, code as i32);
        let response: Response<()> = answer(&rejected);
        assert_eq!(Code::from_headers(response.headers()), Some(code));
        assert_eq!(response.headers()["content-type"], "application/grpc");
    }
    let open = CircuitOpen::new("a\n%", CircuitState::Open).with_retry_after(Duration::MAX);
    let response: Response<()> = answer(&open.into());
    assert!(response.headers()[GRPC_MESSAGE].to_str().unwrap().starts_with("circuit `a%0A%25` is open"));
    assert!(response.headers()[GRPC_RETRY_PUSHBACK_MS].to_str().unwrap().parse::<u64>().unwrap() > 1_000_000_000_000);
}
