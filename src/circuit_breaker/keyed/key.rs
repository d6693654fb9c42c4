//! What tells the key of a request: [`KeyOf`], made from closures.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

/// What can be a key; implemented for everything that has the bounds.
///
/// # Examples
///
/// ```
/// fn is_key<K: mainstay::circuit_breaker::BreakerKey>() {}
/// is_key::<String>();
/// is_key::<(u32, &'static str)>();
/// ```
pub trait BreakerKey: Hash + Eq + Clone + Send + Sync + 'static {}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> BreakerKey for K {}

/// Tells the key of a request. Made from a closure by [`keyed`](super::super::CircuitBreakerBuilder::keyed) (an owned key) or
/// [`keyed_ref`](super::super::CircuitBreakerBuilder::keyed_ref) (one borrowed from the request); nothing else can be one.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::{BorrowedKey, KeyOf};
///
/// fn key_is<K, F: KeyOf<String, Key = K>>() {}
/// key_is::<String, BorrowedKey<fn(&String) -> Option<&str>, str>>();
/// ```
pub trait KeyOf<Req>: sealed::KeyOf<Req> {}

impl<Req, F: sealed::KeyOf<Req>> KeyOf<Req> for F {}

pub(super) mod sealed {
    use super::Hash;

    pub trait KeyOf<Req> {
        /// The key as it is kept.
        type Key;
        /// The key as the request has it.
        type Ref: Hash + Eq + ?Sized;

        fn with<R>(&self, request: &Req, f: impl FnOnce(Option<&Self::Ref>) -> R) -> R;

        fn is(known: &Self::Key, key: &Self::Ref) -> bool;

        fn own(key: &Self::Ref) -> Self::Key;
    }
}

/// A closure that makes the key of a request.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::{CircuitBreakerLayer, KeyedCircuitBreakerLayer, OwnedKey};
///
/// type ByNumber = KeyedCircuitBreakerLayer<u64, OwnedKey<fn(&u64) -> Option<u64>, u64>>;
/// let layer: ByNumber = CircuitBreakerLayer::builder("shards").keyed((|n| Some(n % 4)) as fn(&u64) -> _).build()?;
/// # let _ = layer;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
pub struct OwnedKey<F, K> {
    key: F,
    made: PhantomData<fn() -> K>,
}

/// A closure that finds the key in a request.
///
/// # Examples
///
/// ```
/// use mainstay::circuit_breaker::{BorrowedKey, CircuitBreakerLayer, KeyedCircuitBreakerLayer};
///
/// type ByHost = KeyedCircuitBreakerLayer<String, BorrowedKey<fn(&String) -> Option<&str>, str>>;
/// let host: fn(&String) -> Option<&str> = |url| url.split('/').nth(2);
/// let layer: ByHost = CircuitBreakerLayer::builder("hosts").keyed_ref(host).build()?;
/// # let _ = layer;
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
pub struct BorrowedKey<F, Q: ?Sized> {
    key: F,
    found: PhantomData<fn() -> Box<Q>>,
}

// === impl OwnedKey ===

impl<F, K> OwnedKey<F, K> {
    pub(super) const fn new(key: F) -> Self {
        Self { key, made: PhantomData }
    }
}

impl<Req, F, K> sealed::KeyOf<Req> for OwnedKey<F, K>
where
    F: Fn(&Req) -> Option<K>,
    K: BreakerKey,
{
    type Key = K;
    type Ref = K;

    #[inline]
    fn with<R>(&self, request: &Req, f: impl FnOnce(Option<&K>) -> R) -> R {
        f((self.key)(request).as_ref())
    }

    fn is(known: &K, key: &K) -> bool {
        known == key
    }

    fn own(key: &K) -> K {
        key.clone()
    }
}

// === impl BorrowedKey ===

impl<F, Q: ?Sized> BorrowedKey<F, Q> {
    pub(super) const fn new(key: F) -> Self {
        Self { key, found: PhantomData }
    }
}

impl<Req, F, Q> sealed::KeyOf<Req> for BorrowedKey<F, Q>
where
    F: Fn(&Req) -> Option<&Q>,
    Q: ToOwned<Owned: BreakerKey> + Hash + Eq + ?Sized,
{
    type Key = Q::Owned;
    type Ref = Q;

    #[inline]
    fn with<R>(&self, request: &Req, f: impl FnOnce(Option<&Q>) -> R) -> R {
        f((self.key)(request))
    }

    fn is(known: &Q::Owned, key: &Q) -> bool {
        Borrow::<Q>::borrow(known) == key
    }

    fn own(key: &Q) -> Q::Owned {
        key.to_owned()
    }
}

impl<F, K> fmt::Debug for OwnedKey<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnedKey")
    }
}

impl<F, Q: ?Sized> fmt::Debug for BorrowedKey<F, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BorrowedKey")
    }
}
