//! Pure parts shared by the families: no tokio, no tower, no metrics; `now` and random draws are arguments.

pub(crate) mod counters;
pub(crate) mod lock;
pub(crate) mod random;
#[cfg(feature = "serde")]
pub(crate) mod serde_duration;
pub(crate) mod unwind;
