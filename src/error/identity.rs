//! What an error is recognized by when it comes back through code that this crate does not see.
//!
//! A retry that gave up leaves a mark for the retries further out. The mark belongs to the result that it gave up with: an error
//! that replaced this result, or came from a call beside it, must not be taken for it. A boxed error is recognized by its
//! address and text (of an address alone, a later error may make use again), and a rejection by its text; any other
//! error cannot be told from others.

use std::error::Error as StdError;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};

use super::{Rejectable, Rejected};

/// A set of errors, which holds an error that was not put in once in many thousands: each sets six bits of the word.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identities(u64);

/// Feeds a text to a hasher as it is written, without a buffer.
struct Hashed(DefaultHasher);

// === impl Identities ===

#[allow(dead_code, reason = "used by the families, each behind its feature")]
impl Identities {
    pub(crate) const NONE: Self = Self(0);

    /// Identifies `error`, if it can be told from others.
    pub(crate) fn of<E: Rejectable>(error: &E) -> Option<Self> {
        match error.as_rejected() {
            Some(rejected) => Some(Self::of_rejected(rejected)),
            None => error.identity(),
        }
    }

    /// Whether `error`, or one of its sources, is in this set; `None` if it cannot be told from others.
    pub(crate) fn hold<E: Rejectable>(self, error: &E) -> Option<bool> {
        match error.as_rejected() {
            Some(rejected) => Some(self.contains(Self::of_rejected(rejected))),
            None => error.is_among(self),
        }
    }

    /// Identifies a boxed error by its address and its text.
    pub(crate) fn of_boxed(error: &(dyn StdError + '_)) -> Self {
        let address: *const (dyn StdError + '_) = error;
        Self::hashed(address.cast::<()>().addr(), error)
    }

    /// Whether `error` or one of its sources is in this set.
    pub(crate) fn hold_boxed(self, error: &(dyn StdError + '_)) -> bool {
        let mut source = error.source();
        let mut found = self.contains(Self::of_boxed(error));
        while let (false, Some(error)) = (found, source) {
            found = self.contains(Self::of_boxed(error));
            source = error.source();
        }
        found
    }

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn of_rejected(rejected: &Rejected) -> Self {
        Self::hashed(0, rejected)
    }

    const fn contains(self, Self(one): Self) -> bool {
        self.0 & one == one
    }

    fn hashed(address: usize, text: impl fmt::Display) -> Self {
        let mut hashed = Hashed(DefaultHasher::new());
        hashed.0.write_usize(address);
        // An error whose text fails is identified by what it has written so far.
        let _ = write!(hashed, "{text}");
        let hash = hashed.0.finish();
        Self((0..6).fold(0, |bits, nth| bits | 1 << (hash >> (6 * nth) & 63)))
    }
}

impl fmt::Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BoxError;

    #[derive(Debug, thiserror::Error)]
    #[error("{1}")]
    struct Wrapped(#[source] BoxError, &'static str);

    #[test]
    fn a_boxed_error_is_recognized_where_it_was_moved_and_inside_of_another() {
        let error = BoxError::from("reset");
        let set = Identities::of(&error).unwrap();
        let moved = vec![error];
        assert_eq!(set.hold(&moved[0]), Some(true));
        for text in ["a query failed", "reset"] {
            let other = BoxError::from(text);
            assert_eq!(set.hold(&other), Some(false), "the same text is another error");
        }
        let wrapped: BoxError = Wrapped(moved.into_iter().next().unwrap(), "a query failed").into();
        assert_eq!(set.hold(&wrapped), Some(true));
        assert_eq!(Identities::NONE.hold(&wrapped), Some(false));
    }

    #[test]
    fn a_rejection_is_recognized_by_its_text_in_errors_of_any_type() {
        let rejected = || Rejected::Limited { retry_after: None };
        let set = Identities::of(&rejected()).unwrap();
        assert_eq!(set.hold(&BoxError::from_rejected(rejected())), Some(true));
        assert_eq!(set.hold(&BoxError::from_rejected(Rejected::shed())), Some(false));
        assert_eq!(set.hold(&BoxError::from("limit reached")), Some(false));
        let both = set.with(Identities::of(&Rejected::shed()).unwrap());
        assert_eq!([rejected(), Rejected::shed()].map(|one| both.hold(&one)), [Some(true); 2]);
    }

    #[test]
    fn an_error_of_any_other_type_cannot_be_told_from_others() {
        #[derive(Debug)]
        enum Own {
            Sick,
            Rejected(Rejected),
        }
        crate::rejectable!(Own::Rejected);
        assert_eq!((Identities::of(&Own::Sick), Identities::NONE.hold(&Own::Sick)), (None, None));
        assert!(Identities::of(&Own::Rejected(Rejected::shed())).is_some());
    }
}
