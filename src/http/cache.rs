//! [`HttpCaching`]: which answers a shared cache may store, and under which key (RFC 9111, section 3).

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE, SET_COOKIE, VARY,
};
use ::http::uri::Authority;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};

use super::HttpClassifier;
use crate::cache::{CacheBuilder, NoKey};
use crate::outcome::DefaultClassifier;

/// The rules of a shared HTTP cache: what is looked up and stored, and under which key. Set by [`CacheBuilder::http`].
///
/// | request | |
/// |---|---|
/// | `GET`, `HEAD` | cached, apart from each other, by the whole URI and the `Host` |
/// | any other method | bypasses the cache |
/// | with a `Range` or a condition (`If-None-Match`, ..) | bypasses it, since the answer may not be the whole |
/// | with `Cache-Control: no-store` | bypasses it |
///
/// | response | |
/// |---|---|
/// | 200, 203, 204, 300, 301, 308, 404, 410 | may be stored; 206, 304 and all others not |
/// | with `Set-Cookie`, or `Cache-Control: no-store`, `private` or `no-cache` | is not stored |
/// | to a request with `Authorization` or `Cookie` | is stored only with `Cache-Control: public` or `s-maxage` |
/// | with a `Vary` that names a header that is not part of the key, or `*` | is not stored |
/// | with `s-maxage` or `max-age` | is fresh for that long, less its `Age`; else for the cache's own `ttl` |
///
/// This is section 3 of RFC 9111, and stricter about cookies, since many applications forget their `Vary`. Of section 4 only the
/// freshness is implemented: `Expires` and `must-revalidate` are not looked at, so leave `stale_for` unset where stale answers are
/// harmful.
///
/// # Examples
///
/// ```
/// use http::header::ACCEPT_LANGUAGE;
/// use http::{Request, Response};
/// use mainstay::http::HttpCaching;
///
/// let caching = HttpCaching::new().vary([ACCEPT_LANGUAGE]);
/// let key = caching.key(&Request::get("https://example.com/").body(())?).unwrap();
/// assert!(caching.may_store(&key, &Response::builder().header("vary", "accept-language").body(())?));
/// assert!(!caching.may_store(&key, &Response::builder().header("vary", "origin").body(())?));
/// assert!(!caching.may_store(&key, &Response::builder().header("set-cookie", "session=1").body(())?));
/// assert!(caching.key(&Request::post("https://example.com/").body(())?).is_none());
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCaching {
    vary: Arc<[HeaderName]>,
    by_authorization: bool,
}

/// What identifies an answer in an HTTP cache; see [`HttpCaching::key`].
///
/// # Examples
///
/// ```
/// use http::Request;
/// use mainstay::http::HttpCaching;
///
/// let caching = HttpCaching::new();
/// let key = |request: http::request::Builder| caching.key(&request.body(()).unwrap()).unwrap();
/// assert_eq!(key(Request::get("https://example.com/a")), key(Request::get("https://EXAMPLE.com/a")));
/// assert_ne!(key(Request::get("https://example.com/a")), key(Request::head("https://example.com/a")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpKey {
    is_head: bool,
    uri: Uri,
    /// Of a request whose URI is a path.
    host: Option<Authority>,
    /// The values of the headers that the answer may vary by, in their order.
    selected: Option<Arc<[Vec<HeaderValue>]>>,
    /// The request has credentials that are not part of the key: only an answer that says so is for others, too.
    has_credentials: bool,
    authorization: Option<HeaderValue>,
}

/// The directives of `Cache-Control` that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CacheControl {
    no_store: bool,
    /// `private` or `no-cache`, with or without field names.
    restricted: bool,
    public: bool,
    max_age: Option<u64>,
    shared_max_age: Option<u64>,
}

// === impl HttpCaching ===

impl HttpCaching {
    /// The rules of the [table](HttpCaching): answers that vary are not stored, and none is stored per credentials.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes these request headers part of the key, so that answers that vary by them can be stored. Default: none.
    ///
    /// Callers choose the values, and each combination is a separate entry.
    #[must_use]
    pub fn vary(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.vary = names.into_iter().collect();
        self
    }

    /// Whether the value of `Authorization` is part of the key, so that each caller has its own answers, and these can be stored without
    /// `public`. The cache then holds the credentials. Default: `false`.
    #[must_use]
    pub const fn by_authorization(mut self, by_authorization: bool) -> Self {
        self.by_authorization = by_authorization;
        self
    }

    /// The key of the answer to `request`; `None` if the request bypasses the cache.
    pub fn key<B>(&self, request: &Request<B>) -> Option<HttpKey> {
        let headers = request.headers();
        let is_head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return None,
        };
        let conditions = [RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
        if conditions.iter().any(|name| headers.contains_key(name)) || CacheControl::of(headers).no_store {
            return None;
        }
        let uri = request.uri().clone();
        let host = match headers.get(HOST) {
            // Of two, the URI's holds (RFC 9112, section 3.2.2).
            Some(host) if uri.authority().is_none() => Some(Authority::try_from(host.as_bytes()).ok()?),
            _ => None,
        };
        let selected = |name: &HeaderName| headers.get_all(name).iter().cloned().collect();
        let authorization = headers.get(AUTHORIZATION).filter(|_| self.by_authorization).cloned().map(|mut value| {
            // Keeps the credentials out of debug output.
            value.set_sensitive(true);
            value
        });
        Some(HttpKey {
            is_head,
            uri,
            host,
            selected: (!self.vary.is_empty()).then(|| self.vary.iter().map(selected).collect()),
            has_credentials: headers.contains_key(COOKIE)
                || (headers.contains_key(AUTHORIZATION) && authorization.is_none()),
            authorization,
        })
    }

    /// Whether the answer to the request of `key` may be stored, and served to other requests with this key.
    pub fn may_store<B>(&self, key: &HttpKey, response: &Response<B>) -> bool {
        let headers = response.headers();
        let control = CacheControl::of(headers);
        matches!(response.status().as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 410)
            && !control.no_store
            && !control.restricted
            && (!key.has_credentials || control.public || control.shared_max_age.is_some())
            && !headers.contains_key(SET_COOKIE)
            && headers.get_all(VARY).iter().all(|vary| self.is_in_key(vary))
    }

    /// How long `response` says that it is fresh: `s-maxage`, else `max-age`, less its `Age`. `None` if it does not say.
    pub fn fresh_for<B>(&self, response: &Response<B>) -> Option<Duration> {
        let control = CacheControl::of(response.headers());
        let lifetime = control.shared_max_age.or(control.max_age)?;
        let age = response.headers().get(AGE).and_then(|age| seconds(age.as_bytes())).unwrap_or(0);
        Some(Duration::from_secs(lifetime.saturating_sub(age)))
    }

    /// Whether all headers that this value of `Vary` names are part of the key.
    fn is_in_key(&self, vary: &HeaderValue) -> bool {
        vary.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()).all(
            |name| {
                HeaderName::from_bytes(name).is_ok_and(|name| {
                    self.vary.contains(&name) || name == HOST || (name == AUTHORIZATION && self.by_authorization)
                })
            },
        )
    }
}

impl<V, M> CacheBuilder<(), Response<V>, NoKey, DefaultClassifier, M> {
    /// For HTTP: keys, what may be stored and for how long are by the rules of [`HttpCaching`], and results are judged by
    /// [`HttpClassifier`].
    ///
    /// [`cache_if`](Self::cache_if) and [`cache_if_for`](Self::cache_if_for), called after it, only narrow what is stored.
    /// Responses are cloned, so their bodies have to be collected first.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use mainstay::BoxError;
    /// use mainstay::cache::CacheLayer;
    /// use mainstay::http::HttpCaching;
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
    /// let layer = CacheLayer::builder("pages").http::<()>(HttpCaching::new()).build()?;
    /// let pages = layer.layer(service_fn(|_: Request<()>| async {
    ///     Ok::<_, BoxError>(Response::new(Bytes::from("page")))
    /// }));
    /// for _ in 0..2 {
    ///     ServiceExt::oneshot(pages.clone(), Request::get("https://example.com/").body(())?).await?;
    /// }
    /// assert_eq!(layer.handle().statistics().loads, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[allow(clippy::type_complexity, reason = "the key function has no name")]
    pub fn http<B>(
        self,
        caching: HttpCaching,
    ) -> CacheBuilder<HttpKey, Response<V>, impl Fn(&Request<B>) -> Option<HttpKey> + Clone, HttpClassifier, M>
    where
        V: 'static,
    {
        let (keys, fresh) = (caching.clone(), caching.clone());
        self.classify(HttpClassifier::new())
            .key(move |request: &Request<B>| keys.key(request))
            .cache_if_for(move |key, response| caching.may_store(key, response))
            .ttl_of(move |response| fresh.fresh_for(response))
    }
}

// === impl CacheControl ===

impl CacheControl {
    /// Those of all `Cache-Control` headers together. An argument that cannot be read counts as zero seconds.
    fn of(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        for value in headers.get_all(CACHE_CONTROL) {
            for directive in directives(value.as_bytes()) {
                let (name, argument) = match directive.iter().position(|&byte| byte == b'=') {
                    Some(at) => (&directive[..at], Some(&directive[at + 1..])),
                    None => (directive, None),
                };
                let seconds = || argument.and_then(seconds).unwrap_or(0);
                match name.trim_ascii().to_ascii_lowercase().as_slice() {
                    b"no-store" => control.no_store = true,
                    b"private" | b"no-cache" => control.restricted = true,
                    b"public" => control.public = true,
                    b"max-age" => control.max_age = Some(control.max_age.unwrap_or(u64::MAX).min(seconds())),
                    b"s-maxage" => {
                        control.shared_max_age = Some(control.shared_max_age.unwrap_or(u64::MAX).min(seconds()));
                    }
                    _ => {}
                }
            }
        }
        control
    }
}

/// The parts of a header between commas that are not within quotes.
fn directives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    value
        .split(move |&byte| {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_quoted => is_escaped = true,
                b'"' => is_quoted = !is_quoted,
                _ => {}
            }
            byte == b',' && !is_quoted
        })
        .map(<[u8]>::trim_ascii)
}

/// Whole seconds, quoted or not; more than 64 bits are the most there is.
fn seconds(argument: &[u8]) -> Option<u64> {
    let digits = argument.trim_ascii();
    let digits = digits.strip_prefix(b"\"").and_then(|digits| digits.strip_suffix(b"\"")).unwrap_or(digits);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}
