//! The pure core: takes results of checks, yields the status and how soon to look again.

use crate::health_status::HealthStatus;

/// What one check showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// All well.
    Passed,
    /// It failed, maybe because of the way to the target.
    Failed,
    /// The target itself answered that it is not well.
    Answered,
}

/// When a status changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    /// Passes without a break that make healthy.
    pub(crate) rise: u32,
    /// Failures without a break that make unhealthy.
    pub(crate) fall: u32,
    /// Whether one result decides while nothing is known.
    pub(crate) first_result_decides: bool,
    /// Whether one [`Check::Answered`] makes unhealthy.
    pub(crate) answer_decides: bool,
}

/// How soon to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Healthy, and nothing speaks against it.
    Normal,
    /// On the way from one status to another.
    Fast,
    /// Unhealthy, and nothing speaks against it.
    Down,
}

/// The change of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) from: HealthStatus,
    pub(crate) to: HealthStatus,
}

/// Counts runs of equal results. At most one of the two counts is above zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hysteresis {
    status: HealthStatus,
    passes: u32,
    failures: u32,
}

// === impl Hysteresis ===

impl Hysteresis {
    pub(crate) fn record(&mut self, check: Check, thresholds: &Thresholds) -> Option<Transition> {
        let decides = thresholds.first_result_decides && self.status == HealthStatus::Unknown;
        let reached = if check == Check::Passed {
            self.failures = 0;
            self.passes = self.passes.saturating_add(1);
            (decides || self.passes >= thresholds.rise).then_some(HealthStatus::Healthy)
        } else {
            self.passes = 0;
            self.failures = self.failures.saturating_add(1);
            let decides = decides || (thresholds.answer_decides && check == Check::Answered);
            (decides || self.failures >= thresholds.fall).then_some(HealthStatus::Unhealthy)
        };
        let from = self.status;
        let to = reached.filter(|&status| status != from)?;
        self.status = to;
        Some(Transition { from, to })
    }

    pub(crate) fn pace(&self) -> Pace {
        match self.status {
            HealthStatus::Healthy if self.failures == 0 => Pace::Normal,
            HealthStatus::Unhealthy if self.passes == 0 => Pace::Down,
            _ => Pace::Fast,
        }
    }

    pub(crate) const fn passes(&self) -> u32 {
        self.passes
    }

    pub(crate) const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use HealthStatus::{Healthy, Unhealthy, Unknown};

    const STRICT: Thresholds = Thresholds { rise: 2, fall: 3, first_result_decides: false, answer_decides: false };

    fn feed(core: &mut Hysteresis, thresholds: &Thresholds, checks: &str) -> Vec<HealthStatus> {
        checks.chars().map(|check| feed_one(core, thresholds, check)).collect()
    }

    fn feed_one(core: &mut Hysteresis, thresholds: &Thresholds, check: char) -> HealthStatus {
        let check = match check {
            'S' => Check::Passed,
            'F' => Check::Failed,
            _ => Check::Answered,
        };
        let before = core.status;
        let transition = core.record(check, thresholds);
        assert_eq!(transition.is_some(), core.status != before);
        assert!(transition.is_none_or(|t| t.from == before && t.to == core.status));
        core.status
    }

    /// Rule R1.
    #[test]
    fn only_an_unbroken_run_changes_the_status() {
        let mut core = Hysteresis { status: Healthy, ..Hysteresis::default() };
        assert_eq!(
            feed(&mut core, &STRICT, "FFSFFF"),
            [Healthy, Healthy, Healthy, Healthy, Healthy, Unhealthy],
            "unhealthy only at the last"
        );
        assert_eq!(feed(&mut core, &STRICT, "SS"), [Unhealthy, Healthy]);
        assert_eq!(
            feed(&mut core, &STRICT, "FFFSFSS"),
            [Healthy, Healthy, Unhealthy, Unhealthy, Unhealthy, Unhealthy, Healthy]
        );
    }

    /// Scenario 6: a failing target is looked at in the down interval, at the edge in the fast one, and once up in the normal one.
    #[test]
    fn the_pace_is_fast_exactly_while_a_run_is_in_progress() {
        let thresholds = Thresholds { rise: 3, fall: 1, ..STRICT };
        let mut core = Hysteresis { status: Healthy, ..Hysteresis::default() };
        let mut seen = Vec::new();
        for check in "FSSSS".chars() {
            feed_one(&mut core, &thresholds, check);
            seen.push((core.status, core.pace()));
        }
        assert_eq!(
            seen,
            [
                (Unhealthy, Pace::Down),
                (Unhealthy, Pace::Fast),
                (Unhealthy, Pace::Fast),
                (Healthy, Pace::Normal),
                (Healthy, Pace::Normal),
            ]
        );
    }

    /// Scenario 8: fall 3 and rise 2, with the faster interval in transition.
    #[test]
    fn both_ways_go_over_the_fast_pace() {
        let mut core = Hysteresis { status: Healthy, ..Hysteresis::default() };
        let mut paces = Vec::new();
        for check in "SFFFFSS".chars() {
            feed_one(&mut core, &STRICT, check);
            paces.push(core.pace());
        }
        use Pace::{Down, Fast, Normal};
        assert_eq!(paces, [Normal, Fast, Fast, Down, Down, Fast, Normal]);
    }

    /// Scenario 6.
    #[test]
    fn the_first_result_decides_by_option() {
        let eager = Thresholds { first_result_decides: true, ..STRICT };
        assert_eq!(feed(&mut Hysteresis::default(), &eager, "SFFF"), [Healthy, Healthy, Healthy, Unhealthy]);
        assert_eq!(feed(&mut Hysteresis::default(), &eager, "FS"), [Unhealthy, Unhealthy]);
        assert_eq!(feed(&mut Hysteresis::default(), &STRICT, "SFFF"), [Unknown, Unknown, Unknown, Unhealthy]);
        assert_eq!(Hysteresis::default().pace(), Pace::Fast, "what is not known yet is looked at soon");
    }

    /// Scenario 6.
    #[test]
    fn a_target_that_answers_no_is_unhealthy_at_once_by_option() {
        let trusting = Thresholds { answer_decides: true, ..STRICT };
        let mut core = Hysteresis { status: Healthy, ..Hysteresis::default() };
        assert_eq!(feed(&mut core, &trusting, "FA"), [Healthy, Unhealthy]);
        let mut core = Hysteresis { status: Healthy, ..Hysteresis::default() };
        assert_eq!(
            feed(&mut core, &STRICT, "AAA"),
            [Healthy, Healthy, Unhealthy],
            "without it, it counts as any other"
        );
    }

    /// Scenario 7: a success resets the run.
    #[test]
    fn counts_never_overflow() {
        let mut core = Hysteresis { status: Unhealthy, passes: 0, failures: u32::MAX };
        feed_one(&mut core, &STRICT, 'F');
        assert_eq!(core.failures(), u32::MAX);
        feed_one(&mut core, &STRICT, 'S');
        assert_eq!((core.failures(), core.passes()), (0, 1));
    }

    proptest! {
        /// Against a model that keeps the whole log and looks at its end.
        #[test]
        fn agrees_with_a_model_that_keeps_the_whole_log(
            checks in proptest::collection::vec(0_u8..3, 0..200),
            rise in 1_u32..5,
            fall in 1_u32..5,
            first_result_decides: bool,
            answer_decides: bool,
        ) {
            let thresholds = Thresholds { rise, fall, first_result_decides, answer_decides };
            let mut core = Hysteresis::default();
            let mut model = Unknown;
            let mut log = Vec::new();
            for check in checks {
                let check = [Check::Passed, Check::Failed, Check::Answered][usize::from(check)];
                log.push(check);
                core.record(check, &thresholds);

                let passed = |check: &Check| *check == Check::Passed;
                let run = log.iter().rev().take_while(|c| passed(c) == passed(&check)).map(|_| 1_u32).sum::<u32>();
                let first = first_result_decides && log.len() == 1;
                if check == Check::Passed {
                    if first || run >= rise { model = Healthy; }
                } else if first || run >= fall || (answer_decides && check == Check::Answered) {
                    model = Unhealthy;
                }
                prop_assert_eq!(core.status, model);
                let settled = match model {
                    Unknown => false,
                    Healthy => check == Check::Passed,
                    Unhealthy => check != Check::Passed,
                };
                prop_assert_eq!(core.pace() == Pace::Fast, !settled);
            }
        }
    }
}
