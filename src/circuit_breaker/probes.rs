//! [`Probes`]: the slots of a half-open circuit, and what the probes have shown so far.

use std::time::{Duration, Instant};

use super::config::ProbeRule;
use super::ending::Ending;
use super::unanswered::Seen;
use crate::cores::sliding_window::{Record, WindowCounts};

/// One slot a probe: constant in size, allocated when the breaker is built.
#[derive(Debug)]
pub(super) struct Probes {
    slots: Box<[Slot]>,
    rule: ProbeRule,
    /// The number of slots and the rule of the half-open time that comes next.
    next: (u32, ProbeRule),
    deadline: Duration,
    /// A probe that is out for longer than this is slow; only if that is watched.
    slow_after: Option<Duration>,
    counts: WindowCounts,
    healthy_in_a_row: u32,
    /// The probes that were cut or abandoned since one was answered.
    unanswered: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    /// Given to a probe at this time.
    Taken(Instant),
    /// Its probe has a verdict, and under [`ProbeRule::Rate`] and [`ProbeRule::FirstFailure`] that is all the slot is for.
    Spent,
}

/// What is known once a probe has its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Not enough is known.
    Undecided,
    /// All verdicts are in; the rates decide.
    Complete,
    /// The callee is well.
    Recovered,
    /// The callee is not well.
    Sick,
}

// === impl Probes ===

impl Probes {
    pub(super) fn new(slots: u32, rule: ProbeRule, deadline: Duration, slow_after: Option<Duration>) -> Self {
        let next = (slots, rule);
        let slots = free_slots(slots);
        let (counts, unanswered) = (WindowCounts::default(), Seen::default());
        Self { slots, rule, next, deadline, slow_after, counts, healthy_in_a_row: 0, unanswered }
    }

    /// Begins a half-open time: every slot free, nothing shown.
    pub(super) fn clear(&mut self) {
        let (slots, rule) = self.next;
        self.rule = rule;
        if self.slots.len() == slots as usize {
            self.slots.fill(Slot::Free);
        } else {
            self.slots = free_slots(slots);
        }
        self.counts = WindowCounts::default();
        self.healthy_in_a_row = 0;
        self.unanswered = Seen::default();
    }

    /// Takes other settings: the times from now on, the number and the rule from the next half-open time on, so that the
    /// probes that are out decide what they were sent for.
    pub(super) fn reconfigure(
        &mut self,
        slots: u32,
        rule: ProbeRule,
        deadline: Duration,
        slow_after: Option<Duration>,
    ) {
        self.next = (slots, rule);
        self.deadline = deadline;
        self.slow_after = slow_after;
    }

    /// How many probes this half-open time is for.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Takes a slot: a free one, or that of a probe whose deadline has passed.
    pub(super) fn take(&mut self, now: Instant) -> Option<u32> {
        let index = match self.slots.iter().position(|&slot| slot == Slot::Free) {
            Some(free) => free,
            None => self.slots.iter().position(|slot| self.is_lost(*slot, now))?,
        };
        self.slots[index] = Slot::Taken(now);
        u32::try_from(index).ok()
    }

    /// Whether the probe that took `slot` at `since` still holds it.
    pub(super) fn holds(&self, slot: u32, since: Instant) -> bool {
        self.slots.get(slot as usize) == Some(&Slot::Taken(since))
    }

    /// Gives a slot back without a verdict.
    pub(super) fn release(&mut self, slot: u32) {
        self.slots[slot as usize] = Slot::Free;
    }

    /// Counts a probe without an answer; an answer begins the count again.
    pub(super) fn record_ending(&mut self, ending: Ending) {
        if ending.is_unanswered() {
            self.unanswered.calls = self.unanswered.calls.saturating_add(1);
            self.unanswered.cut = self.unanswered.cut.saturating_add(u32::from(ending == Ending::Cut));
        } else if ending == Ending::Answered {
            self.unanswered = Seen::default();
        }
    }

    /// The probes that were cut or abandoned since one was answered.
    pub(super) fn unanswered(&self) -> Seen {
        self.unanswered
    }

    /// The verdict of the probe in `slot`.
    pub(super) fn judge(&mut self, slot: u32, record: Record) -> Finding {
        self.counts.add(record);
        match self.rule {
            ProbeRule::Rate => {
                self.slots[slot as usize] = Slot::Spent;
                let complete = self.counts.calls == self.slots.len() as u64;
                if complete { Finding::Complete } else { Finding::Undecided }
            }
            ProbeRule::ConsecutiveSuccesses(wanted) => {
                self.slots[slot as usize] = Slot::Free;
                if record.failed || record.slow {
                    return Finding::Sick;
                }
                self.healthy_in_a_row += 1;
                if self.healthy_in_a_row >= wanted { Finding::Recovered } else { Finding::Undecided }
            }
            ProbeRule::FirstFailure => {
                self.slots[slot as usize] = Slot::Spent;
                if record.failed || record.slow {
                    return Finding::Sick;
                }
                let complete = self.counts.calls == self.slots.len() as u64;
                if complete { Finding::Recovered } else { Finding::Undecided }
            }
        }
    }

    /// What the probes have shown so far.
    pub(super) fn counts(&self) -> WindowCounts {
        self.counts
    }

    /// The probes that are out.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Taken(_))).count()
    }

    /// How many slots can be taken `now`.
    pub(super) fn available(&self, now: Instant) -> usize {
        self.slots.iter().filter(|slot| **slot == Slot::Free || self.is_lost(**slot, now)).count()
    }

    /// Until when there is no slot to be had: `None` when there is one, else the first deadline of a probe that is out
    /// (`Some(None)` when that is beyond the end of time).
    pub(super) fn full_until(&self) -> Option<Option<Instant>> {
        if self.slots.contains(&Slot::Free) {
            return None;
        }
        let taken = self.slots.iter().filter_map(|slot| match slot {
            Slot::Taken(since) => Some(*since),
            Slot::Free | Slot::Spent => None,
        });
        Some(taken.min().and_then(|since| since.checked_add(self.patience())))
    }

    /// The slot of a probe that is known to be slow although it is still out.
    pub(super) fn overdue(&self, now: Instant) -> Option<u32> {
        let limit = self.slow_after?;
        let overdue = |slot: &Slot| matches!(slot, Slot::Taken(since) if now.saturating_duration_since(*since) > limit);
        u32::try_from(self.slots.iter().position(overdue)?).ok()
    }

    /// After how long something is known of a probe that is out.
    fn patience(&self) -> Duration {
        let slow = self.slow_after.map_or(Duration::MAX, |limit| limit.saturating_add(Duration::from_nanos(1)));
        self.deadline.min(slow)
    }

    fn is_lost(&self, slot: Slot, now: Instant) -> bool {
        matches!(slot, Slot::Taken(since) if now.saturating_duration_since(since) >= self.deadline)
    }
}

fn free_slots(slots: u32) -> Box<[Slot]> {
    vec![Slot::Free; slots.max(1) as usize].into_boxed_slice()
}
