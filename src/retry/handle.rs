//! [`RetryHandle`]: reads and controls a retry while it runs.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::hooks::Hooks;
use super::policy::Hints;
use super::{AfterAttempt, EndedAttempt, GiveUpReason, RetryConfig, config};
use crate::backoff::{Backoff, Progress};
use crate::budget::Budget;
use crate::cores::lock::lock;
use crate::cores::packed_duration::{AtomicDuration, PackedDuration};
use crate::cores::random::{self, Random};
use crate::error::InvalidConfig;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::telemetry::event::{RetryEvent, RetryEventKind};
use crate::telemetry::{Emitter, Event, Tally, names};

/// Reads the counts of a retry, and changes its settings while it runs. A clone is a handle to the same.
///
/// # Examples
///
/// ```
/// use mainstay::RetryLayer;
/// use mainstay::retry::RetryConfig;
///
/// let handle = RetryLayer::new("users", RetryConfig::default())?.handle();
/// handle.set_max_attempts(1)?; // no retries from here on, as when shutting down
/// assert_eq!(handle.config().max_attempts, 1);
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Debug)]
pub struct RetryHandle {
    core: Arc<Core>,
}

/// What the calls through a retry came to. Every call that has ended is counted once.
///
/// # Examples
///
/// ```
/// use mainstay::RetryLayer;
/// use mainstay::retry::RetryConfig;
///
/// let statistics = RetryLayer::new("users", RetryConfig::default())?.handle().statistics();
/// assert_eq!((statistics.calls(), statistics.attempts()), (0, 0));
/// # Ok::<(), mainstay::InvalidConfig>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryStatistics {
    /// Ended well, at the first attempt or a later one.
    pub successes: u64,
    /// Ended in a result that no retry would help; or refused, since the deadline had passed.
    pub failures: u64,
    /// Gave up: all attempts were made.
    pub gave_up_attempts: u64,
    /// Gave up: the budget was used up.
    pub gave_up_budget: u64,
    /// Gave up: the next attempt would not have started before the deadline.
    pub gave_up_deadline: u64,
    /// Gave up: the callee asked for too long a wait.
    pub gave_up_retry_after: u64,
    /// Gave up: there was no copy of the request.
    pub gave_up_not_cloneable: u64,
    /// Gave up: the request may not be sent twice.
    pub gave_up_not_idempotent: u64,
    /// Passed on the result of a retry further in that had given up.
    pub gave_up_inner: u64,
    /// Gave up: the next attempt would not have started within the longest time.
    pub gave_up_elapsed: u64,
    /// Gave up: the service did not become ready in time.
    pub gave_up_not_ready: u64,
    /// Gave up: the copy of the request could no longer be sent.
    pub gave_up_not_replayable: u64,
    /// Dropped by the caller before the end.
    pub abandoned: u64,
    /// Ended by a panic that came out of the service, the classifier or the request policy.
    pub panicked: u64,
    /// Attempts beyond the first that were made.
    pub retries: u64,
}

/// Sentinel: no limit. What is configured is at most [`LONGEST_LIMIT`].
const NO_LIMIT: Duration = Duration::MAX;
/// Longer than any process runs, and less than what an [`AtomicDuration`] saturates at.
const LONGEST_LIMIT: Duration = Duration::from_secs(100 * 365 * 86_400);

const SUCCEEDED: usize = 0;
const FAILED: usize = 1;
const ABANDONED: usize = 2;
/// The first of the reasons to give up, in the order of [`GiveUpReason`].
const GAVE_UP: usize = 3;
const PANICKED: usize = 13;
const OUTCOMES: [&str; 14] = [
    "success",
    "failure",
    "abandoned",
    "gave_up_attempts",
    "gave_up_budget",
    "gave_up_deadline",
    "gave_up_retry_after",
    "gave_up_not_cloneable",
    "gave_up_not_idempotent",
    "gave_up_inner",
    "gave_up_elapsed",
    "gave_up_not_ready",
    "gave_up_not_replayable",
    "panicked",
];
/// Why an attempt follows another; the order is that of [`CAUSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Transient,
    Throttled,
    NotSent,
}

const CAUSES: [&str; 3] = ["transient", "throttled", "not_sent"];

/// What all services of a layer share, whatever their types.
pub(super) struct Core {
    // What a call that goes well reads is beside the lock.
    max_attempts: AtomicU32,
    attempt_timeout: AtomicDuration,
    max_elapsed: AtomicDuration,
    /// Whether there is a delay after failures other than throttles.
    has_delay: AtomicBool,
    settings: Mutex<Settings>,
    pub(super) budget: Budget,
    /// The budget belongs to this retry alone, and goes by its settings.
    owns_budget: bool,
    even_draws: AtomicU64,
    pub(super) hooks: Hooks,
    emitter: Emitter,
    calls: Tally<14>,
    retries: Tally<3>,
}

/// What can be reconfigured, and is read after an attempt that ended badly.
struct Settings {
    config: RetryConfig,
    delays: Delays,
    /// In place of the threads' generators, for repeatable tests.
    random: Option<Random>,
}

/// The configured delays.
#[derive(Clone, Copy)]
struct Delays {
    backoff: Backoff,
    /// After throttles that name no time.
    throttled: Backoff,
}

// === impl RetryHandle ===

impl RetryHandle {
    pub(super) const fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The name it was given.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    /// use mainstay::retry::RetryConfig;
    ///
    /// assert_eq!(RetryLayer::new("users", RetryConfig::default())?.handle().name().as_str(), "users");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &Name {
        self.core.emitter.name()
    }

    /// The settings as they are now.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::retry::RetryConfig;
    ///
    /// let layer = mainstay::RetryLayer::builder("users").build()?;
    /// assert_eq!(layer.handle().config(), RetryConfig::default());
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> RetryConfig {
        self.core.config()
    }

    /// The budget that its retries draw on.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::RetryLayer;
    /// use mainstay::budget::Budget;
    ///
    /// let budget = Budget::default();
    /// let layer = RetryLayer::builder("users").budget(budget.clone()).build()?;
    /// assert!(layer.handle().budget().is_same(&budget));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.core.budget
    }

    /// What its calls came to.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::RetryLayer::builder("users").build()?;
    /// assert_eq!(layer.handle().statistics().calls(), 0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    #[must_use]
    pub fn statistics(&self) -> RetryStatistics {
        let calls = self.core.calls.all();
        let gave_up = |reason: GiveUpReason| calls[GAVE_UP + reason as usize];
        RetryStatistics {
            successes: calls[SUCCEEDED],
            failures: calls[FAILED],
            abandoned: calls[ABANDONED],
            panicked: calls[PANICKED],
            gave_up_attempts: gave_up(GiveUpReason::Attempts),
            gave_up_budget: gave_up(GiveUpReason::Budget),
            gave_up_deadline: gave_up(GiveUpReason::Deadline),
            gave_up_retry_after: gave_up(GiveUpReason::RetryAfter),
            gave_up_not_cloneable: gave_up(GiveUpReason::NotCloneable),
            gave_up_not_idempotent: gave_up(GiveUpReason::NotIdempotent),
            gave_up_inner: gave_up(GiveUpReason::Inner),
            gave_up_elapsed: gave_up(GiveUpReason::Elapsed),
            gave_up_not_ready: gave_up(GiveUpReason::NotReady),
            gave_up_not_replayable: gave_up(GiveUpReason::NotReplayable),
            retries: self.core.retries.all().into_iter().fold(0, u64::wrapping_add),
        }
    }

    /// Gives calls this many attempts from now on, those that run included. 1 turns retries off.
    ///
    /// # Errors
    ///
    /// Zero.
    ///
    /// # Examples
    ///
    /// ```
    /// let layer = mainstay::RetryLayer::builder("users").build()?;
    /// layer.handle().set_max_attempts(1)?;
    /// assert_eq!(layer.handle().config().max_attempts, 1);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn set_max_attempts(&self, max_attempts: u32) -> Result<(), InvalidConfig> {
        config::valid_attempts(max_attempts).map_err(|error| error.of_layer(self.name().clone()))?;
        let mut settings = lock(&self.core.settings);
        settings.config.max_attempts = max_attempts;
        self.core.publish(&settings.config, &settings.delays);
        Ok(())
    }

    /// Goes by these settings from now on, in calls that run too: after the attempt, or the wait, in which they are.
    ///
    /// Statistics and the balance of the budget are kept. A budget that was given to the builder keeps its own settings, since
    /// others use it too ([`Budget::reconfigure`] changes them); [`budget`](RetryConfig::budget) is then not used. Delays start over
    /// from nothing only for a new call. An unchanged [`seed`](RetryConfig::seed) goes on with its draws.
    ///
    /// # Errors
    ///
    /// What [`RetryConfig::validate`] finds, and a budget's window that differs, which cannot change while the budget is in
    /// use. Then nothing changes.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use mainstay::RetryLayer;
    ///
    /// let handle = RetryLayer::builder("users").build()?.handle();
    /// let mut config = handle.config();
    /// config.attempt_timeout = Some(Duration::from_millis(300));
    /// config.budget.ratio = 0.1;
    /// handle.reconfigure(config)?;
    /// assert_eq!((handle.config(), handle.budget().config()), (config, Some(config.budget)));
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn reconfigure(&self, config: RetryConfig) -> Result<(), InvalidConfig> {
        let named = |error: InvalidConfig| error.of_layer(self.name().clone());
        config.validate().map_err(named)?;
        let delays = Delays::new(&config).map_err(named)?;
        let mut settings = lock(&self.core.settings);
        if self.core.owns_budget {
            self.core.budget.reconfigure(config.budget).map_err(|error| named(error.within("budget")))?;
        }
        if config.seed != settings.config.seed {
            settings.random = config.seed.map(Random::seeded);
        }
        (settings.config, settings.delays) = (config, delays);
        self.core.publish(&config, &delays);
        Ok(())
    }
}

// === impl RetryStatistics ===

impl RetryStatistics {
    /// Calls that have ended.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut statistics = mainstay::retry::RetryStatistics::default();
    /// (statistics.successes, statistics.gave_up_budget) = (3, 1);
    /// assert_eq!(statistics.calls(), 4);
    /// ```
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.successes + self.failures + self.abandoned + self.panicked + self.gave_up()
    }

    /// Calls that gave up, for whatever reason.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::retry::RetryStatistics::default().gave_up(), 0);
    /// ```
    #[must_use]
    pub const fn gave_up(&self) -> u64 {
        self.gave_up_attempts
            + self.gave_up_budget
            + self.gave_up_deadline
            + self.gave_up_retry_after
            + self.gave_up_not_cloneable
            + self.gave_up_not_idempotent
            + self.gave_up_inner
            + self.gave_up_elapsed
            + self.gave_up_not_ready
            + self.gave_up_not_replayable
    }

    /// Attempts of calls that have ended, and retries of those that run.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut statistics = mainstay::retry::RetryStatistics::default();
    /// (statistics.successes, statistics.retries) = (3, 2);
    /// assert_eq!(statistics.attempts(), 5);
    /// ```
    #[must_use]
    pub const fn attempts(&self) -> u64 {
        self.calls() + self.retries
    }
}

// === impl Delays ===

impl Delays {
    fn new(config: &RetryConfig) -> Result<Self, InvalidConfig> {
        let backoff = Backoff::new(config.backoff)?;
        Ok(Self { backoff, throttled: Backoff::new(config.throttled())? })
    }
}

// === impl Cause ===

impl Cause {
    /// How many tokens of the budget an attempt costs that is made for this cause, on top of a call that was sent. A callee that
    /// throttles asks for less load.
    pub(super) const fn cost(self) -> u32 {
        match self {
            Self::Throttled => 2,
            Self::Transient | Self::NotSent => 1,
        }
    }

    pub(super) const fn of(outcome: Outcome, sent: bool) -> Self {
        match outcome {
            _ if !sent => Self::NotSent,
            Outcome::Throttled { .. } => Self::Throttled,
            _ => Self::Transient,
        }
    }
}

// === impl Core ===

impl Core {
    /// # Errors
    ///
    /// What [`RetryConfig::validate`] finds. `budget` is the one that is shared, if there is one.
    pub(super) fn new(
        emitter: Emitter,
        config: RetryConfig,
        budget: Option<Budget>,
        hooks: Hooks,
    ) -> Result<Self, InvalidConfig> {
        config.validate().map_err(|error| error.of_layer(emitter.name().clone()))?;
        let calls = Tally::new(emitter.name(), names::RETRY_CALLS, "outcome", OUTCOMES);
        let retries = Tally::new(emitter.name(), names::RETRIES, "cause", CAUSES);
        let delays = Delays::new(&config)?;
        let mut random = config.seed.map(Random::seeded);
        let first_draw = random.as_mut().map_or_else(random::thread_draw, Random::draw);
        let owns_budget = budget.is_none();
        let core = Self {
            max_attempts: AtomicU32::new(config.max_attempts),
            attempt_timeout: AtomicDuration::new(NO_LIMIT),
            max_elapsed: AtomicDuration::new(NO_LIMIT),
            has_delay: AtomicBool::new(true),
            settings: Mutex::new(Settings { config, delays, random }),
            budget: budget.map_or_else(|| Budget::new(config.budget), Ok)?,
            owns_budget,
            even_draws: AtomicU64::new(first_draw),
            hooks,
            emitter,
            calls,
            retries,
        };
        core.publish(&config, &delays);
        Ok(core)
    }

    /// Puts beside the lock what calls read that go well. Called under the lock, so that the two agree.
    fn publish(&self, config: &RetryConfig, delays: &Delays) {
        let limit = |limit: Option<Duration>| limit.map_or(NO_LIMIT, |limit| limit.min(LONGEST_LIMIT));
        // Relaxed: each is read by itself, and guards nothing.
        self.max_attempts.store(config.max_attempts, Ordering::Relaxed);
        self.attempt_timeout.store(limit(config.attempt_timeout), Ordering::Relaxed);
        self.max_elapsed.store(limit(config.max_elapsed), Ordering::Relaxed);
        self.has_delay.store(!delays.backoff.never_waits(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn max_attempts(&self) -> u32 {
        self.max_attempts.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn attempt_timeout(&self) -> Option<Duration> {
        Self::limit(&self.attempt_timeout)
    }

    #[inline]
    pub(super) fn max_elapsed(&self) -> Option<Duration> {
        Self::limit(&self.max_elapsed)
    }

    #[inline]
    fn limit(limit: &AtomicDuration) -> Option<Duration> {
        let limit = limit.load(Ordering::Relaxed);
        (limit != PackedDuration::new(NO_LIMIT)).then(|| limit.get())
    }

    pub(super) fn config(&self) -> RetryConfig {
        lock(&self.settings).config
    }

    /// How times that a callee names are followed.
    #[cold]
    pub(super) fn hints(&self) -> Hints {
        Hints::of(&lock(&self.settings).config)
    }

    /// An attempt, or the call, has a longest time, or the budget counts the calls in flight.
    #[inline]
    pub(super) fn is_limited(&self) -> bool {
        self.is_timed() || self.budget.counts_in_flight()
    }

    /// An attempt, or the call, has a longest time.
    #[inline]
    pub(super) fn is_timed(&self) -> bool {
        self.attempt_timeout().is_some() || self.max_elapsed().is_some()
    }

    /// The next delay of a call that has come this far; `None` when a sequence of the user's own has ended.
    pub(super) fn next_delay(&self, attempt: u32, outcome: Outcome, progress: &mut Progress) -> Option<Duration> {
        let is_hooked = self.hooks.delay.is_some() || self.hooks.sequence.is_some();
        let is_throttled = outcome == Outcome::Throttled { retry_after: None };
        if !is_hooked && !is_throttled && !self.has_delay.load(Ordering::Relaxed) {
            return Some(Duration::ZERO);
        }
        // Copied, since functions of the user are called below.
        let (backoff, seeded) = {
            let mut settings = lock(&self.settings);
            let Delays { backoff, throttled } = settings.delays;
            (if is_throttled { throttled } else { backoff }, settings.random.as_mut().map(Random::draw))
        };
        if !is_hooked && backoff.never_waits() {
            return Some(Duration::ZERO);
        }
        let draw = seeded.unwrap_or_else(random::thread_draw);
        let ended = EndedAttempt { attempt, outcome, previous: progress.last(), draw };
        let delay = match (self.hooks.delay.as_ref().and_then(|delay| delay.next_delay(&ended)), &self.hooks.sequence) {
            (Some(delay), _) => delay,
            (None, Some(sequence)) => sequence(attempt)?,
            (None, None) => return Some(backoff.next_delay(progress, draw)),
        };
        progress.note(delay);
        Some(delay)
    }

    /// The next draw for jitter on top of a wait that the callee named. Draws in a row are spread evenly, where random ones would
    /// cluster: of 200 calls over 200 ms at most 12 start within 10 ms, and not 16 or more.
    pub(super) fn draw_evenly(&self) -> u64 {
        // The golden ratio of 2^64: of all steps it leaves the smallest gaps, however many draws are made.
        self.even_draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn record_return(&self, outcome: Outcome) {
        self.calls.add(if outcome.is_success() { SUCCEEDED } else { FAILED });
    }

    #[cold]
    pub(super) fn record_abandoned(&self) {
        self.calls.add(ABANDONED);
    }

    /// A panic came out of the code of others.
    #[cold]
    pub(super) fn record_panicked(&self) {
        self.calls.add(PANICKED);
    }

    /// The call ends after this many attempts, although another might have helped.
    #[cold]
    #[inline(never)]
    pub(super) fn give_up(&self, attempts: u32, outcome: Outcome, sent: bool, reason: GiveUpReason) {
        self.calls.add(GAVE_UP + reason as usize);
        let kind = RetryEventKind::GaveUp { attempts, outcome, reason: reason.as_str() };
        self.emitter.emit(|name| Event::Retry(RetryEvent { name, kind }));
        self.hooks.observe(attempts, outcome, sent, AfterAttempt::GaveUp(reason));
    }

    /// Another attempt starts.
    #[inline]
    pub(super) fn record_retry(&self, cause: Cause) {
        self.retries.add(cause as usize);
    }

    /// Another attempt will start, unless the caller leaves before.
    #[inline]
    pub(super) fn tell_of_retry(&self, attempt: u32, outcome: Outcome, delay: Duration) {
        let kind = RetryEventKind::Retrying { attempt, outcome, delay };
        self.emitter.emit(|name| Event::Retry(RetryEvent { name, kind }));
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("name", self.emitter.name())
            .field("config", &self.config())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_to_give_up_has_its_own_count() {
        let reasons = [
            GiveUpReason::Attempts,
            GiveUpReason::Budget,
            GiveUpReason::Deadline,
            GiveUpReason::RetryAfter,
            GiveUpReason::NotCloneable,
            GiveUpReason::NotIdempotent,
            GiveUpReason::Inner,
            GiveUpReason::Elapsed,
            GiveUpReason::NotReady,
            GiveUpReason::NotReplayable,
        ];
        for (index, reason) in reasons.into_iter().enumerate() {
            assert_eq!(OUTCOMES[GAVE_UP + reason as usize], format!("gave_up_{}", reason.as_str()));
            assert_eq!(reason as usize, index);
        }
        assert_eq!(PANICKED, GAVE_UP + reasons.len());
        assert_eq!(OUTCOMES[PANICKED], "panicked");
    }
}
