//! A `tonic` channel behind the layers: the server hears of the deadline, and its status, which comes last, is the verdict.
//!
//! `cargo run --example grpc_tonic --features grpc`

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mainstay::grpc::GrpcClassifier;
use mainstay::http::{ContextHeaders, GRPC_TIMEOUT, PropagateLayer, StreamBreakerLayer};
use mainstay::{BoxError, CircuitBreakerHandle, TimeoutLayer};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tower::{ServiceBuilder, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(serve(listener));

    let breaker = CircuitBreakerHandle::builder("greeter").build_handle()?;
    let channel = tonic::transport::Endpoint::from_shared(url)?.connect().await?;
    let channel = ServiceBuilder::new()
        .layer(TimeoutLayer::total("greeter", Duration::from_secs(2))?)
        .layer(StreamBreakerLayer::new(breaker.clone(), GrpcClassifier::new()))
        .layer(PropagateLayer::new().headers(ContextHeaders::new().grpc_timeout(true))?)
        .map_err(BoxError::from)
        .service(channel);

    // A generated client takes the channel just so: `GreeterClient::new(channel)`.
    let mut client = tonic::client::Grpc::new(channel);
    for path in ["/greeter.Greeter/Greet", "/greeter.Greeter/Fail"] {
        client.ready().await?;
        let path = http::uri::PathAndQuery::from_static(path);
        match client.unary(tonic::Request::new(Bytes::from("alice")), path, Raw).await {
            Ok(answer) => println!("client: {:?}", answer.into_inner()),
            Err(status) => println!("client: {:?}, {:?}", status.code(), status.message()),
        }
    }
    let statistics = breaker.statistics();
    println!("breaker: {} well, {} failed", statistics.successes, statistics.failures);
    Ok(())
}

/// Greets, or fails with a status.
async fn serve(listener: tokio::net::TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
            println!("  server: {:?}", request.headers().get(GRPC_TIMEOUT));
            let fails = request.uri().path().ends_with("Fail");
            let greet = tower::service_fn(move |request: tonic::Request<Bytes>| async move {
                if fails {
                    return Err(Status::new(Code::Unavailable, "not today"));
                }
                Ok(tonic::Response::new([b"hello ", &request.into_inner()[..]].concat().into()))
            });
            Ok::<_, Infallible>(tonic::server::Grpc::new(Raw).unary(greet, request).await)
        });
        let service = hyper_util::service::TowerToHyperService::new(service);
        tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// Messages as they are, so that no code has to be generated here.
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
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
