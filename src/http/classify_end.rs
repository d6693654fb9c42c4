//! [`ClassifyEnd`]: what the end of a body means.

use ::http::HeaderMap;

use super::HttpClassifier;
use crate::Outcome;

/// Turns the end of a response's body into one [`Outcome`]; what [`Classify`](crate::Classify) does with its head.
///
/// It is asked only where the head was a success: a head that says that the call failed is the verdict.
///
/// # Examples
///
/// ```
/// use http::HeaderMap;
/// use mainstay::Outcome;
/// use mainstay::http::ClassifyEnd;
///
/// /// Ours says in a trailer whether it could read all rows.
/// struct Rows;
///
/// impl<E> ClassifyEnd<E> for Rows {
///     fn classify_end(&self, end: Result<Option<&HeaderMap>, &E>) -> Outcome {
///         match end {
///             Ok(Some(trailers)) if trailers.contains_key("x-incomplete") => Outcome::Transient,
///             Ok(_) => Outcome::Success,
///             Err(_) => Outcome::Transient,
///         }
///     }
/// }
///
/// assert_eq!(Rows.classify_end(Err(&"reset")), Outcome::Transient);
/// ```
pub trait ClassifyEnd<E> {
    /// Whether this head is all that there is to judge, however the body ends. By default none is.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::HeaderMap;
    /// use mainstay::HttpClassifier;
    /// use mainstay::http::ClassifyEnd;
    ///
    /// assert!(!ClassifyEnd::<std::io::Error>::is_final(&HttpClassifier::new(), &HeaderMap::new()));
    /// ```
    fn is_final(&self, head: &HeaderMap) -> bool {
        let _ = head;
        false
    }

    /// Whether a body has ended when all of the data has come that its length announced, so that there are no trailers to wait for.
    /// By default they are waited for.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::HttpClassifier;
    /// use mainstay::http::ClassifyEnd;
    ///
    /// assert!(ClassifyEnd::<std::io::Error>::ends_with_data(&HttpClassifier::new()));
    /// ```
    fn ends_with_data(&self) -> bool {
        false
    }

    /// The outcome of a call whose body has ended: with its trailers, if it had any, or with an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::http::ClassifyEnd;
    /// use mainstay::{HttpClassifier, Outcome};
    ///
    /// let classifier = HttpClassifier::new();
    /// assert_eq!(classifier.classify_end(Ok::<_, &&str>(None)), Outcome::Success);
    /// assert_eq!(classifier.classify_end(Err(&"reset")), Outcome::Transient);
    /// ```
    fn classify_end(&self, end: Result<Option<&HeaderMap>, &E>) -> Outcome;
}

/// A body that breaks off is what [`on_error`](HttpClassifier::on_error) says; any other end is a success. Trailers say nothing.
impl<R, E> ClassifyEnd<E> for HttpClassifier<R> {
    fn ends_with_data(&self) -> bool {
        true
    }

    fn classify_end(&self, end: Result<Option<&HeaderMap>, &E>) -> Outcome {
        if end.is_ok() { Outcome::Success } else { self.error_outcome() }
    }
}
