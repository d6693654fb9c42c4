//! The one search for a rejection in an error, whatever wraps it.
//!
//! `source()` is all that can be asked of a `dyn Error` that is not `'static`, and it skips errors: one that shows itself as its
//! cause (`#[error(transparent)]`, `io::Error`, `Arc`, `Box`) forwards `source()` to the error that it holds. So during a search,
//! and only then, a [`Rejected`] is its own source; whatever forwards to it passes it on.

use std::any::Any;
use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::sync::Arc;
use std::{fmt, io};

use super::{BoxError, Error, Rejectable, Rejected};

thread_local! {
    /// Set while a search calls `source()`. The first rejection that is asked takes it, so that the chain has an end.
    static SEARCHING: Cell<bool> = const { Cell::new(false) };
}

/// Restores the state of an outer search, also when a foreign `source()` panics.
struct Step(bool);

impl Drop for Step {
    fn drop(&mut self) {
        SEARCHING.set(self.0);
    }
}

/// Whether `source()` was called by a search that has found nothing yet.
pub(super) fn is_asked() -> bool {
    SEARCHING.take()
}

/// Calls `source()` so that a rejection inside shows itself.
fn source<'a>(error: &'a (dyn StdError + 'a)) -> Option<&'a (dyn StdError + 'static)> {
    let _step = Step(SEARCHING.replace(true));
    error.source()
}

/// The rejection in `error` or its sources; the outermost one.
pub(super) fn find_in<'a>(error: &'a (dyn StdError + 'a)) -> Option<&'a Rejected> {
    let mut next = source(error);
    while let Some(error) = next {
        if let Some(rejected) = error.downcast_ref() {
            return Some(rejected);
        }
        next = source(error);
    }
    None
}

/// The rejection in an error of which nothing is known but that it has this type.
///
/// Generic code cannot ask whether a type is an `Error` where it may also be something else; so the types that can hold any other
/// error are listed.
// Each comparison is of two constants: for a type that is not listed nothing is left of it in the code.
#[inline]
pub(super) fn rejected_in<E: 'static>(error: &E) -> Option<&Rejected> {
    let error: &dyn Any = error;
    macro_rules! look {
        ($($ty:ty => |$found:ident| $look:expr;)*) => {
            $(if let Some($found) = error.downcast_ref::<$ty>() {
                return $look;
            })*
        };
    }
    look! {
        BoxError => |found| find_in(&**found);
        Box<dyn StdError + Send> => |found| find_in(&**found);
        Box<dyn StdError> => |found| find_in(&**found);
        Arc<dyn StdError + Send + Sync> => |found| find_in(found);
        io::Error => |found| find_in(found);
        Rejected => |found| Some(found);
        Error<BoxError> => |found| found.as_rejected();
        Error<Box<dyn StdError + Send>> => |found| found.as_rejected();
        Error<Box<dyn StdError>> => |found| found.as_rejected();
        Error<Arc<dyn StdError + Send + Sync>> => |found| found.as_rejected();
        Error<io::Error> => |found| found.as_rejected();
        Error<Error<BoxError>> => |found| found.as_rejected();
        Error<Error<io::Error>> => |found| found.as_rejected();
        Error<Infallible> => |found| found.as_rejected();
        Error<fmt::Error> => |found| found.as_rejected();
        Error<&'static str> => |found| found.as_rejected();
        Error<String> => |found| found.as_rejected();
        Error<()> => |found| found.as_rejected();
    }
    None
}
