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
    entries: Vec<Arc<Endpoint<K, S>>>,
    /// Endpoints whose breakers wait for a probe; they may be among the entries too.
    probes: Vec<Arc<Endpoint<K, S>>>,
    /// The cycle of a weighted round robin.
    cycle: Option<Vec<u32>>,
    /// When time alone will change something.
    pub(crate) next_change: Option<Instant>,
    /// Why there may be nothing to pick.
    pub(crate) none_because: NoEndpointReason,
}

/// The endpoints that this call has been to and that had no use for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried {
    ids: [Option<EndpointId>; Tried::MOST],
    len: u8,
}

/// How many places a pick looks at beyond the two that it drew, when those are out of the question.
const SEARCHED: usize = 16;

/// How often a pick begins anew when an endpoint was retired under its hands.
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

    fn contains(&self, id: EndpointId) -> bool {
        self.ids.contains(&Some(id))
    }
}

// === impl Snapshot ===

impl<K, S> Snapshot<K, S> {
    pub(crate) fn new(
        entries: Vec<Arc<Endpoint<K, S>>>,
        probes: Vec<Arc<Endpoint<K, S>>>,
        picker: Picker,
        next_change: Option<Instant>,
        is_empty: bool,
    ) -> Self {
        let cycle = match picker {
            Picker::RoundRobin => {
                round_robin::cycle(&entries.iter().map(|endpoint| endpoint.weight).collect::<Vec<_>>())
            }
            Picker::PeakEwma | Picker::InFlight => None,
        };
        let none_because = if is_empty { NoEndpointReason::Empty } else { NoEndpointReason::NoneEligible };
        Self { entries, probes, cycle, next_change, none_because }
    }

    #[cfg(all(test, mainstay_loom))]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Picks an endpoint, not one of `tried`, and begins a call to it.
    #[inline(always)]
    pub(crate) fn pick(&self, core: &Core, now: &Now, tried: &Tried) -> Option<Flight<K, S>> {
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
            let endpoint = &self.entries[place];
            if let Some(flight) = Flight::begin(endpoint, now) {
                context::record_tried(endpoint.id);
                return Some(flight);
            }
        }
        None
    }

    /// Takes a probe's slot, if the one that is looked at has one to give.
    #[cold]
    fn probe(&self, core: &Core, now: &Now, tried: &Tried) -> Option<Flight<K, S>> {
        let endpoint = &self.probes[p2c::one_of(core.draw(), self.probes.len())];
        if tried.contains(endpoint.id) || !endpoint.breaker.as_ref().is_some_and(Breaker::wants_probe) {
            return None;
        }
        let flight = Flight::begin(endpoint, now)?;
        context::record_tried(endpoint.id);
        Some(flight)
    }

    #[inline(always)]
    fn better_of_two(&self, core: &Core, now: &Now, tried: &Tried) -> Option<usize> {
        let n = self.entries.len();
        if n == 0 {
            return None;
        }
        let draw = core.draw();
        let (first, second) = p2c::two_of(draw, n);
        if !tried.is_empty() || context::any_tried() {
            return self.better_untried(first, second, draw, now, tried);
        }
        Some(self.better(first, second, now))
    }

    #[inline(always)]
    fn better(&self, first: usize, second: usize, now: &Now) -> usize {
        if first == second || self.entries[first].load(now) <= self.entries[second].load(now) { first } else { second }
    }

    /// The better of two, where some places are out of the question (`tried`) and others, to which an earlier attempt of the
    /// same call went, are a last resort.
    #[cold]
    fn better_untried(&self, first: usize, second: usize, draw: u64, now: &Now, tried: &Tried) -> Option<usize> {
        match (self.is_fresh(first, tried), self.is_fresh(second, tried)) {
            (true, true) => Some(self.better(first, second, now)),
            (true, false) => Some(first),
            (false, true) => Some(second),
            (false, false) => self.search(p2c::one_of(draw.rotate_left(17), self.entries.len()), tried),
        }
    }

    fn next_in_turn(&self, core: &Core, tried: &Tried) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let turn = core.rotate();
        let place = match &self.cycle {
            None => turn % self.entries.len(),
            Some(cycle) => cycle[turn % cycle.len()] as usize,
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
            .or_else(|| places().find(|place| !tried.contains(self.entries[*place].id)))
    }

    fn is_fresh(&self, place: usize, tried: &Tried) -> bool {
        let id = self.entries[place].id;
        !tried.contains(id) && !context::was_tried(id)
    }
}
