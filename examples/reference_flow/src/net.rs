//! The HTTP client that every part calls others with: a plain `tower::Service` for the layers to wrap.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mainstay::BoxError;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

/// A body that is larger is refused.
pub(crate) const BODY_LIMIT: usize = 256 * 1024;

/// Runs through all parts, and is in every line of their logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which application server answered.
pub(crate) const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// Where the answer came from: `hit`, `miss` or `stale`.
pub(crate) const CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Which of the balancer's attempts got this answer: 1 is the first.
pub(crate) const ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");

/// A server's word that not it has failed, but something behind it.
pub(crate) const DEPENDENCY_FAILED: HeaderName = mainstay::http::DEPENDENCY_FAILED;

/// A write that carries one of these is applied once, however often it is sent.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Bodies are small and buffered, so that a request can be sent again and an answer kept.
pub(crate) type Body = Bytes;

/// What every stack of layers in this example looks like from outside.
pub(crate) type HttpStack = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// Sends requests to one address over pooled connections and buffers the answers.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
    authority: Authority,
}

// === impl HttpClient ===

impl HttpClient {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(10))
            .build(connector);
        let authority = address.to_string().parse().expect("an address is an authority");
        Self { client, authority }
    }

    /// `GET path`, outside of any stack of layers.
    pub(crate) async fn get(&self, path: &str) -> Result<Response<Bytes>, BoxError> {
        self.clone().oneshot(request(Method::GET, path, Bytes::new())).await
    }
}

impl Service<Request<Bytes>> for HttpClient {
    type Response = Response<Bytes>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Bytes>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        head.uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")))
            .build()
            .expect("made of checked pieces");
        // They belong to the connection that the request came in on.
        for name in [header::CONNECTION, header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let answer = self.client.request(Request::from_parts(head, Full::new(body)));
        Box::pin(async move {
            let (mut head, body) = answer.await?.into_parts();
            let body = Limited::new(body, BODY_LIMIT).collect().await?.to_bytes();
            for name in [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::DATE] {
                head.headers.remove(name);
            }
            Ok(Response::from_parts(head, body))
        })
    }
}

/// A request for `path` of whatever part it is sent to.
pub(crate) fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let mut request = Request::new(body.into());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("paths of this example are made of checked pieces");
    request
}

/// The text of a response header, empty where it is missing.
pub(crate) fn header_text<B>(response: &Response<B>, name: HeaderName) -> &str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
