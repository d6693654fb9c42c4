//! [`HttpClassifier`]: what a status means.

use std::error::Error;
use std::sync::Arc;

use ::http::{Response, StatusCode};

use super::error_rules::ErrorRules;
use super::headers::{DEPENDENCY_FAILED, GAVE_UP};
use super::retry_after::retry_after;
use crate::context::deadline_is_spent;
use crate::{Classify, InvalidConfig, Outcome};

/// Turns any `http::Response` into an [`Outcome`] by its status and a few headers; see the [table](crate::http#what-statuses-mean).
///
/// An error (no response at all) is [`Transient`](Outcome::Transient), or what [`on_error`](Self::on_error) says; see also [what errors
/// mean](crate::http#what-errors-mean). A rejection by this crate's own layers never comes this far: it is recognised before any
/// classifier.
///
/// `R` holds the rules for errors: none, or [`ErrorRules`] once [`not_sent_if`](Self::not_sent_if) or [`on_error_if`](Self::on_error_if)
/// was called. With rules the type of error must be `'static`.
///
/// Marks and `Retry-After` are what the callee says of itself, and it can only do itself a favour by them; against a callee that is not
/// trusted that far, override the statuses.
///
/// Cloning is cheap, and free of any shared count without overrides.
///
/// # Examples
///
/// ```
/// use http::{Response, StatusCode};
/// use mainstay::{Classify, HttpClassifier, Outcome};
///
/// // This server answers 404 while it loads, and its 500s are bugs that come back.
/// let classifier = HttpClassifier::new()
///     .on_status(StatusCode::NOT_FOUND, Outcome::Transient)
///     .on_status(StatusCode::INTERNAL_SERVER_ERROR, Outcome::Permanent);
/// let of = |status: u16| {
///     let response = Response::builder().status(status).body(()).unwrap();
///     classifier.classify(Ok::<_, &std::io::Error>(&response))
/// };
/// assert_eq!(of(404), Outcome::Transient);
/// assert_eq!(of(500), Outcome::Permanent);
/// assert_eq!(of(502), Outcome::Transient);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpClassifier<R = ()> {
    /// Sorted by status. `None` when there are none, so that clones share nothing.
    overrides: Option<Arc<[(StatusCode, Outcome)]>>,
    error: Outcome,
    rules: R,
}

// === impl HttpClassifier ===

impl Default for HttpClassifier {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClassifier {
    /// The classifier of the [table](crate::http#what-statuses-mean).
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::HttpClassifier::new(), mainstay::HttpClassifier::default());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { overrides: None, error: Outcome::Transient, rules: () }
    }
}

impl<R> HttpClassifier<R> {
    /// A status means this, whatever the headers say; a [`Throttled`](Outcome::Throttled) without a time takes the one in
    /// `Retry-After`, if there is one. The last setting for a status wins.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::StatusCode;
    /// use mainstay::{HttpClassifier, Outcome};
    ///
    /// let classifier = HttpClassifier::new().on_status(StatusCode::CONFLICT, Outcome::Transient);
    /// # let _ = classifier;
    /// ```
    #[must_use]
    pub fn on_status(mut self, status: StatusCode, outcome: Outcome) -> Self {
        let mut overrides: Vec<_> = self.overrides.as_deref().unwrap_or_default().to_vec();
        match overrides.binary_search_by_key(&status, |entry| entry.0) {
            Ok(index) => overrides[index].1 = outcome,
            Err(index) => overrides.insert(index, (status, outcome)),
        }
        self.overrides = Some(overrides.into());
        self
    }

    /// The same for several statuses by number, as they stand in a configuration file.
    ///
    /// # Errors
    ///
    /// When a number is no status: below 100 or above 999.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{HttpClassifier, Outcome};
    ///
    /// // What proxies of some networks answer for a server that cannot be reached.
    /// let classifier = HttpClassifier::new().on_statuses(520..=524, Outcome::Transient)?;
    /// assert!(classifier.on_statuses([7], Outcome::Transient).is_err());
    /// # Ok::<_, mainstay::InvalidConfig>(())
    /// ```
    pub fn on_statuses(
        mut self,
        statuses: impl IntoIterator<Item = u16>,
        outcome: Outcome,
    ) -> Result<Self, InvalidConfig> {
        for status in statuses {
            let status = StatusCode::from_u16(status)
                .map_err(|_| InvalidConfig::new("status", status, "must be from 100 to 999"))?;
            self = self.on_status(status, outcome);
        }
        Ok(self)
    }

    /// What it means when there is no response; [`Transient`](Outcome::Transient) by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{Classify, HttpClassifier, Outcome};
    ///
    /// let classifier = HttpClassifier::new().on_error(Outcome::Permanent);
    /// assert_eq!(classifier.classify(Err::<&http::Response<()>, _>(&"reset")), Outcome::Permanent);
    /// ```
    #[must_use]
    pub const fn on_error(mut self, outcome: Outcome) -> Self {
        self.error = outcome;
        self
    }

    /// An error that `predicate` holds for proves that nothing was sent: it is [`NotSent`](Outcome::NotSent). It still counts against the
    /// callee, and any request may be repeated after it, whatever its method.
    ///
    /// See [`on_error_if`](Self::on_error_if) for where `E` is searched.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{BoxError, Classify, HttpClassifier, Outcome};
    ///
    /// let classifier = HttpClassifier::new()
    ///     .not_sent_if(|error: &hyper_util::client::legacy::Error| error.is_connect())
    ///     .not_sent_if(|error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    /// let refused: BoxError = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
    /// assert_eq!(classifier.classify(Err::<&http::Response<()>, _>(&refused)), Outcome::NotSent);
    /// ```
    #[must_use]
    pub fn not_sent_if<E>(self, predicate: impl Fn(&E) -> bool + Send + Sync + 'static) -> HttpClassifier<ErrorRules>
    where
        R: Into<ErrorRules>,
        E: Error + 'static,
    {
        self.on_error_if(predicate, Outcome::NotSent)
    }

    /// An error that `predicate` holds for means `outcome`. Of several rules that match, the one added first holds.
    ///
    /// `E` is the error of the service itself, or any link of the chain of [sources](std::error::Error::source) of a
    /// [`BoxError`](crate::BoxError) or of an `E`; [lifted](crate::LiftLayer) errors are looked into.
    ///
    /// # Examples
    ///
    /// A proxy passes on bodies of type `axum::body::Body`: when one fails, its own caller has aborted the upload.
    ///
    /// ```
    /// use mainstay::{HttpClassifier, Outcome};
    ///
    /// let classifier = HttpClassifier::new().on_error_if(|_: &axum::Error| true, Outcome::Ignored);
    /// # let _ = classifier;
    /// ```
    #[must_use]
    pub fn on_error_if<E>(
        self,
        predicate: impl Fn(&E) -> bool + Send + Sync + 'static,
        outcome: Outcome,
    ) -> HttpClassifier<ErrorRules>
    where
        R: Into<ErrorRules>,
        E: Error + 'static,
    {
        let Self { overrides, error, rules } = self;
        HttpClassifier { overrides, error, rules: rules.into().with(predicate, outcome) }
    }

    pub(super) const fn error_outcome(&self) -> Outcome {
        self.error
    }

    fn overridden(&self, status: StatusCode) -> Option<Outcome> {
        let overrides = self.overrides.as_deref()?;
        let index = overrides.binary_search_by_key(&status, |entry| entry.0).ok()?;
        Some(overrides[index].1)
    }
}

impl<B, E> Classify<Response<B>, E> for HttpClassifier {
    fn needs_idempotency(&self) -> bool {
        true
    }

    #[inline]
    fn classify(&self, result: Result<&Response<B>, &E>) -> Outcome {
        match result {
            Ok(response) => self.of_response(response),
            Err(_) => self.error,
        }
    }

    fn depends_on_caller(&self, result: Result<&Response<B>, &E>) -> bool {
        depends_on_caller(result)
    }
}

impl<B, E: 'static> Classify<Response<B>, E> for HttpClassifier<ErrorRules> {
    fn needs_idempotency(&self) -> bool {
        true
    }

    #[inline]
    fn classify(&self, result: Result<&Response<B>, &E>) -> Outcome {
        match result {
            Ok(response) => self.of_response(response),
            Err(error) => self.rules.outcome_of(error).unwrap_or(self.error),
        }
    }

    fn depends_on_caller(&self, result: Result<&Response<B>, &E>) -> bool {
        depends_on_caller(result)
    }
}

impl<R> HttpClassifier<R> {
    #[inline]
    fn of_response<B>(&self, response: &Response<B>) -> Outcome {
        let status = response.status();
        match self.overridden(status) {
            Some(Outcome::Throttled { retry_after: None }) => {
                Outcome::Throttled { retry_after: retry_after(response.headers()) }
            }
            Some(outcome) => outcome,
            None if status.as_u16() < 400 => Outcome::Success,
            None => of_failure(status, response.headers()),
        }
    }
}

/// Every refusal but 404 and 410 may depend on the caller: its credentials, its headers, its body.
fn depends_on_caller<B, E>(result: Result<&Response<B>, &E>) -> bool {
    !matches!(result.map(Response::status), Ok(StatusCode::NOT_FOUND | StatusCode::GONE))
}

#[cold]
fn of_failure(status: StatusCode, headers: &::http::HeaderMap) -> Outcome {
    match status.as_u16() {
        408 | 425 => Outcome::Transient,
        429 => Outcome::Throttled { retry_after: retry_after(headers) },
        ..500 => Outcome::Refused,
        500..600 if headers.contains_key(DEPENDENCY_FAILED) || headers.contains_key(GAVE_UP) => {
            Outcome::DependencyFailed
        }
        503 => match retry_after(headers) {
            None => Outcome::Transient,
            retry_after => Outcome::Throttled { retry_after },
        },
        504 if deadline_is_spent() => Outcome::Ignored,
        500 | 502 | 504 => Outcome::Transient,
        _ => Outcome::Permanent,
    }
}
