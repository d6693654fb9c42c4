//! [`Delays`]: a backoff as an iterator.

use std::iter::FusedIterator;
use std::time::Duration;

use super::{Backoff, Progress};
use crate::cores::random::Random;

/// The delays of a [`Backoff`], without end, with a generator of their own.
///
/// How many there are is the caller's: `take(n)`.
///
/// A clone repeats the original's draws. Where that is not wanted, start anew with [`Backoff::delays`].
///
/// # Examples
///
/// ```
/// use mainstay::backoff::BackoffConfig;
///
/// let backoff = BackoffConfig::default().build()?;
/// for delay in backoff.delays().take(3) {
///     println!("would wait {delay:?}");
/// }
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Debug)]
pub struct Delays {
    backoff: Backoff,
    progress: Progress,
    random: Random,
}

// === impl Delays ===

impl Delays {
    pub(super) fn unseeded(backoff: Backoff) -> Self {
        Self { backoff, progress: Progress::start(), random: Random::unseeded() }
    }

    pub(super) const fn seeded(backoff: Backoff, seed: u64) -> Self {
        Self { backoff, progress: Progress::start(), random: Random::seeded(seed) }
    }

    /// Starts the sequence over, after a success; the draws go on.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::backoff::{BackoffConfig, Jitter};
    ///
    /// let backoff = BackoffConfig::exponential(Duration::from_secs(1)).with_jitter(Jitter::None).build()?;
    /// let mut delays = backoff.delays();
    /// delays.nth(2);
    /// delays.reset();
    /// assert_eq!(delays.next(), Some(Duration::from_secs(1)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub const fn reset(&mut self) {
        self.progress = Progress::start();
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.backoff.next_delay(&mut self.progress, self.random.draw()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

impl FusedIterator for Delays {}
