//! Errors stay flat: a layer of this crate never changes its inner service's error type.
//!
//! What a layer refuses, it refuses with a [`Rejected`]. It asks of the service's error that a `Rejected` can be put in
//! **and seen again**: that is [`Rejectable`]. The two directions matter alike: an outer breaker must not count an inner
//! limiter's refusal as a failure of the callee, and a retry may repeat even a non-idempotent call that was never sent.
//!
//! Three ways to have it:
//!
//! * [`BoxError`], the error of most `tower` stacks, has it: a `Rejected` is found by downcast, then
//!   through the [`source`](std::error::Error::source) chain.
//! * An application's own enum gets it in one line, with [`rejectable!`](crate::rejectable).
//! * Any other error is lifted once, at the bottom of the stack, by [`LiftLayer`] into [`Error<E>`].
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

//! # Spawning a call whose error is boxed
//!
//! The compiler forgets lifetimes inside of `async` blocks (rust-lang/rust issue 110338), and with them that the `dyn Error` in a
//! `BoxError` is `'static`. So `tokio::spawn(async move { service.oneshot(request).await })` may be refused with
//! "implementation of `Rejectable` is not general enough", as it is with `tower`'s own layers ("`From` is not general enough").
//! Hand over the future itself, or use an error that has a name (an enum of your own, or [`Error<E>`]):
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use mainstay::BoxError;
//! use mainstay::telemetry::TelemetryLayer;
//! use tower::{Layer, service_fn};
//!
//! let service = TelemetryLayer::new("jobs").layer(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
//! let answer = tokio::spawn(service.oneshot(1)).await.unwrap();
//! assert_eq!(answer.unwrap(), 2);
//! # }
//! ```

mod identity;
mod invalid_config;
mod lift;
mod rejected;

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

    /// The refusal inside, if this is one.
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

impl<E> Rejectable for Error<E> {
    fn from_rejected(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }

    #[inline]
    fn as_rejected(&self) -> Option<&Rejected> {
        match self {
            Self::Service(_) => None,
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

impl Rejectable for BoxError {
    fn from_rejected(rejected: Rejected) -> Self {
        Box::new(rejected)
    }

    // The error itself in line, since most have no sources; its sources out of line.
    #[inline(always)]
    fn as_rejected(&self) -> Option<&Rejected> {
        let error: &(dyn StdError + 'static) = self.as_ref();
        match error.downcast_ref::<Rejected>() {
            Some(rejected) => Some(rejected),
            None => rejected_in(error.source()?),
        }
    }

    fn identity(&self) -> Option<Identities> {
        Some(Identities::of_boxed(&**self))
    }

    fn is_among(&self, errors: Identities) -> Option<bool> {
        Some(errors.hold_boxed(&**self))
    }
}

/// The refusal among an error and its sources.
#[inline(never)]
fn rejected_in<'a>(mut error: &'a (dyn StdError + 'static)) -> Option<&'a Rejected> {
    loop {
        if let Some(rejected) = error.downcast_ref::<Rejected>() {
            return Some(rejected);
        }
        // A load that failed is ours; what made it fail is not looked into (see `LoadFailed`).
        error = error.source()?;
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
