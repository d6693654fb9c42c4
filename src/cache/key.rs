//! What identifies an answer: [`CacheKey`], and [`key_fn`] for closures that make one.

use std::hash::Hash;

/// What a key has to be: any type that is cloned, hashed, compared and sent to another thread.
///
/// Two requests with equal keys get each other's answers, so everything that the answer depends on belongs into the key: the
/// user whom it is for, where answers differ by user. Implemented for every type that fits.
///
/// # Examples
///
/// ```
/// use mainstay::cache::CacheKey;
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct Page { tenant: u32, path: String }
///
/// fn fits<K: CacheKey>() {}
/// fits::<Page>();
/// fits::<u64>();
/// ```
pub trait CacheKey: Clone + Eq + Hash + Send + Sync + 'static {}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> CacheKey for K {}

/// Hands a key function back unchanged, with the bound that lets the compiler infer its lifetimes.
///
/// [`None`] means that this request is not cached: it goes straight to the inner service, alone.
///
/// # Examples
///
/// ```
/// use mainstay::cache::key_fn;
///
/// struct Request { method: &'static str, path: String }
///
/// let key = key_fn(|request: &Request| (request.method == "GET").then(|| request.path.clone()));
/// assert_eq!(key(&Request { method: "GET", path: "/users/7".into() }).as_deref(), Some("/users/7"));
/// assert_eq!(key(&Request { method: "POST", path: "/users".into() }), None);
/// ```
pub const fn key_fn<F, Req, K>(key: F) -> F
where
    F: Fn(&Req) -> Option<K>,
{
    key
}
