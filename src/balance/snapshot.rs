//! The endpoints that may be picked, as of one moment, and the pick itself.
//!
//! A snapshot never changes. The registry publishes a new one on the rare change; a pick only reads.

use std::sync::Arc;
use std::time::Instant;

use super::config::Picker;
use super::core::{Core, Now};
use super::endpoint::{Breaker, Endpoint, Flight};
use super::pick::{p2c, round_robin};
use crate::context::{self, EndpointId};
use crate::error::NoEndpointReason;

#[derive(Debug)]
pub(crate) struct Snapshot<K, S> {
    entries: Vec<Entry<K, S>>,
    /// Endpoints whose breakers wait for a probe; they may be among the entries too.
    probes: Vec<Entry<K, S>>,
    turns: Turns,
    /// When time alone will change something.
    pub(crate) next_change: Option<Instant>,
    /// Why there may be nothing to pick.
    pub(crate) none_because: NoEndpointReason,
}

/// An endpoint with the service and the weight that it has now.
#[derive(Debug)]
pub(crate) struct Entry<K, S> {
    pub(crate) endpoint: Arc<Endpoint<K, S>>,
    pub(crate) service: Arc<S>,
    weight: u32,
    /// One divided by the weight.
    per_weight: f64,
    /// It is not among the paused ones, as far as is known.
    ready: bool,
}

/// How turns go by weight.
#[derive(Debug)]
enum Turns {
    /// All weights are equal.
    Equal,
    /// The cycle of a weighted round robin.
    Cycle(Vec<u32>),
    /// The shares of the weights; see [`p2c::shares`].
    Shares(Vec<u64>),
}

/// The endpoints that this call has been to and that had no use for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried {
    ids: [Option<EndpointId>; Tried::MOST],
    len: u8,
}

/// How many places a pick looks at beyond the two that it drew, when those are out of the question.
const SEARCHED: usize = 16;

/// How often a pick begins again when the endpoint was retired meanwhile, or its breaker rejects the call.
const BEGINNINGS: usize = 4;

// === impl Tried ===

impl Tried {
    /// How many endpoints a call tries before it gives up.
    pub(crate) const MOST: usize = 4;

    pub(crate) const fn push(&mut self, id: EndpointId) {
        if !self.is_full() {
            self.ids[self.len as usize] = Some(id);
            self.len += 1;
        }
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len as usize == Self::MOST
    }

    const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn contains(&self, id: EndpointId) -> bool {
        self.ids.contains(&Some(id))
    }
}

// === impl Entry ===

impl<K, S> Entry<K, S> {
    pub(crate) fn new(endpoint: Arc<Endpoint<K, S>>, service: Arc<S>, weight: u32, ready: bool) -> Self {
        Self { endpoint, service, weight, per_weight: 1.0 / f64::from(weight), ready }
    }

    /// Begins a call to it; `None` when it takes none.
    #[inline(always)]
    pub(crate) fn begin(&self, now: &Now) -> Option<Pick<'_, K, S>> {
        Some((Flight::begin(&self.endpoint, now)?, &self.service))
    }
}

/// A call to an endpoint that has begun, and the endpoint's service.
pub(crate) type Pick<'a, K, S> = (Flight<K, S>, &'a Arc<S>);

// === impl Snapshot ===

impl<K, S> Snapshot<K, S> {
    pub(crate) fn new(
        entries: Vec<Entry<K, S>>,
        probes: Vec<Entry<K, S>>,
        picker: Picker,
        next_change: Option<Instant>,
        is_empty: bool,
    ) -> Self {
        let weights = entries.iter().map(|entry| entry.weight);
        let turns = match picker {
            Picker::RoundRobin => round_robin::cycle(&weights.collect::<Vec<_>>()).map(Turns::Cycle),
            Picker::PeakEwma | Picker::InFlight => p2c::shares(weights).map(Turns::Shares),
        };
        let none_because = if is_empty { NoEndpointReason::Empty } else { NoEndpointReason::NoneEligible };
        Self { entries, probes, turns: turns.unwrap_or(Turns::Equal), next_change, none_because }
    }

    #[cfg(all(test, mainstay_loom))]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Picks an endpoint, not one of `tried`, and begins a call to it.
    #[inline(always)]
    pub(crate) fn pick(&self, core: &Core, now: &Now, tried: &Tried) -> Option<Pick<'_, K, S>> {
        if !self.probes.is_empty()
            && let Some(probe) = self.probe(core, now, tried)
        {
            return Some(probe);
        }
        for _ in 0..BEGINNINGS {
            let place = match core.config.picker {
                Picker::RoundRobin => self.next_in_turn(core, tried),
                Picker::PeakEwma | Picker::InFlight => self.better_of_two(core, now, tried),
            }?;
            let pick = self.entries[place].begin(now);
            if pick.is_some() {
                return pick;
            }
        }
        None
    }

    /// All endpoints that may be picked, from a random place on, but for those that were found not ready a moment ago.
    pub(crate) fn in_any_order(&self, core: &Core) -> impl Iterator<Item = &Entry<K, S>> {
        let start = p2c::one_of(core.draw(), self.entries.len());
        let (before, after) = self.entries.split_at(start);
        after.iter().chain(before).filter(|entry| entry.ready)
    }

    /// Takes a probe's slot, if the one that is looked at has one to give.
    #[cold]
    fn probe(&self, core: &Core, now: &Now, tried: &Tried) -> Option<Pick<'_, K, S>> {
        let entry = &self.probes[p2c::one_of(core.draw(), self.probes.len())];
        let endpoint = &entry.endpoint;
        if tried.contains(endpoint.id) || !endpoint.breaker.as_ref().is_some_and(Breaker::wants_probe) {
            return None;
        }
        entry.begin(now)
    }

    #[inline(always)]
    fn better_of_two(&self, core: &Core, now: &Now, tried: &Tried) -> Option<usize> {
        let n = self.entries.len();
        if n == 0 {
            return None;
        }
        let shares = match &self.turns {
            Turns::Shares(shares) => Some(&shares[..]),
            Turns::Equal | Turns::Cycle(_) => None,
        };
        let (turn, other) = p2c::two_of(core.state(), n, shares);
        if !tried.is_empty() || context::any_tried() {
            return self.better_untried(turn, other, core, now, tried);
        }
        Some(self.better(turn, other, now))
    }

    /// The one whose turn it is, or the other, to which it passes the turn on.
    #[inline(always)]
    fn better(&self, turn: usize, other: usize, now: &Now) -> usize {
        if turn == other {
            return turn;
        }
        let (one, two) = (&self.entries[turn], &self.entries[other]);
        let lighter = f64::from(one.weight.min(two.weight));
        let in_turn = one.endpoint.in_turn(now, lighter * one.per_weight);
        let as_other = two.endpoint.as_other(now, lighter * two.per_weight);
        if p2c::passes_on(in_turn, as_other) {
            one.endpoint.pass_turn_to(&two.endpoint);
            return other;
        }
        turn
    }

    /// The better of two, where some places are out of the question (`tried`) and others, to which an earlier attempt of the
    /// same call went, are a last resort.
    #[cold]
    fn better_untried(&self, turn: usize, other: usize, core: &Core, now: &Now, tried: &Tried) -> Option<usize> {
        match (self.is_fresh(turn, tried), self.is_fresh(other, tried)) {
            (true, true) => Some(self.better(turn, other, now)),
            (true, false) => Some(turn),
            (false, true) => Some(other),
            (false, false) => self.search(p2c::one_of(core.draw(), self.entries.len()), tried),
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "turns wrap")]
    fn next_in_turn(&self, core: &Core, tried: &Tried) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let turn = core.turn() as usize;
        let place = match &self.turns {
            Turns::Cycle(cycle) => cycle[turn % cycle.len()] as usize,
            Turns::Equal | Turns::Shares(_) => turn % self.entries.len(),
        };
        if tried.is_empty() && !context::any_tried() || self.is_fresh(place, tried) {
            return Some(place);
        }
        self.search(place, tried)
    }

    /// The first fresh place from `start` on; without any, the first that is not out of the question.
    fn search(&self, start: usize, tried: &Tried) -> Option<usize> {
        let n = self.entries.len();
        let places = || (start..start + n.min(SEARCHED)).map(|place| place % n);
        places()
            .find(|place| self.is_fresh(*place, tried))
            .or_else(|| places().find(|place| !tried.contains(self.entries[*place].endpoint.id)))
    }

    fn is_fresh(&self, place: usize, tried: &Tried) -> bool {
        let id = self.entries[place].endpoint.id;
        !tried.contains(id) && !context::was_tried(id)
    }
}
