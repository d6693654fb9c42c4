//! What all endpoints and handles of a pool share, and what no change of endpoints touches.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::config::{Picker, PoolConfig};
use super::load::nanoseconds;
use super::load::peak_ewma::Rule;
use crate::cores::counters::StripedCounters;
use crate::cores::ewma::Tick;
use crate::cores::random;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::telemetry::{Emitter, Level, Tally, names};

/// How the calls of a pool end; the order is that of [`CALLS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Judged(Outcome),
    Rejected,
    Abandoned,
}

/// Why a call went to another endpoint than the one picked first; the order is that of [`REPICKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repick {
    /// The first was not ready, the second was.
    NotReady,
    /// The first failed to become ready.
    Unready,
    /// The first rejected the call.
    Refused,
    /// The call to the first failed in a way that proves that nothing was sent.
    NotSent,
}

const CALLS: [&str; 8] =
    ["success", "refused", "failure", "throttled", "dependency_failed", "ignored", "rejected", "abandoned"];

const REPICKS: [&str; 4] = ["not_ready", "unready", "refused", "not_sent"];

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: PoolConfig,
    pub(crate) emitter: Emitter,
    pub(crate) calls: Tally<8>,
    pub(crate) repicks: Tally<4>,
    pub(crate) endpoints: Level,
    pub(crate) usable: Level,
    pub(crate) panic: Level,
    pub(crate) ejections: Tally<2>,
    pub(crate) rule: Rule,
    epoch: Instant,
    rotation: Rotation,
    /// The state of the draws of a seeded pool.
    seeded: Option<AtomicU64>,
}

/// Whose turn it is.
#[derive(Debug)]
enum Rotation {
    /// The counter of a round robin and of a seeded pool.
    Shared(SharedTurns),
    /// A counter per thread, each with a start of its own: so the others need not write to one cache line.
    Striped(StripedCounters<1>),
}

/// On separate cache lines: it is written by every pick, its neighbours are only read.
#[derive(Debug)]
#[repr(align(128))]
struct SharedTurns(AtomicU64);

/// The time, read once and only if anybody asks.
#[derive(Debug)]
pub(crate) struct Now {
    at: Cell<Option<Instant>>,
    /// The same, in nanoseconds since the pool's epoch; `UNREAD` until asked for.
    nanos: Cell<u64>,
}

const UNREAD: u64 = u64::MAX;

// === impl Now ===

impl Now {
    pub(crate) const fn unread() -> Self {
        Self { at: Cell::new(None), nanos: Cell::new(UNREAD) }
    }

    #[inline]
    pub(crate) fn get(&self) -> Instant {
        match self.at.get() {
            Some(now) => now,
            None => {
                let now = tokio::time::Instant::now().into_std();
                self.at.set(Some(now));
                now
            }
        }
    }

    /// Nanoseconds since the pool's epoch.
    #[inline]
    pub(crate) fn nanos(&self, core: &Core) -> u64 {
        if self.nanos.get() == UNREAD {
            self.nanos.set(nanoseconds(core.epoch, self.get()).min(UNREAD - 1));
        }
        self.nanos.get()
    }

    /// The moment as the loads count it.
    #[inline]
    pub(crate) fn tick(&self, core: &Core) -> Tick {
        Tick::new(self.nanos(core))
    }
}

// === impl End ===

impl End {
    #[inline]
    const fn index(self) -> usize {
        match self {
            Self::Judged(Outcome::Success) => 0,
            Self::Judged(Outcome::Refused) => 1,
            Self::Judged(Outcome::Transient | Outcome::NotSent | Outcome::Permanent) => 2,
            Self::Judged(Outcome::Throttled { .. }) => 3,
            Self::Judged(Outcome::DependencyFailed) => 4,
            Self::Judged(Outcome::Ignored) => 5,
            Self::Rejected => 6,
            Self::Abandoned => 7,
        }
    }
}

// === impl Core ===

impl Core {
    #[allow(clippy::cast_precision_loss, reason = "durations of configuration")]
    pub(crate) fn new(config: PoolConfig, emitter: Emitter) -> Self {
        let name = emitter.name();
        let rotation = match (config.picker, config.seed) {
            (Picker::PeakEwma | Picker::InFlight, None) => {
                Rotation::Striped(StripedCounters::starting_at(random::thread_draw))
            }
            (_, seed) => Rotation::Shared(SharedTurns(AtomicU64::new(seed.unwrap_or_else(random::thread_draw)))),
        };
        Self {
            calls: Tally::new(name, names::BALANCE_CALLS, "outcome", CALLS),
            repicks: Tally::new(name, names::BALANCE_REPICKS, "reason", REPICKS),
            ejections: Tally::new(name, names::BALANCE_EJECTIONS, "reason", ["failures", "by_hand"]),
            endpoints: Level::new(name, names::BALANCE_ENDPOINTS),
            usable: Level::new(name, names::BALANCE_USABLE),
            panic: Level::new(name, names::BALANCE_PANIC),
            rule: Rule { default: config.default_latency.as_nanos() as f64, window: config.decay.as_nanos() as f64 },
            epoch: Now::unread().get(),
            rotation,
            seeded: config.seed.map(AtomicU64::new),
            config,
            emitter,
        }
    }

    pub(crate) const fn name(&self) -> &'static Name {
        self.emitter.name()
    }

    /// Whether latencies are measured, which takes two clock reads a call.
    #[inline]
    pub(crate) const fn measures_latency(&self) -> bool {
        matches!(self.config.picker, Picker::PeakEwma)
    }

    /// The next turn.
    #[inline]
    pub(crate) fn turn(&self) -> u64 {
        match &self.rotation {
            Rotation::Striped(turns) => turns.count(0),
            Rotation::Shared(SharedTurns(turns)) => turns.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The next turn as a state of SplitMix64: a Weyl sequence, of which [`random::mix`] makes draws.
    #[inline]
    pub(crate) fn state(&self) -> u64 {
        self.turn().wrapping_mul(random::GAMMA)
    }

    /// A draw that takes no turn.
    pub(crate) fn draw(&self) -> u64 {
        match &self.seeded {
            None => random::thread_draw(),
            Some(state) => random::mix(state.fetch_add(random::GAMMA, Ordering::Relaxed)),
        }
    }

    #[inline]
    pub(crate) fn ended(&self, end: End) {
        self.calls.add(end.index());
    }

    #[cold]
    pub(crate) fn repicked(&self, why: Repick) {
        self.repicks.add(why as usize);
    }
}
