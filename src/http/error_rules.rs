//! [`ErrorRules`]: what the errors of a client mean.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::error::{BoxError, Error, Rejected};
use crate::outcome::Outcome;

/// The rules of a classifier for the errors of its client; see [`HttpClassifier::on_error_if`](super::HttpClassifier::on_error_if).
///
/// # Examples
///
/// ```
/// use mainstay::HttpClassifier;
/// use mainstay::http::ErrorRules;
///
/// /// The classifier of this application, as it stands in a field or a signature.
/// type Classifier = HttpClassifier<ErrorRules>;
///
/// let classifier: Classifier = HttpClassifier::new().not_sent_if(|error: &std::io::Error| {
///     error.kind() == std::io::ErrorKind::ConnectionRefused
/// });
/// # let _ = classifier;
/// ```
#[derive(Clone, Default)]
pub struct ErrorRules {
    /// In the order in which they were added.
    rules: Arc<[Rule]>,
}

type Rule = Arc<dyn Fn(&dyn Any) -> Option<Outcome> + Send + Sync>;

// === impl ErrorRules ===

impl ErrorRules {
    /// Adds a rule: an error with a `T` among it and its sources that `predicate` holds for means `outcome`.
    pub(crate) fn with<T>(self, predicate: impl Fn(&T) -> bool + Send + Sync + 'static, outcome: Outcome) -> Self
    where
        T: StdError + 'static,
    {
        let rule = move |error: &dyn Any| {
            let mut link = Some(chain_of::<T>(error)?);
            while let Some(error) = link {
                if error.downcast_ref().is_some_and(&predicate) {
                    return Some(outcome);
                }
                // Layers cannot look into an error of this type, so a rejection below it is recognized here.
                if let Some(rejected) = error.downcast_ref::<Rejected>() {
                    return Some(rejected.outcome());
                }
                link = error.source();
            }
            None
        };
        Self { rules: self.rules.iter().cloned().chain([Arc::new(rule) as Rule]).collect() }
    }

    /// What the first rule says that matches.
    #[cold]
    pub(crate) fn outcome_of<E: 'static>(&self, error: &E) -> Option<Outcome> {
        self.rules.iter().find_map(|rule| rule(error))
    }
}

/// The start of a chain of errors, where this is a `T`, a boxed error, or either of them lifted.
fn chain_of<T: StdError + 'static>(error: &dyn Any) -> Option<&(dyn StdError + 'static)> {
    if let Some(boxed) = error.downcast_ref::<BoxError>() {
        return Some(&**boxed);
    }
    if let Some(Error::Service(boxed)) = error.downcast_ref::<Error<BoxError>>() {
        return Some(&**boxed);
    }
    if let Some(Error::Service(own)) = error.downcast_ref::<Error<T>>() {
        return Some(own);
    }
    error.downcast_ref::<T>().map(|own| own as _)
}

/// No rules.
impl From<()> for ErrorRules {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl fmt::Debug for ErrorRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorRules").field("rules", &self.rules.len()).finish()
    }
}
