//! Errors stay flat: a layer of this crate never changes its inner service's error type.
//!
//! What a layer refuses, it refuses with a [`Rejected`]. It asks of the service's error that a `Rejected` can be put in
//! **and seen again**: that is [`Rejectable`]. The two directions matter alike: an outer breaker must not count an inner
//! limiter's refusal as a failure of the callee, and a retry may repeat even a non-idempotent call that was never sent.
//!
//! Three ways to have it:
//!
//! * [`BoxError`], the error of most `tower` stacks, has it: a `Rejected` is found at any depth, see [`Rejected::find_in`].
//! * An application's own enum gets it in one line, with [`rejectable!`](crate::rejectable).
//! * Any other error is lifted once, at the bottom of the stack, by [`LiftLayer`] into [`Error<E>`]; or boxed, with
//!   `tower`'s `map_err(BoxError::from)`.
//!
//! Code that has an error and wants the rejection calls [`as_rejected`](Rejectable::as_rejected) where the type is `Rejectable`,
//! and [`Rejected::find_in`] where it is any other error. Every layer of this crate uses the same search. A `downcast_ref` on the
//! error itself misses a rejection that another error wraps. Code that knows nothing of this crate finds the rejection in the
//! chain of [`source`](std::error::Error::source)s, as it finds any other cause.
//!
//! # Examples
//!
//! ```
//! use mainstay::{Rejectable, Rejected};
//!
//! #[derive(Debug, thiserror::Error)]
//! enum AppError {
//!     #[error("the database answered {0}")]
//!     Database(String),
//!     #[error(transparent)]
//!     Rejected(Rejected),
//! }
//! mainstay::rejectable!(AppError::Rejected);
//!
//! let error = AppError::from_rejected(Rejected::shed());
//! assert!(error.as_rejected().is_some_and(Rejected::is_shed));
//! assert!(AppError::Database("no".into()).as_rejected().is_none());
//! ```

mod identity;
mod invalid_config;
mod lift;
mod rejected;
mod search;

use std::error::Error as StdError;
use std::fmt;

#[doc(hidden)]
pub use identity::Identities;
pub use invalid_config::InvalidConfig;
pub use lift::{Lift, LiftFuture, LiftLayer};
#[cfg(feature = "http")]
pub(crate) use rejected::REQUEST_BODY_FAILED;
pub use rejected::{CircuitOpen, LoadFailed, NoEndpoint, NoEndpointReason, Rejected, RequestBodyFailed};

/// The boxed error of `tower`.
///
/// # Examples
///
/// ```
/// let error: mainstay::BoxError = "no route to host".into();
/// assert_eq!(error.to_string(), "no route to host");
/// ```
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// An error type into which a [`Rejected`] can be put and in which it can be seen again.
///
/// Implemented for [`BoxError`], for [`Error<E>`], for [`Rejected`] itself, and for an application's own type by
/// [`rejectable!`](crate::rejectable). See the [module documentation](crate::error).
///
/// # Examples
///
/// ```
/// use mainstay::{BoxError, Rejectable, Rejected};
///
/// let error = BoxError::from_rejected(Rejected::shed());
/// assert!(error.as_rejected().is_some());
/// ```
#[diagnostic::on_unimplemented(
    message = "the error type `{Self}` cannot carry a refusal of mainstay's layers",
    label = "`{Self}` does not implement `mainstay::Rejectable`",
    note = "put `mainstay::LiftLayer` right around the service whose error this is: it turns `{Self}` into `mainstay::Error<{Self}>`",
    note = "or, for an enum of your own with a variant `Rejected(mainstay::Rejected)`: `mainstay::rejectable!({Self}::Rejected);`"
)]
pub trait Rejectable: Sized {
    /// An error of this type that holds `rejected`.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{BoxError, Rejectable, Rejected};
    ///
    /// let error = BoxError::from_rejected(Rejected::shed());
    /// assert!(error.is::<Rejected>());
    /// ```
    fn from_rejected(rejected: Rejected) -> Self;

    /// The rejection inside, at whatever depth the type allows it to be found.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{BoxError, Rejectable};
    ///
    /// let error: BoxError = "no route to host".into();
    /// assert!(error.as_rejected().is_none());
    /// ```
    fn as_rejected(&self) -> Option<&Rejected>;

    /// What this error is recognized by; `None` if it cannot be told from others.
    #[doc(hidden)]
    fn identity(&self) -> Option<Identities> {
        None
    }

    /// Whether this error, or one of its sources, is in the set; `None` if it cannot be told from others.
    #[doc(hidden)]
    fn is_among(&self, errors: Identities) -> Option<bool> {
        let _ = errors;
        None
    }
}

/// Implements [`Rejectable`] for an error enum with a variant that holds a [`Rejected`].
///
/// # Examples
///
/// ```
/// #[derive(Debug)]
/// enum MyError {
///     Refused(mainstay::Rejected),
///     Other,
/// }
/// mainstay::rejectable!(MyError::Refused);
///
/// use mainstay::Rejectable;
/// assert!(MyError::from_rejected(mainstay::Rejected::shed()).as_rejected().is_some());
/// assert!(MyError::Other.as_rejected().is_none());
/// ```
#[macro_export]
macro_rules! rejectable {
    ($error:ident :: $variant:ident) => {
        impl $crate::Rejectable for $error {
            fn from_rejected(rejected: $crate::Rejected) -> Self {
                Self::$variant(rejected)
            }

            fn as_rejected(&self) -> ::core::option::Option<&$crate::Rejected> {
                match self {
                    Self::$variant(rejected) => ::core::option::Option::Some(rejected),
                    #[allow(unreachable_patterns)]
                    _ => ::core::option::Option::None,
                }
            }
        }
    };
}

/// Either the service's own error or a refusal of ours: what [`LiftLayer`] makes of an error that cannot carry one.
///
/// A rejection may also be inside of the service's own error, for example where a service is lifted whose inner layers reject
/// already. [`as_rejected`](Rejectable::as_rejected) finds it in a boxed error ([`BoxError`] and the same without `Send` or
/// `Sync`), in a [`std::io::Error`], in an `Arc<dyn Error + Send + Sync>`, and in an `Error` of one of these. The type of any other
/// service error hides its sources from generic code; box such an error instead of lifting it if it may wrap a rejection.
///
/// `Error<E>` is a [`std::error::Error`] where `E` is one. A [`BoxError`] is none, and needs no lift; [`into_boxed`](Self::into_boxed)
/// turns an `Error<BoxError>`, like the one that [`retry`](crate::retry::retry) returns, back into a `BoxError`.
///
/// # Examples
///
/// ```
/// use mainstay::{Error, Rejectable, Rejected};
///
/// let own: Error<std::fmt::Error> = Error::Service(std::fmt::Error);
/// assert!(own.as_rejected().is_none());
/// assert!(Error::<std::fmt::Error>::from_rejected(Rejected::shed()).as_rejected().is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The service's own error, untouched.
    Service(E),
    /// A refusal by a layer of this crate.
    Rejected(Rejected),
}

// === impl Error ===

impl<E> Error<E> {
    /// The service's own error, if this is one.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::Error::Service(7).service(), Some(&7));
    /// ```
    pub const fn service(&self) -> Option<&E> {
        match self {
            Self::Service(error) => Some(error),
            Self::Rejected(_) => None,
        }
    }
}

impl<E: Into<BoxError>> Error<E> {
    /// The service's own error, or the rejection, as a boxed error with all of its sources.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::{BoxError, Error, Rejected};
    ///
    /// fn boxed() -> Result<(), BoxError> {
    ///     let answer: Result<(), Error<BoxError>> = Err(Error::Rejected(Rejected::shed()));
    ///     answer.map_err(Error::into_boxed)
    /// }
    /// assert!(boxed().unwrap_err().is::<Rejected>());
    /// ```
    pub fn into_boxed(self) -> BoxError {
        match self {
            Self::Service(error) => error.into(),
            Self::Rejected(rejected) => Box::new(rejected),
        }
    }
}

impl<E: 'static> Rejectable for Error<E> {
    fn from_rejected(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }

    #[inline]
    fn as_rejected(&self) -> Option<&Rejected> {
        match self {
            Self::Service(error) => search::rejected_in(error),
            Self::Rejected(rejected) => Some(rejected),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(error) => error.fmt(f),
            // The refusal itself is the `source`, where a search through the chain finds it; this line only names it.
            Self::Rejected(rejected) => write!(f, "rejected: {}", rejected.kind()),
        }
    }
}

impl<E: StdError + 'static> StdError for Error<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Service(error) => error.source(),
            Self::Rejected(rejected) => Some(rejected),
        }
    }
}

// === impl Rejectable for the types of others ===

impl Rejectable for Rejected {
    fn from_rejected(rejected: Rejected) -> Self {
        rejected
    }

    fn as_rejected(&self) -> Option<&Rejected> {
        Some(self)
    }
}

// For every lifetime, not for `'static` alone: inside of `async` blocks the compiler forgets which lifetime it is
// (rust-lang/rust issue 110338), and a call with a `BoxError` in a spawned task or a handler would not compile.
impl Rejectable for Box<dyn StdError + Send + Sync + '_> {
    fn from_rejected(rejected: Rejected) -> Self {
        Box::new(rejected)
    }

    fn as_rejected(&self) -> Option<&Rejected> {
        Rejected::find_in(&**self)
    }

    fn identity(&self) -> Option<Identities> {
        Some(Identities::of_boxed(&**self))
    }

    fn is_among(&self, errors: Identities) -> Option<bool> {
        Some(errors.hold_boxed(&**self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Error<std::fmt::Error>);

    #[test]
    fn a_boxed_error_shows_a_refusal_at_any_depth() {
        let direct = BoxError::from_rejected(Rejected::shed());
        assert!(direct.as_rejected().unwrap().is_shed());

        let deep: BoxError = Box::new(Outer(Error::Rejected(Rejected::shed())));
        assert!(deep.as_rejected().unwrap().is_shed());

        let own: BoxError = Box::new(Outer(Error::Service(std::fmt::Error)));
        assert!(own.as_rejected().is_none());
    }

    #[test]
    fn a_lifted_error_reaches_the_root_through_its_sources() {
        let error = Error::<std::fmt::Error>::Rejected(Rejected::shed());
        assert_eq!(error.to_string(), "rejected: shed");
        assert!(error.source().unwrap().downcast_ref::<Rejected>().is_some());
    }
}
