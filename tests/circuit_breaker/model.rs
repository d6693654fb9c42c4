//! The breaker against a model of it: written from the documentation, naive, with a full log of the calls, and sharing nothing
//! with the library but the names of settings and states.
#![allow(clippy::cast_possible_truncation, reason = "schedules are short")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay::backoff::Jitter;
use mainstay::circuit_breaker::{
    CircuitBreakerConfig, CircuitBreakerHandle, FailuresPerPeriod, OpenTime, Permit, ProbeRule, Ramp, SlowCalls,
    Transition, TransitionReason as Reason, Window,
};
use mainstay::{CircuitState as State, Outcome};
use proptest::prelude::*;

use crate::support::{advance, millis};

// === the model ===

/// A call that is in the window.
#[derive(Clone, Copy)]
struct Entry {
    at: Duration,
    failed: bool,
    slow: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Free,
    /// Of this call, which began then.
    Out(usize, Duration),
    Spent,
}

/// A call that was admitted and has not ended.
struct Running {
    id: usize,
    generation: u32,
    started: Duration,
    is_probe: bool,
    admitted_in: State,
    counted: bool,
}

/// Calls, failures and slow ones.
type Counts = (u64, u64, u64);

/// What the model knows of a change: all but the state before, which is that of the change before.
type Change = (State, State, Reason, Counts, u32, u64, Option<Duration>, Option<Outcome>);

struct Model {
    config: CircuitBreakerConfig,
    now: Duration,
    state: State,
    generation: u32,
    /// Every call that was recorded since all was forgotten last.
    log: Vec<Entry>,
    /// Every verdict on the callee's health, with its time.
    health: Vec<(Duration, bool)>,
    /// Whether each call was answered, if that is known, with its time.
    answers: Vec<(Duration, bool)>,
    /// The same of the probes of this half-open time.
    probe_answers: Vec<bool>,
    running: Vec<Running>,
    ids: usize,
    slots: Vec<Slot>,
    probe_log: Vec<Entry>,
    half_opened: Duration,
    /// When the ramp began, and the step and number of every call that asked.
    ramp: Option<(Duration, Vec<usize>)>,
    opens: u32,
    /// Of an observing breaker: its openings in a row that would have been, and until when it would be open.
    would: Option<(u32, Duration)>,
    would_have: (u64, u64),
    open_until: Option<Duration>,
    cause: Option<Outcome>,
    judged: Counts,
    changes: Vec<Change>,
    /// Successes, refused, failures, ignored, rejected, abandoned.
    ends: [u64; 6],
}

#[derive(Clone, Copy, Debug)]
enum End {
    Recorded(Outcome),
    Failed(Outcome),
    Dropped,
}

fn count<'a>(entries: impl Iterator<Item = &'a Entry>) -> Counts {
    entries.fold((0, 0, 0), |(calls, failures, slow), entry| {
        (calls + 1, failures + u64::from(entry.failed), slow + u64::from(entry.slow))
    })
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The bucket of a moment, of which so many make up `length`.
fn bucket(at: Duration, length: Duration, buckets: u128) -> u128 {
    at.as_nanos() / length.as_nanos().div_ceil(buckets)
}

impl Model {
    fn new(config: CircuitBreakerConfig) -> Self {
        let open_until = (config.initial_state == State::Open).then(|| wait(&config, 1));
        Self {
            now: Duration::ZERO,
            state: config.initial_state,
            generation: 0,
            log: Vec::new(),
            health: Vec::new(),
            answers: Vec::new(),
            probe_answers: Vec::new(),
            running: Vec::new(),
            ids: 0,
            slots: Vec::new(),
            probe_log: Vec::new(),
            half_opened: Duration::ZERO,
            ramp: None,
            opens: u32::from(open_until.is_some()),
            would: None,
            would_have: (0, 0),
            open_until,
            cause: None,
            judged: (0, 0, 0),
            changes: Vec::new(),
            ends: [0; 6],
            config,
        }
    }

    // --- what there is to see ---

    fn window(&self) -> Counts {
        if self.config.failure_rate.is_none() && self.config.slow_calls.is_none() {
            return (0, 0, 0);
        }
        match self.config.window {
            Window::Count { calls } => count(self.log.iter().rev().take(calls as usize)),
            Window::Time { length } => {
                let now = bucket(self.now, length, 10);
                count(self.log.iter().filter(|entry| bucket(entry.at, length, 10) + 10 > now))
            }
            _ => unreachable!(),
        }
    }

    /// The calls without an answer in a window without an answer.
    fn unanswered(&self) -> u64 {
        if self.state == State::HalfOpen && self.ramp.is_none() {
            return self.probe_answers.iter().rev().take_while(|answered| !**answered).count() as u64;
        }
        let uses_rates = self.config.failure_rate.is_some() || self.config.slow_calls.is_some();
        let newest = self.answers.iter().rev();
        let (calls, has_answer) = match self.config.window {
            Window::Time { length } if uses_rates => {
                let now = bucket(self.now, length, 10);
                let inside: Vec<_> = newest.take_while(|(at, _)| bucket(*at, length, 10) + 10 > now).collect();
                (inside.len(), inside.iter().any(|(_, answered)| *answered))
            }
            window => {
                let size = if let Window::Count { calls } = window { calls as usize } else { 0 };
                let has_answer = newest.clone().take(size).any(|(_, answered)| *answered);
                (newest.take_while(|(_, answered)| !answered).count(), has_answer)
            }
        };
        if has_answer { 0 } else { calls as u64 }
    }

    fn counts(&self) -> Counts {
        match self.state {
            State::Open => self.judged,
            State::HalfOpen if self.ramp.is_none() => count(self.probe_log.iter()),
            _ => self.window(),
        }
    }

    fn consecutive_failures(&self) -> u32 {
        self.health.iter().rev().take_while(|(_, healthy)| !healthy).count() as u32
    }

    fn period_failures(&self) -> u64 {
        let Some(FailuresPerPeriod { period, .. }) = self.config.failures_per_period else { return 0 };
        let now = bucket(self.now, period, 10);
        self.health.iter().filter(|(at, healthy)| !healthy && bucket(*at, period, 10) + 10 > now).count() as u64
    }

    fn minimum(&self) -> u32 {
        match self.state {
            State::Open => 1,
            State::HalfOpen if self.ramp.is_none() => self.config.probes,
            State::HalfOpen => self.config.probes.min(self.config.minimum_calls),
            _ => self.config.minimum_calls,
        }
    }

    fn ramp_share(&self) -> Option<f64> {
        let (since, _) = self.ramp.as_ref()?;
        let Ramp { shares, step } = self.config.ramp.as_ref()?;
        let passed = ((self.now - *since).as_nanos() / step.as_nanos()) as usize;
        Some(shares.get(passed).copied().unwrap_or(1.0))
    }

    fn half_open_end(&self) -> Option<Duration> {
        self.config.half_open_max.map(|most| self.half_opened + most)
    }

    fn slow_limit(&self) -> Duration {
        self.config.slow_calls.map_or(Duration::MAX, |slow| slow.longer_than)
    }

    /// Until when nobody gets in, if nobody does: `Some(None)` without an end.
    fn shut_until(&self) -> Option<Option<Duration>> {
        match self.state {
            State::ForcedOpen => Some(None),
            State::Open => self.open_until.filter(|until| *until > self.now).map(Some),
            State::HalfOpen if self.ramp.is_none() => {
                if self.slots.contains(&Slot::Free) {
                    return None;
                }
                let patience = match self.config.watch_in_flight {
                    true => self.config.probe_deadline.min(self.slow_limit() + Duration::from_nanos(1)),
                    false => self.config.probe_deadline,
                };
                let out = |slot: &Slot| if let Slot::Out(_, since) = slot { Some(*since + patience) } else { None };
                let free = self.slots.iter().filter_map(out).min();
                let until = free.into_iter().chain(self.half_open_end()).min()?;
                (until > self.now).then_some(Some(until))
            }
            _ => None,
        }
    }

    // --- changes ---

    fn forget(&mut self) {
        self.log.clear();
        self.health.clear();
        self.answers.clear();
    }

    fn go(&mut self, to: State, reason: Reason, counts: Counts, open_for: Option<Duration>, cause: Option<Outcome>) {
        let (in_a_row, in_period) = (self.consecutive_failures(), self.period_failures());
        self.changes.push((self.state, to, reason, counts, in_a_row, in_period, open_for, cause));
        self.state = to;
        self.generation += 1;
        self.ramp = None;
        self.would = None;
        match to {
            State::HalfOpen => {
                self.slots = vec![Slot::Free; self.config.probes as usize];
                self.probe_log.clear();
                self.probe_answers.clear();
                self.half_opened = self.now;
            }
            State::Open => {
                self.opens += 1;
                self.open_until = open_for.map(|wait| self.now + wait);
                if reason != Reason::HalfOpenTimeOver {
                    self.cause = cause;
                }
                self.judged = counts;
                self.forget();
            }
            _ => {
                self.forget();
                (self.opens, self.open_until, self.cause) = (0, None, None);
            }
        }
        if to != State::HalfOpen {
            self.slots.clear();
        }
    }

    fn open(&mut self, reason: Reason, counts: Counts, cause: Option<Outcome>) {
        if self.state == State::Observing {
            let opens = self.would.map_or(0, |(opens, _)| opens) + 1;
            self.would_open(opens, wait(&self.config, opens));
            return;
        }
        let wait = wait(&self.config, self.opens + 1);
        self.go(State::Open, reason, counts, Some(wait), cause);
    }

    fn would_open(&mut self, opens: u32, wait: Duration) {
        self.would = Some((opens, self.now + wait));
        self.would_have.0 += 1;
    }

    fn rate_tripped(&self, (calls, failures, slow): Counts, failure_rate: Option<f64>) -> Option<Reason> {
        if failures > 0 && failure_rate.is_some_and(|rate| share(failures, calls) >= rate) {
            return Some(Reason::FailureRate);
        }
        let rate = self.config.slow_calls?.rate;
        (slow > 0 && share(slow, calls) >= rate).then_some(Reason::SlowCallRate)
    }

    fn tripped(&self) -> Option<Reason> {
        if self.config.consecutive_failures.is_some_and(|limit| self.consecutive_failures() >= limit) {
            return Some(Reason::ConsecutiveFailures);
        }
        if self.config.failures_per_period.is_some_and(|limit| self.period_failures() >= u64::from(limit.failures)) {
            return Some(Reason::FailuresPerPeriod);
        }
        let counts = self.window();
        if counts.0 < u64::from(self.minimum()) {
            return None;
        }
        self.rate_tripped(counts, self.config.failure_rate)
    }

    fn judges_calls(&self) -> bool {
        matches!(self.state, State::Closed | State::Observing) || self.ramp.is_some()
    }

    /// Counts who is slow although it runs; whether calls were.
    fn look_at_running(&mut self) -> bool {
        if !self.config.watch_in_flight {
            return false;
        }
        let limit = self.slow_limit();
        if self.state == State::HalfOpen && self.ramp.is_none() {
            if self.half_open_end().is_some_and(|end| self.now >= end) {
                return false;
            }
            for slot in 0..self.slots.len() {
                let generation = self.generation;
                if let Some(Slot::Out(_, since)) = self.slots.get(slot).copied()
                    && self.now - since > limit
                {
                    self.judge_probe(slot, Entry { at: self.now, failed: false, slow: true }, None);
                    if self.generation != generation {
                        return false;
                    }
                }
            }
            return false;
        }
        let mut any = false;
        let (now, generation) = (bucket(self.now, limit, 8), self.generation);
        let entry = Entry { at: self.now, failed: false, slow: true };
        for call in &mut self.running {
            let is_watched = call.generation == generation && !call.is_probe && call.admitted_in != State::Disabled;
            if is_watched && !call.counted && now - bucket(call.started, limit, 8) >= 9 {
                call.counted = true;
                self.log.push(entry);
                any = true;
            }
        }
        any
    }

    fn judge_probe(&mut self, slot: usize, entry: Entry, cause: Option<Outcome>) {
        self.probe_log.push(entry);
        let bad = entry.failed || entry.slow;
        let mut sick = None;
        let all = |model: &Self| model.probe_log.len() == model.config.probes as usize;
        match self.config.probe_rule {
            ProbeRule::Rate => {
                self.slots[slot] = Slot::Spent;
                if all(self) {
                    let counts = count(self.probe_log.iter());
                    sick = Some(self.rate_tripped(counts, self.config.failure_rate.or(Some(0.0))).is_some());
                }
            }
            ProbeRule::FirstFailure => {
                self.slots[slot] = Slot::Spent;
                if bad || all(self) {
                    sick = Some(bad);
                }
            }
            ProbeRule::ConsecutiveSuccesses(wanted) => {
                self.slots[slot] = Slot::Free;
                if bad || self.probe_log.len() == wanted as usize {
                    sick = Some(bad);
                }
            }
            _ => unreachable!(),
        }
        let counts = count(self.probe_log.iter());
        match sick {
            None => {}
            Some(true) => self.open(Reason::ProbesFailed, counts, cause),
            Some(false) if self.config.ramp.is_some() => {
                self.generation += 1;
                self.ramp = Some((self.now, Vec::new()));
                self.answers.push((self.now, true));
                self.slots.clear();
            }
            Some(false) => self.go(State::Closed, Reason::ProbesSucceeded, counts, None, cause),
        }
    }

    // --- what is done to it ---

    /// A call asks: its number, or state, wait and cause of the refusal.
    fn ask(&mut self) -> Result<usize, (State, Option<Duration>, Option<Outcome>)> {
        let before = self.generation;
        if self.look_at_running()
            && self.judges_calls()
            && self.would.is_none()
            && let Some(reason) = self.tripped()
        {
            self.open(reason, self.window(), None);
        }
        let just_opened = self.generation != before && self.state == State::Open;
        let mut probe = None;
        let admitted = match self.state {
            State::ForcedOpen => false,
            State::Closed | State::Disabled | State::Observing => true,
            State::Open if just_opened || self.open_until.is_none_or(|until| until > self.now) => false,
            State::Open => {
                self.go(State::HalfOpen, Reason::OpenTimeOver, self.judged, None, None);
                probe = self.free_slot();
                probe.is_some()
            }
            State::HalfOpen if self.ramp.is_some() => self.admitted_on_ramp(),
            State::HalfOpen
                if self.half_open_end().is_some_and(|end| self.now >= end) && self.probes_are_in_doubt() =>
            {
                self.open(Reason::HalfOpenTimeOver, count(self.probe_log.iter()), None);
                false
            }
            State::HalfOpen => {
                if self.half_open_end().is_some_and(|end| self.now >= end) {
                    self.half_opened = self.now;
                }
                probe = self.free_slot();
                probe.is_some()
            }
            _ => unreachable!(),
        };
        if !admitted {
            self.ends[4] += 1;
            // Open for no time at all, it would not reject the next.
            let until = self.shut_until().unwrap_or(Some(self.now)).filter(|_| self.state == State::Open);
            return Err((self.state, until.map(|until| until - self.now), self.cause));
        }
        if self.would.is_some_and(|(_, until)| until > self.now) {
            self.would_have.1 += 1;
        }
        self.ids += 1;
        if let Some(slot) = probe {
            self.slots[slot] = Slot::Out(self.ids, self.now);
        }
        let (generation, started, is_probe) = (self.generation, self.now, probe.is_some());
        let (id, admitted_in) = (self.ids, self.state);
        self.running.push(Running { id, generation, started, is_probe, admitted_in, counted: false });
        Ok(id)
    }

    fn probes_are_in_doubt(&self) -> bool {
        let is_out = self.slots.iter().any(|slot| matches!(slot, Slot::Out(..)));
        is_out || self.probe_log.iter().any(|entry| entry.failed || entry.slow)
    }

    fn free_slot(&self) -> Option<usize> {
        let lost = |slot: &Slot| matches!(slot, Slot::Out(_, since) if self.now - *since >= self.config.probe_deadline);
        self.slots.iter().position(|slot| *slot == Slot::Free).or_else(|| self.slots.iter().position(lost))
    }

    fn admitted_on_ramp(&mut self) -> bool {
        let Ramp { shares, step } = self.config.ramp.clone().unwrap();
        let (since, asked) = self.ramp.as_mut().unwrap();
        let at = ((self.now - *since).as_nanos() / step.as_nanos()) as usize;
        let Some(share) = shares.get(at) else {
            self.go(State::Closed, Reason::RampOver, self.window(), None, None);
            return true;
        };
        // Of the calls before this one in the step, so many were let in; and now one more?
        let percent = (share * 100.0).round() as usize;
        let nth = asked.iter().filter(|step| **step == at).count();
        asked.push(at);
        nth == 0 || nth * percent / 100 > (nth - 1) * percent / 100
    }

    fn end(&mut self, id: usize, end: End) {
        let index = self.running.iter().position(|call| call.id == id).unwrap();
        let call = self.running.remove(index);
        if call.admitted_in == State::Disabled {
            return;
        }
        use Outcome::{DependencyFailed, Ignored, NotSent, Permanent, Refused, Success, Throttled, Transient};
        let (account, health, outcome) = match end {
            End::Failed(outcome) => (2, Some(false), outcome),
            End::Dropped => (5, self.config.abandoned_is_failure.then_some(false), Ignored),
            End::Recorded(outcome) => {
                let (account, health) = match outcome {
                    Success => (0, Some(true)),
                    Refused | DependencyFailed => (1, Some(true)),
                    Transient | NotSent | Permanent => (2, Some(false)),
                    Throttled { .. } if self.config.throttled_is_failure => (2, Some(false)),
                    _ => (3, None),
                };
                (account, health, outcome)
            }
        };
        self.ends[account] += 1;
        if call.generation != self.generation {
            return;
        }
        let slow = self.now - call.started > self.slow_limit();
        let answered = match end {
            End::Dropped => Some(false),
            End::Recorded(Ignored) => None,
            End::Recorded(_) | End::Failed(_) => Some(true),
        };
        let entry = (health.is_some() || slow).then_some(Entry { at: self.now, failed: health == Some(false), slow });
        let asked_to_wait = match (outcome, self.config.throttled_opens) {
            (Throttled { retry_after: Some(after) }, Some(most)) if !after.is_zero() => Some(after.min(most)),
            _ => None,
        };
        if call.is_probe {
            self.end_probe(id, entry, outcome, answered, asked_to_wait);
            return;
        }
        let others = self.look_at_running();
        let shown = entry;
        let entry = entry.filter(|_| !call.counted);
        self.health.extend(health.map(|healthy| (self.now, healthy)));
        self.log.extend(entry);
        self.answers.extend(answered.map(|answered| (self.now, answered)));
        if !self.judges_calls() {
            return;
        }
        if let Some((_, until)) = self.would {
            match shown.filter(|_| until <= self.now) {
                None => {}
                Some(entry) if entry.failed || entry.slow => self.open(Reason::ProbesFailed, (0, 0, 0), None),
                Some(_) => {
                    self.would = None;
                    self.forget();
                }
            }
            return;
        }
        let judged = entry.is_some() || health.is_some();
        if let Some(wait) = asked_to_wait.filter(|_| self.state == State::Observing) {
            self.would_open(1, wait);
        } else if let Some(wait) = asked_to_wait {
            self.go(State::Open, Reason::Throttled, self.window(), Some(wait), Some(outcome));
        } else if (judged || others)
            && let Some(reason) = self.tripped()
        {
            self.open(reason, self.window(), judged.then_some(outcome));
        } else {
            self.look_at_unanswered(answered, outcome, self.config.minimum_calls);
        }
    }

    fn look_at_unanswered(&mut self, answered: Option<bool>, outcome: Outcome, minimum: u32) {
        let calls = self.unanswered();
        if answered == Some(false) && calls >= u64::from(minimum) {
            self.open(Reason::Unanswered, (calls, 0, 0), Some(outcome));
        }
    }

    fn end_probe(
        &mut self,
        id: usize,
        entry: Option<Entry>,
        outcome: Outcome,
        answered: Option<bool>,
        asked_to_wait: Option<Duration>,
    ) {
        let holds = |slot: &Slot| matches!(slot, Slot::Out(of, _) if *of == id);
        let Some(slot) = self.slots.iter().position(holds) else { return };
        if self.half_open_end().is_some_and(|end| self.now >= end) {
            self.open(Reason::HalfOpenTimeOver, count(self.probe_log.iter()), None);
            return;
        }
        let generation = self.generation;
        match (asked_to_wait, entry) {
            (Some(wait), _) => {
                self.go(State::Open, Reason::Throttled, count(self.probe_log.iter()), Some(wait), Some(outcome));
            }
            (None, None) => {
                self.slots[slot] = Slot::Free;
                self.probe_answers.extend(answered);
                self.look_at_unanswered(answered, outcome, self.config.minimum_calls.max(self.config.probes));
            }
            (None, Some(entry)) => {
                self.probe_answers.extend(answered);
                self.judge_probe(slot, entry, Some(outcome));
            }
        }
        if self.generation == generation {
            self.look_at_running();
        }
    }

    /// Whether an operator may.
    fn set(&mut self, to: State, open_for: Option<Duration>) -> bool {
        use State::{Disabled, ForcedOpen, HalfOpen, Observing, Open};
        if self.state == to {
            if let (Open, Some(wait)) = (to, open_for) {
                self.open_until = Some(self.now + wait);
            }
            return true;
        }
        match to {
            HalfOpen if !matches!(self.state, Open | ForcedOpen) => return false,
            Open if matches!(self.state, Disabled | Observing) => return false,
            Open if open_for.is_none() => self.open(Reason::Operator, self.counts(), None),
            _ => self.go(to, Reason::Operator, self.counts(), open_for, None),
        }
        true
    }

    fn reset(&mut self) {
        if self.state == State::Closed {
            self.generation += 1;
            self.forget();
        } else {
            self.go(State::Closed, Reason::Operator, self.counts(), None, None);
        }
    }
}

fn wait(config: &CircuitBreakerConfig, opens: u32) -> Duration {
    match config.open_time {
        OpenTime::Constant(wait) => wait,
        OpenTime::Exponential { initial, max, .. } => (1..opens).fold(initial, |wait, _| (wait * 2).min(max)),
        _ => unreachable!(),
    }
}

// === schedules ===

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    /// The call that was admitted so many before the last, of those that run.
    End(usize, End),
    Wait(u64),
    Set(State),
    OpenFor(u64),
    Reset,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        8 => Just(Outcome::Success),
        5 => Just(Outcome::Transient),
        1 => Just(Outcome::NotSent),
        1 => Just(Outcome::Permanent),
        1 => Just(Outcome::Refused),
        1 => Just(Outcome::DependencyFailed),
        1 => Just(Outcome::Ignored),
        1 => Just(Outcome::Throttled { retry_after: None }),
        1 => (0_u64..2_000).prop_map(|after| Outcome::throttled(millis(after))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        12 => outcome().prop_map(End::Recorded),
        1 => outcome().prop_map(End::Failed),
        2 => Just(End::Dropped),
    ];
    prop_oneof![
        24 => Just(Step::Ask),
        20 => (0_usize..4, end).prop_map(|(ago, end)| Step::End(ago, end)),
        6 => (0_u64..400).prop_map(Step::Wait),
        3 => (0_u64..3_000).prop_map(Step::Wait),
        1 => prop::sample::select(State::ALL.to_vec()).prop_map(Step::Set),
        1 => prop::sample::select(vec![State::Closed, State::Open, State::HalfOpen]).prop_map(Step::Set),
        1 => (0_u64..2_000).prop_map(Step::OpenFor),
        1 => Just(Step::Reset),
    ]
}

fn configs() -> impl Strategy<Value = CircuitBreakerConfig> {
    let window = prop_oneof![
        (1_u32..12).prop_map(|calls| Window::Count { calls }),
        (1_u64..300).prop_map(|tens| Window::Time { length: millis(10 * tens) }),
    ];
    let rules = (
        prop::option::weighted(0.8, prop::sample::select(vec![0.25, 0.5, 0.6, 1.0])),
        prop::option::of((1_u64..80, prop::sample::select(vec![0.3, 0.5, 1.0]))),
        prop::option::of(1_u32..5),
        prop::option::of((1_u32..5, 1_u64..300)),
        any::<bool>(),
        1_u32..5,
    );
    let rule = prop_oneof![
        Just(ProbeRule::Rate),
        Just(ProbeRule::FirstFailure),
        (1_u32..4).prop_map(ProbeRule::ConsecutiveSuccesses),
    ];
    let ramp = prop::option::of((prop::sample::subsequence(vec![10, 25, 40, 50, 75, 90], 1..4), 1_u64..1_500));
    let half_open = (rule, 1_u32..4, 1_u64..2_500, prop::option::of(1_u64..3_000), ramp);
    let open_time = prop_oneof![
        (0_u64..1_500).prop_map(|wait| OpenTime::Constant(millis(wait))),
        (1_u64..500, 500_u64..3_000).prop_map(|(initial, max)| {
            let (initial, max) = (millis(initial), millis(max));
            OpenTime::Exponential { initial, factor: 2.0, max, jitter: Jitter::None }
        }),
    ];
    let states = vec![State::Closed, State::Closed, State::Closed, State::Open, State::Observing, State::Disabled];
    let verdicts = (any::<(bool, bool)>(), prop::option::of(1_u64..1_500), prop::sample::select(states));
    (window, rules, half_open, open_time, verdicts).prop_map(|(window, rules, half_open, open_time, verdicts)| {
        let (failure_rate, slow, consecutive_failures, per_period, watched, minimum_calls) = rules;
        let (probe_rule, probes, probe_deadline, half_open_max, ramp) = half_open;
        let ((abandoned, throttled), throttled_opens, initial_state) = verdicts;
        let mut config = CircuitBreakerConfig::default();
        config.window = window;
        config.failure_rate = failure_rate;
        // In eighths of whole milliseconds.
        config.slow_calls = slow.map(|(eighths, rate)| SlowCalls { longer_than: millis(8 * eighths), rate });
        config.watch_in_flight = watched && slow.is_some();
        config.consecutive_failures = consecutive_failures;
        config.failures_per_period =
            per_period.map(|(failures, tens)| FailuresPerPeriod { failures, period: millis(10 * tens) });
        config.minimum_calls = match window {
            Window::Count { calls } => minimum_calls.min(calls),
            _ => minimum_calls,
        };
        if config.failure_rate.is_none() && config.slow_calls.is_none() && config.failures_per_period.is_none() {
            config.consecutive_failures = Some(consecutive_failures.unwrap_or(2));
        }
        config.open_time = open_time;
        config.probe_rule = probe_rule;
        config.probes = probes;
        config.probe_deadline = millis(probe_deadline);
        config.half_open_max = half_open_max.map(millis);
        config.ramp = ramp.map(|(percents, step)| {
            let shares = percents.into_iter().map(|percent| f64::from(percent) / 100.0).collect();
            Ramp { shares, step: millis(step) }
        });
        config.abandoned_is_failure = abandoned;
        config.throttled_is_failure = throttled;
        config.throttled_opens = throttled_opens.map(millis);
        config.initial_state = initial_state;
        config
    })
}

fn known(change: &Transition) -> Change {
    let counts = (change.calls, change.failures, change.slow_calls);
    let (in_a_row, in_period) = (change.consecutive_failures, change.period_failures);
    (change.from, change.to, change.reason, counts, in_a_row, in_period, change.open_for, change.cause)
}

fn agrees(breaker: &CircuitBreakerHandle, model: &Model) -> Result<(), TestCaseError> {
    let now = breaker.statistics();
    prop_assert_eq!(now.state, model.state);
    prop_assert_eq!((now.window_calls, now.window_failures, now.window_slow_calls), model.counts());
    prop_assert_eq!(now.consecutive_failures, model.consecutive_failures());
    prop_assert_eq!(now.period_failures, model.period_failures());
    prop_assert_eq!((now.would_have_opened, now.would_have_rejected), model.would_have);
    prop_assert_eq!(now.window_unanswered, model.unanswered());
    prop_assert_eq!(now.consecutive_opens, model.opens);
    prop_assert_eq!(now.ramp_share, model.ramp_share());
    let out = model.slots.iter().filter(|slot| matches!(slot, Slot::Out(..))).count();
    prop_assert_eq!(now.probes_in_flight, out);
    prop_assert_eq!([now.successes, now.refused, now.failures, now.ignored, now.rejected, now.abandoned], model.ends);
    let open_until = model.shut_until().flatten().filter(|_| model.state == State::Open);
    prop_assert_eq!(now.retry_after, open_until.map(|until| until - model.now));
    let (calls, failures, slow) = model.counts();
    let rates = (calls >= u64::from(model.minimum())).then(|| (share(failures, calls), share(slow, calls)));
    prop_assert_eq!(now.failure_rate.zip(now.slow_call_rate), rates);
    Ok(())
}

async fn follow(config: CircuitBreakerConfig, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let breaker = CircuitBreakerHandle::builder("model")
        .config(config.clone())
        .on_transition(move |change| log.lock().unwrap().push(known(change)))
        .build_handle()
        .unwrap();
    let mut model = Model::new(config);
    let mut permits: Vec<(usize, Permit)> = Vec::new();
    for step in steps {
        match step {
            Step::Ask => match (breaker.try_acquire(), model.ask()) {
                (Ok(permit), Ok(id)) => {
                    prop_assert_eq!(permit.is_probe(), model.running.last().unwrap().is_probe);
                    permits.push((id, permit));
                }
                (Err(open), Err(refusal)) => {
                    prop_assert_eq!((open.state(), open.retry_after(), open.cause()), refusal);
                }
                (real, expected) => prop_assert!(false, "{real:?}, {expected:?} in the model"),
            },
            Step::End(ago, end) => {
                let Some(index) = permits.len().checked_sub(ago + 1) else { continue };
                let (id, permit) = permits.remove(index);
                model.end(id, end);
                match end {
                    End::Recorded(outcome) => permit.record(outcome),
                    End::Failed(outcome) => permit.failure(outcome),
                    End::Dropped => drop(permit),
                }
            }
            Step::Wait(time) => {
                model.now += millis(time);
                advance(millis(time)).await;
            }
            Step::Set(state) => {
                let allowed = model.set(state, None);
                prop_assert_eq!(breaker.transition_to(state).is_ok(), allowed);
            }
            Step::OpenFor(time) => {
                let allowed = model.set(State::Open, Some(millis(time)));
                prop_assert_eq!(breaker.open_for(millis(time)).is_ok(), allowed);
            }
            Step::Reset => {
                model.reset();
                breaker.reset();
            }
        }
        prop_assert_eq!(&*seen.lock().unwrap(), &model.changes);
        agrees(&breaker, &model)?;
    }
    // Whatever has happened, time alone brings a circuit that nobody forced back to admitting calls.
    drop(permits);
    if breaker.state() != State::ForcedOpen {
        for _ in 0..3 {
            advance(millis(10_000)).await;
            if let Ok(permit) = breaker.try_acquire() {
                permit.success();
                return Ok(());
            }
        }
        prop_assert!(false, "it is stuck: {:?}", breaker.statistics());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_breaker_does_what_the_model_does(
        config in configs(),
        steps in prop::collection::vec(step(), 0..150),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(follow(config, steps))?;
    }
}
