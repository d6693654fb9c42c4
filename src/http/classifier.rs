//! [`HttpClassifier`]: what a status means.

use std::sync::Arc;

use ::http::{Response, StatusCode};

use super::headers::{DEPENDENCY_FAILED, GAVE_UP};
use super::retry_after::retry_after;
use crate::{Classify, InvalidConfig, Outcome};

/// Turns any `http::Response` into an [`Outcome`] by its status and a few headers; see the [table](crate::http#what-statuses-mean).
///
/// An error (no response at all) is [`Transient`](Outcome::Transient), or what [`on_error`](Self::on_error) says. A refusal of this
/// crate's own layers never comes this far: it is recognised before any classifier.
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
pub struct HttpClassifier {
    /// Sorted by status. `None` when there are none, so that clones share nothing.
    overrides: Option<Arc<[(StatusCode, Outcome)]>>,
    error: Outcome,
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
        Self { overrides: None, error: Outcome::Transient }
    }

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
    #[inline]
    fn classify(&self, result: Result<&Response<B>, &E>) -> Outcome {
        let Ok(response) = result else { return self.error };
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

    /// Every refusal but 404 and 410 may depend on the caller: its credentials, its headers, its body.
    fn depends_on_caller(&self, result: Result<&Response<B>, &E>) -> bool {
        !matches!(result.map(Response::status), Ok(StatusCode::NOT_FOUND | StatusCode::GONE))
    }
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
        500 | 502 | 504 => Outcome::Transient,
        _ => Outcome::Permanent,
    }
}
