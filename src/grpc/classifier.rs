//! [`GrpcClassifier`]: what a code means.

use std::error::Error;

use ::http::{HeaderMap, Response, StatusCode};

use super::code::Code;
use super::pushback::{Pushback, pushback};
use crate::context::deadline_is_spent;
use crate::http::{ClassifyEnd, DEPENDENCY_FAILED, ErrorRules, GAVE_UP};
use crate::{Classify, Outcome};

/// Turns the response of a gRPC call into an [`Outcome`]; see the [table](crate::grpc#what-codes-mean).
///
/// As a [`Classify`] it judges heads: one without `grpc-status` is a `Success` so far. As a [`ClassifyEnd`] it judges trailers. An
/// error (no response, or a body that broke off) is [`Transient`](Outcome::Transient), or what [`on_error`](Self::on_error) says; a failed
/// body of the request is recognised as it is [for HTTP](crate::http#what-errors-mean).
///
/// `R` holds the rules for errors: none, or [`ErrorRules`] once [`not_sent_if`](Self::not_sent_if) or [`on_error_if`](Self::on_error_if)
/// was called. With rules the type of error must be `'static`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use http::HeaderMap;
/// use mainstay::grpc::GrpcClassifier;
/// use mainstay::http::ClassifyEnd;
/// use mainstay::Outcome;
///
/// let mut trailers = HeaderMap::new();
/// trailers.insert("grpc-status", "8".parse()?);
/// trailers.insert("grpc-retry-pushback-ms", "250".parse()?);
/// let outcome = GrpcClassifier::new().classify_end(Ok::<_, &std::io::Error>(Some(&trailers)));
/// assert_eq!(outcome, Outcome::throttled(Duration::from_millis(250)));
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcClassifier<R = ()> {
    codes: [Outcome; Code::ALL.len()],
    error: Outcome,
    rules: R,
}

// === impl GrpcClassifier ===

impl Default for GrpcClassifier {
    fn default() -> Self {
        Self::new()
    }
}

impl GrpcClassifier {
    /// The classifier of the [table](crate::grpc#what-codes-mean).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::grpc::GrpcClassifier;
    ///
    /// assert_eq!(GrpcClassifier::new(), GrpcClassifier::default());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { codes: Code::ALL.map(of_code), error: Outcome::Transient, rules: () }
    }
}

impl<R> GrpcClassifier<R> {
    /// A code means this; pushback and marks are still heeded where it is a failure. The last setting for a code wins.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Outcome;
    /// use mainstay::grpc::{Code, GrpcClassifier};
    ///
    /// // These servers say UNKNOWN when their own connections break.
    /// let classifier = GrpcClassifier::new().on_code(Code::Unknown, Outcome::Transient);
    /// # let _ = classifier;
    /// ```
    #[must_use]
    pub const fn on_code(mut self, code: Code, outcome: Outcome) -> Self {
        self.codes[code as usize] = outcome;
        self
    }

    /// What it means when there is no response, or no end of it; [`Transient`](Outcome::Transient) by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::grpc::GrpcClassifier;
    /// use mainstay::{Classify, Outcome};
    ///
    /// let classifier = GrpcClassifier::new().on_error(Outcome::Permanent);
    /// assert_eq!(classifier.classify(Err::<&http::Response<()>, _>(&"reset")), Outcome::Permanent);
    /// ```
    #[must_use]
    pub const fn on_error(mut self, outcome: Outcome) -> Self {
        self.error = outcome;
        self
    }

    /// An error that `predicate` holds for proves that nothing was sent: it is [`NotSent`](Outcome::NotSent), and any call may be repeated
    /// after it. See [`HttpClassifier::not_sent_if`](crate::HttpClassifier::not_sent_if).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::grpc::GrpcClassifier;
    ///
    /// // tonic reports a failed connection as the source of its own error.
    /// let classifier = GrpcClassifier::new()
    ///     .not_sent_if(|error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    /// # let _ = classifier;
    /// ```
    #[must_use]
    pub fn not_sent_if<E>(self, predicate: impl Fn(&E) -> bool + Send + Sync + 'static) -> GrpcClassifier<ErrorRules>
    where
        R: Into<ErrorRules>,
        E: Error + 'static,
    {
        self.on_error_if(predicate, Outcome::NotSent)
    }

    /// An error that `predicate` holds for means `outcome`. See [`HttpClassifier::on_error_if`](crate::HttpClassifier::on_error_if).
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::Outcome;
    /// use mainstay::grpc::GrpcClassifier;
    ///
    /// let classifier = GrpcClassifier::new().on_error_if(|_: &axum::Error| true, Outcome::Ignored);
    /// # let _ = classifier;
    /// ```
    #[must_use]
    pub fn on_error_if<E>(
        self,
        predicate: impl Fn(&E) -> bool + Send + Sync + 'static,
        outcome: Outcome,
    ) -> GrpcClassifier<ErrorRules>
    where
        R: Into<ErrorRules>,
        E: Error + 'static,
    {
        let Self { codes, error, rules } = self;
        GrpcClassifier { codes, error, rules: rules.into().with(predicate, outcome) }
    }

    fn of(&self, code: Code, metadata: Option<&HeaderMap>) -> Outcome {
        let outcome = self.codes[code as usize];
        if code == Code::DeadlineExceeded && outcome.is_failure() && deadline_is_spent() {
            return Outcome::Ignored;
        }
        match (outcome, metadata) {
            (Outcome::Transient | Outcome::Permanent | Outcome::Throttled { .. }, Some(metadata)) => {
                of_failure(outcome, metadata)
            }
            _ => outcome,
        }
    }
}

const fn of_code(code: Code) -> Outcome {
    match code {
        Code::Ok => Outcome::Success,
        Code::Cancelled => Outcome::Ignored,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => Outcome::Refused,
        Code::ResourceExhausted => Outcome::Throttled { retry_after: None },
        Code::DeadlineExceeded | Code::Unavailable => Outcome::Transient,
        Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => Outcome::Permanent,
    }
}

/// Every refusal but `NOT_FOUND` may depend on the caller: its credentials, its metadata, its message.
fn depends_on_caller<B, E>(result: Result<&Response<B>, &E>) -> bool {
    result.map_or(true, |response| Code::from_headers(response.headers()) != Some(Code::NotFound))
}

#[cold]
fn of_failure(outcome: Outcome, metadata: &HeaderMap) -> Outcome {
    if metadata.contains_key(DEPENDENCY_FAILED) || metadata.contains_key(GAVE_UP) {
        return Outcome::DependencyFailed;
    }
    match (outcome, pushback(metadata)) {
        (Outcome::Transient | Outcome::Throttled { .. }, Some(Pushback::After(time))) => Outcome::throttled(time),
        (Outcome::Transient, Some(Pushback::Never)) => Outcome::Permanent,
        (Outcome::Throttled { .. }, Some(Pushback::Never)) => Outcome::Ignored,
        _ => outcome,
    }
}

impl<B, E> Classify<Response<B>, E> for GrpcClassifier {
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

impl<B, E: 'static> Classify<Response<B>, E> for GrpcClassifier<ErrorRules> {
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

impl<R> GrpcClassifier<R> {
    fn of_response<B>(&self, response: &Response<B>) -> Outcome {
        let headers = response.headers();
        match Code::from_headers(headers) {
            Some(code) => self.of(code, Some(headers)),
            None if response.status() == StatusCode::OK => Outcome::Success,
            // A proxy's own "out of time".
            None if response.status() == StatusCode::GATEWAY_TIMEOUT && deadline_is_spent() => Outcome::Ignored,
            None => self.of(Code::from_http_status(response.status()), Some(headers)),
        }
    }
}

impl<R, E> ClassifyEnd<E> for GrpcClassifier<R> {
    fn is_final(&self, head: &HeaderMap) -> bool {
        Code::from_headers(head).is_some()
    }

    fn classify_end(&self, end: Result<Option<&HeaderMap>, &E>) -> Outcome {
        let Ok(trailers) = end else { return self.error };
        self.of(trailers.and_then(Code::from_headers).unwrap_or(Code::Unknown), trailers)
    }
}
