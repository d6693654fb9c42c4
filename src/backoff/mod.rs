//! Delays between attempts: sequences that grow, jitter that spreads them, and a cap that nothing exceeds.
//!
//! # Why
//!
//! A callee that fails under load recovers only if it gets less of it. Growing delays give it time; jitter keeps the
//! callers that failed together from coming back together. Of the two, jitter does more: without it every wave of retries
//! is as high as the one before.
//!
//! # When not
//!
//! A backoff slows one caller down. It does not bound what all callers send together; that is what a retry budget is for.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use mainstay::backoff::{BackoffConfig, Jitter};
//!
//! let backoff = BackoffConfig::exponential(Duration::from_millis(100))
//!     .with_cap(Duration::from_secs(1))
//!     .with_jitter(Jitter::None)
//!     .build()?;
//! let delays: Vec<_> = backoff.delays().map(|delay| delay.as_millis()).take(5).collect();
//! assert_eq!(delays, [100, 200, 400, 800, 1000]);
//! # Ok::<(), mainstay::InvalidConfig>(())
//! ```
//!
//! # Semantics
//!
//! With `initial` = 100 ms, the delay before retry 1, 2, 3, 4, before jitter and cap:
//!
//! | growth | delays | |
//! |---|---|---|
//! | [`Constant`](Growth::Constant) | 100, 100, 100, 100 ms | |
//! | [`Linear`](Growth::Linear), step 50 ms | 100, 150, 200, 250 ms | |
//! | [`Exponential`](Growth::Exponential), factor 2 | 100, 200, 400, 800 ms | the default |
//! | [`Fibonacci`](Growth::Fibonacci) | 100, 200, 300, 500 ms | grows by 1.618 in the limit |
//! | [`Decorrelated`](Growth::Decorrelated) | a draw from 100 ms to three times the delay before | is its own jitter |
//!
//! [`Jitter`] turns a delay into a range, and a uniform draw picks from it. **The cap holds after jitter**: the delay is cut
//! to the cap first, and the upper end of its range is cut again, so that no delay is ever above the cap while the draws
//! below it stay spread out (cutting the draw instead would make half of the callers wait for exactly the cap).
//!
//! Everything saturates: attempt 1000 of a doubling day is the cap, and without a cap (`Duration::MAX`) it is
//! `Duration::MAX`. A zero delay is a zero delay, and callers of this crate arm no timer for it.
//!
//! Draws are arguments ([`Backoff::next_delay`]); [`Delays`] is the same with a generator of its own, seedable.

mod config;
mod delays;
mod sequence;

pub use config::{BackoffConfig, Growth, Jitter};
pub use delays::Delays;
pub use sequence::{Backoff, Progress};
#[allow(unused_imports, reason = "used by the families, each behind its feature")]
pub(crate) use sequence::{between, scaled};
