//! A `hyper-util` client: a body that stands still is given up, and the circuit breaker hears of it.
//!
//! `cargo run --example http_hyper_util --features http`

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mainstay::http::{IdleTimeout, StreamBreakerLayer};
use mainstay::{BoxError, CircuitBreakerHandle, HttpClassifier};
use tokio_stream::StreamExt;
use tower::{ServiceBuilder, ServiceExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // `/whole` answers; `/stuck` begins to, and stands still.
    let stuck = || async {
        let first = tokio_stream::once(Ok::<_, std::io::Error>(Bytes::from("the beg")));
        Body::from_stream(first.chain(tokio_stream::pending()))
    };
    let router = axum::Router::new()
        .route("/whole", axum::routing::get(|| async { "the whole answer" }))
        .route("/stuck", axum::routing::get(stuck));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });

    // The idle timeout is within the breaker's layer, which so sees its error as the end of the body.
    let breaker = CircuitBreakerHandle::builder("files").build_handle()?;
    let idle = IdleTimeout::new(Duration::from_millis(200))?;
    let client = ServiceBuilder::new()
        .layer(StreamBreakerLayer::new(breaker.clone(), HttpClassifier::new()))
        .map_response(move |response: http::Response<hyper::body::Incoming>| response.map(|body| idle.limit(body)))
        .map_err(BoxError::from)
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());

    for path in ["/whole", "/stuck"] {
        let request = http::Request::get(format!("{url}{path}")).body(Empty::new())?;
        let response = client.clone().oneshot(request).await?;
        println!("{path}: {}", response.status());
        match response.into_body().collect().await {
            Ok(body) => println!("  {:?}", body.to_bytes()),
            Err(error) => println!("  error: {error}"),
        }
    }
    let statistics = breaker.statistics();
    println!("breaker: {} well, {} failed", statistics.successes, statistics.failures);
    Ok(())
}
