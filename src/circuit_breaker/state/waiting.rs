//! What the machine is to calls that wait for it.

use super::*;
use crate::circuit_breaker::wait_queue::Room;

impl Machine {
    /// Brings about what time alone has changed by `now`, as a call that asks would.
    pub(in crate::circuit_breaker) fn pass_time(&mut self, now: Instant) -> Option<Transition> {
        if let Some(change) = self.look_at_running(now) {
            return Some(change);
        }
        match self.state {
            CircuitState::Open => self.open_time_over(now),
            CircuitState::HalfOpen if self.climb.is_none() => self.half_open_too_long(now),
            _ => None,
        }
    }

    /// For how many calls there is room `now`.
    pub(in crate::circuit_breaker) fn room(&self, now: Instant) -> Room {
        match self.state {
            CircuitState::Open => Room::Slots(0),
            CircuitState::HalfOpen if self.climb.is_some() => Room::Earned,
            CircuitState::HalfOpen => Room::Slots(self.probes.available(now)),
            // Calls flow; and one that an operator has forced open is not worth waiting for.
            CircuitState::Closed | CircuitState::ForcedOpen | CircuitState::Disabled | CircuitState::Observing => {
                Room::NoQueue
            }
        }
    }

    /// When time alone changes something next, as far as that is known.
    pub(in crate::circuit_breaker) fn due(&self, now: Instant) -> Option<Instant> {
        match (self.state, &self.climb, &self.config.ramp) {
            (CircuitState::HalfOpen, Some(climb), Some(ramp)) => climb.step_ends(ramp, now),
            (CircuitState::Open, ..) => self.open_until,
            (CircuitState::HalfOpen, None, _) => earlier(self.probes.full_until().flatten(), self.half_open_until()),
            _ => None,
        }
    }

    /// Whether the circuit is half-open on a ramp.
    pub(in crate::circuit_breaker) fn is_on_ramp(&self) -> bool {
        self.state == CircuitState::HalfOpen && self.climb.is_some()
    }

    /// Asks the ramp for one call. Whether it is admitted, and the change if the ramp is over.
    pub(in crate::circuit_breaker) fn ask_ramp(&mut self, now: Instant) -> (bool, Option<Transition>) {
        let (admission, change) = self.admit_on_ramp(now);
        (admission == Admission::Call, change)
    }

    /// Admits a call that the ramp has admitted before.
    pub(in crate::circuit_breaker) fn admit_earned(&mut self, now: Instant) -> (Admission, Option<Transition>) {
        let found = self.look_at_running(now);
        if self.state == CircuitState::Open {
            return (Admission::Refused, found);
        }
        if let Some(in_flight) = self.in_flight() {
            in_flight.begin(now);
        }
        (Admission::Call, found)
    }
}
