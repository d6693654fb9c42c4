//! Pure parts shared by the families: no tokio, no tower, no metrics; `now` and random draws are arguments.

pub(crate) mod counters;
#[cfg(feature = "balance")]
pub(crate) mod ewma;
#[cfg(feature = "circuit-breaker")]
pub(crate) mod generation;
pub(crate) mod lock;
pub(crate) mod packed_duration;
pub(crate) mod packed_outcome;
pub(crate) mod random;
pub(crate) mod seen;
#[cfg(feature = "serde")]
pub(crate) mod serde_duration;
#[cfg(feature = "serde")]
pub(crate) mod serde_off;
#[cfg(feature = "circuit-breaker")]
pub(crate) mod sliding_window;
pub(crate) mod striped_arc;
pub(crate) mod sync;
pub(crate) mod unwind;
