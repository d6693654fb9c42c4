//! A `reqwest` client behind the layers: retried within a total timeout, and the callee told how long it has.
//!
//! `cargo run --example http_reqwest --features http`

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use mainstay::http::{DEADLINE_MS, PropagateLayer};
use mainstay::{BoxError, RetryLayer, TimeoutLayer};
use reqwest::Body;
use tower::{ServiceBuilder, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // A server whose first answer is a 503.
    let asked = Arc::new(AtomicU32::new(0));
    let handler = move |headers: HeaderMap| {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let left = headers.get(DEADLINE_MS).and_then(|value| value.to_str().ok()).unwrap_or("?").to_owned();
            println!("  server: asked, with {left} ms left; {}", if first { "unwell" } else { "well" });
            if first { (StatusCode::SERVICE_UNAVAILABLE, "no") } else { (StatusCode::OK, "hello") }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/", get(handler))).await });

    // reqwest takes its own request and answers with its own response; both have an `http` counterpart.
    let reqwest = reqwest::Client::builder().no_proxy().build()?;
    let client = service_fn(move |request: http::Request<&'static str>| {
        let reqwest = reqwest.clone();
        async move {
            let response = reqwest.execute(request.map(Body::from).try_into()?).await?;
            Ok::<http::Response<Body>, BoxError>(response.into())
        }
    });
    let client = ServiceBuilder::new()
        .layer(TimeoutLayer::total("hello", Duration::from_secs(5))?)
        .layer(RetryLayer::builder("hello").http().build()?)
        .layer(TimeoutLayer::attempt("hello", Duration::from_secs(1))?)
        .layer(PropagateLayer::new())
        .service(client);

    let response = client.oneshot(http::Request::get(url).body("")?).await?;
    let status = response.status();
    let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
    println!("client: {status}, {body:?}");
    Ok(())
}
