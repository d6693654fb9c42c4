//! Whether a request can be sent to another endpoint after the first one did not send it.

/// Makes a second copy of a request, for the case that the first one was not sent: a layer inside the endpoint rejected it, or
/// it failed with [`Outcome::NotSent`](crate::Outcome::NotSent).
///
/// Only then is the copy used; repeating what may have been sent is left to a retry. Closures `Fn(&Req) -> Option<Req>` are
/// repeaters.
///
/// # Examples
///
/// ```
/// use mainstay::balance::Repeat;
///
/// let small_only = |request: &Vec<u8>| (request.len() < 1024).then(|| request.clone());
/// assert_eq!(small_only.repeat(&vec![1, 2]), Some(vec![1, 2]));
/// assert_eq!(small_only.repeat(&vec![0; 4096]), None);
/// ```
pub trait Repeat<Req> {
    /// The same request once more, if it can be made.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::{CloneRequests, Repeat};
    ///
    /// assert_eq!(CloneRequests.repeat(&"request"), Some("request"));
    /// ```
    fn repeat(&self, request: &Req) -> Option<Req>;
}

/// Repeats no request: what a pool starts with. It costs nothing and asks nothing of the request.
///
/// # Examples
///
/// ```
/// use mainstay::balance::{NeverRepeat, Repeat};
///
/// assert_eq!(NeverRepeat.repeat(&7), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeverRepeat;

/// Repeats every request by cloning it, before each call.
///
/// # Examples
///
/// ```
/// use mainstay::balance::{CloneRequests, Repeat};
///
/// assert_eq!(CloneRequests.repeat(&7), Some(7));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneRequests;

// === impl Repeat ===

impl<F, Req> Repeat<Req> for F
where
    F: Fn(&Req) -> Option<Req>,
{
    fn repeat(&self, request: &Req) -> Option<Req> {
        self(request)
    }
}

impl<Req> Repeat<Req> for NeverRepeat {
    #[inline]
    fn repeat(&self, _: &Req) -> Option<Req> {
        None
    }
}

impl<Req: Clone> Repeat<Req> for CloneRequests {
    #[inline]
    fn repeat(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}
