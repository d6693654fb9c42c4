//! The schedule of disasters: what goes wrong when, and when it is well again.

use std::time::Duration;

use crate::faults::Fault;

/// The server that most disasters happen to.
pub(crate) const VICTIM: &str = "app-2";

/// The one that is added under load.
pub(crate) const NEW: &str = "app-4";

/// The one that is drained under load.
pub(crate) const OLD: &str = "app-1";

/// `--full` asks for so many requests in each phase.
const FULL: f64 = 10_000.0;

/// A phase of the run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) length: Duration,
    /// What happens how long after the phase has begun, in order.
    pub(crate) steps: Vec<(Duration, Step)>,
}

/// Something that is done to the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// SIGKILL: no warning, no drain, connections reset.
    Kill(&'static str),
    /// Again, on the same address.
    Restart(&'static str),
    /// SIGSTOP: the kernel accepts for it, and nothing is ever answered.
    Freeze(&'static str),
    Thaw(&'static str),
    /// One server, from inside.
    Fault(&'static str, Fault),
    /// All servers, from inside.
    FaultAll(Fault),
    EmptyCaches,
    Add(&'static str),
    /// SIGTERM's orderly end, under load.
    Drain(&'static str),
    /// Twice what the flow can do.
    Burst,
    /// The planned rate again.
    Calm,
}

// === impl Step ===

impl Step {
    /// What it is, for whoever watches.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Kill(part) => format!("{part} killed with SIGKILL"),
            Self::Restart(part) => format!("{part} restarted on the same address"),
            Self::Freeze(part) => format!("{part} frozen with SIGSTOP: it accepts, and never answers"),
            Self::Thaw(part) => format!("{part} thawed"),
            Self::Fault(part, Fault::None) => format!("{part} well again"),
            Self::Fault(part, Fault::Slow(time)) => format!("{part} answers {} ms later", time.as_millis()),
            Self::Fault(part, Fault::FailHalf) => format!("{part} answers every second request with a 500"),
            Self::Fault(part, fault) => format!("{part}: {fault:?}"),
            Self::FaultAll(Fault::CacheFails) => "every cache fails whatever it is asked".into(),
            Self::FaultAll(Fault::CacheHangs) => "every cache hangs whatever it is asked".into(),
            Self::FaultAll(_) => "all servers well again".into(),
            Self::EmptyCaches => "every cache emptied at once".into(),
            Self::Add(part) => format!("{part} added"),
            Self::Drain(part) => format!("{part} told to end: it drains"),
            Self::Burst => "twice as many requests as the flow can answer".into(),
            Self::Calm => "no more than before".into(),
        }
    }
}

/// All phases, at the lengths of a smoke run; `full` makes each long enough for ten thousand requests at `rate`.
pub(crate) fn schedule(rate: u32, full: bool) -> Vec<Plan> {
    let mut phases = smoke();
    if full {
        for phase in &mut phases {
            phase.stretch(Duration::from_secs_f64(FULL / f64::from(rate)));
        }
    }
    phases
}

/// The names of all phases, in their order.
pub(crate) fn names() -> Vec<&'static str> {
    smoke().iter().map(|phase| phase.name).collect()
}

fn smoke() -> Vec<Plan> {
    let slow = Fault::Slow(Duration::from_millis(200));
    let plan = |name, millis, steps: &[(u64, Step)]| Plan {
        name,
        length: Duration::from_millis(millis),
        steps: steps.iter().map(|(at, step)| (Duration::from_millis(*at), *step)).collect(),
    };
    // Nothing happens in the first moments of a phase: what was asked before it is answered by then.
    vec![
        plan("steady", 1500, &[]),
        plan("server-killed", 2500, &[(100, Step::Kill(VICTIM)), (1200, Step::Restart(VICTIM))]),
        plan("server-frozen", 2800, &[(100, Step::Freeze(VICTIM)), (1500, Step::Thaw(VICTIM))]),
        plan("server-slow", 2000, &[(100, Step::Fault(VICTIM, slow)), (1200, Step::Fault(VICTIM, Fault::None))]),
        plan(
            "server-failing",
            3200,
            &[(100, Step::Fault(VICTIM, Fault::FailHalf)), (1400, Step::Fault(VICTIM, Fault::None))],
        ),
        plan("database-stalled", 3000, &[(250, Step::Freeze("database")), (2250, Step::Thaw("database"))]),
        plan("cache-failing", 900, &[(0, Step::FaultAll(Fault::CacheFails))]),
        plan("cache-hanging", 900, &[(0, Step::FaultAll(Fault::CacheHangs))]),
        plan("cache-empty", 900, &[(0, Step::FaultAll(Fault::None)), (0, Step::EmptyCaches)]),
        plan("scaling", 2000, &[(0, Step::Add(NEW)), (900, Step::Drain(OLD))]),
        plan("database-killed", 2000, &[(250, Step::Kill("database")), (550, Step::Restart("database"))]),
        plan("burst", 1800, &[(100, Step::Burst), (1400, Step::Calm)]),
        plan("recovered", 1000, &[]),
    ]
}

// === impl Plan ===

impl Plan {
    /// Makes this phase at least so long; what goes wrong goes wrong for as much longer, but for the database's stall, which
    /// is 2 s by definition.
    fn stretch(&mut self, length: Duration) {
        let factor = length.as_secs_f64() / self.length.as_secs_f64();
        if factor <= 1.0 {
            return;
        }
        self.length = length;
        if !self.steps.iter().any(|(_, step)| matches!(step, Step::Freeze("database") | Step::Kill("database"))) {
            for (at, _) in &mut self.steps {
                *at = at.mul_f64(factor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smoke_run_of_three_flows_fits_into_its_time() {
        let total: Duration = schedule(300, false).iter().map(|phase| phase.length).sum();
        assert!(total * 3 <= Duration::from_secs(75), "{total:?}");
    }

    #[test]
    fn a_full_run_has_ten_thousand_requests_a_phase_and_the_same_stall() {
        for phase in schedule(1000, true) {
            assert!(phase.length >= Duration::from_secs(10), "{}", phase.name);
            assert!(phase.steps.iter().all(|(at, _)| *at < phase.length), "{}", phase.name);
            if phase.name == "database-stalled" {
                assert_eq!(phase.steps[1].0 - phase.steps[0].0, Duration::from_secs(2));
            }
        }
    }

    #[test]
    fn what_goes_wrong_is_well_again_before_the_next_phase_but_for_the_caches() {
        for phase in smoke() {
            let ends = |step: &Step| match step {
                Step::Kill(part) => Some(Step::Restart(part)),
                Step::Freeze(part) => Some(Step::Thaw(part)),
                Step::Fault(part, fault) if *fault != Fault::None => Some(Step::Fault(part, Fault::None)),
                _ => None,
            };
            for end in phase.steps.iter().filter_map(|(_, step)| ends(step)) {
                assert!(phase.steps.iter().any(|(_, step)| *step == end), "{}: {end:?}", phase.name);
            }
        }
    }
}
