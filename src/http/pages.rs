//! [`HealthPages`]: a report's answers over HTTP.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use ::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use tower_service::Service;

use crate::health::{HealthReport, Question};

/// Answers `GET` and `HEAD` of `/livez`, `/readyz` and `/startupz` from a [`HealthReport`]: 200 or 503, with the answer as JSON and
/// `Cache-Control: no-store`.
///
/// Another path is a 404, another method a 405. The answer to a `HEAD` is that to the `GET`, of which the server sends the head (hyper
/// does). The request's body is never read, and the answer is bounded: at most 100 parts are listed,
/// each with at most 256 bytes of detail. The pages are always ready and answer at once.
///
/// Put them on a port of their own, or in front of everything that can refuse: a page that waits behind a full queue gets the process
/// killed for being busy. Where strangers can read them, leave [the details](Self::without_details) out.
///
/// # Examples
///
/// ```
/// use http::Request;
/// use mainstay::health::HealthReport;
/// use mainstay::http::HealthPages;
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let report = HealthReport::new("shop");
/// let pages = HealthPages::new(report.clone());
/// // With axum: `Router::new().route_service("/readyz", pages.clone())` ...
///
/// let ask = Request::get("/readyz").body(()).unwrap();
/// assert_eq!(pages.clone().oneshot(ask.clone()).await.unwrap().status(), 503);
/// report.mark_started();
/// assert_eq!(pages.oneshot(ask).await.unwrap().status(), 200);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HealthPages {
    report: HealthReport,
    details: bool,
}

// === impl HealthPages ===

impl HealthPages {
    /// The pages of `report`, with details.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::HealthReport;
    ///
    /// let pages = mainstay::http::HealthPages::new(HealthReport::new("shop"));
    /// # let _ = pages;
    /// ```
    #[must_use]
    pub const fn new(report: HealthReport) -> Self {
        Self { report, details: true }
    }

    /// Answers with the status alone: no names, no parts, no reasons.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::HealthReport;
    ///
    /// let pages = mainstay::http::HealthPages::new(HealthReport::new("shop")).without_details();
    /// let page = pages.answer(&http::Method::GET, "/livez");
    /// assert_eq!(page.status(), 200);
    /// ```
    #[must_use]
    pub fn without_details(mut self) -> Self {
        self.details = false;
        self
    }

    /// The answer itself, for servers that are no `tower` services.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::health::HealthReport;
    ///
    /// let page = mainstay::http::HealthPages::new(HealthReport::new("shop")).answer(&http::Method::GET, "/startupz");
    /// assert_eq!(page.status(), 503);
    /// assert_eq!(page.headers()["cache-control"], "no-store");
    /// ```
    #[must_use]
    pub fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let question = match path {
            "/livez" => Question::Liveness,
            "/readyz" => Question::Readiness,
            "/startupz" => Question::Startup,
            _ => return page(StatusCode::NOT_FOUND, r#"{"status":"not found"}"#.into()),
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut response = page(StatusCode::METHOD_NOT_ALLOWED, r#"{"status":"method not allowed"}"#.into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let answer = self.report.answer(question);
        let status = if answer.passed() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        page(status, if self.details { answer.to_json() } else { answer.to_json_without_details() })
    }
}

impl<B> Service<Request<B>> for HealthPages {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri().path())))
    }
}

fn page(status: StatusCode, json: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
