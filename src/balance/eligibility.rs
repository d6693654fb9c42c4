//! The one model of who may be picked.
//!
//! Five sources say something about an endpoint: administration (enabled, draining), active health, ejection, its circuit
//! breaker, and its own `poll_ready`. [`decide`] weighs them for the whole pool at once, because two of the rules are about
//! the pool: the largest share that may be out by judgement, and the panic threshold.
//!
//! Pure: `now` is an argument.

use std::fmt;
use std::time::Instant;

use super::outlier::{Ejection, Unready};
use crate::health_status::HealthStatus;

/// Why an endpoint is not used, or would not be if the pool could do without it.
///
/// # Examples
///
/// ```
/// assert_eq!(mainstay::balance::OutReason::CircuitOpen.as_str(), "circuit_open");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutReason {
    /// It was disabled by hand.
    Disabled,
    /// It is draining: calls in flight finish, no new ones come.
    Draining,
    /// Active probes fail.
    Unhealthy,
    /// It was added late and has not passed its first probe.
    AwaitingFirstProbe,
    /// It was ejected for consecutive failures, or by hand.
    Ejected,
    /// Its circuit breaker is open.
    CircuitOpen,
    /// Its circuit breaker was set to open by configuration, until something else is said.
    CircuitForcedOpen,
    /// Its `poll_ready` failed a moment ago, or was pending for several picks in a row.
    Unready,
}

/// What all sources say about one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) enabled: bool,
    pub(crate) draining: bool,
    pub(crate) health: HealthStatus,
    pub(crate) awaiting_first_probe: bool,
    pub(crate) ejection: Ejection,
    pub(crate) unready: Unready,
    pub(crate) circuit: Circuit,
}

/// What an endpoint's circuit breaker says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Circuit {
    /// There is none, or it lets calls through.
    #[default]
    Passing,
    /// Open since `since`; a probe is due at `due`.
    Open { since: Instant, due: Instant },
    /// Some probes may pass.
    Probing { since: Instant },
    /// Open until an operator says otherwise.
    ForcedOpen,
}

/// What the pool allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The largest share that may be out by passive judgement.
    pub(crate) max_out: f64,
    /// The share of usable endpoints below which all are used.
    pub(crate) panic_threshold: f64,
}

/// What was decided about one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether calls go to it.
    pub(crate) usable: bool,
    /// What speaks against it, even if it is used all the same.
    pub(crate) against: Option<OutReason>,
    /// Whether its breaker waits for a probe.
    pub(crate) probe: bool,
    /// Whether it was not found unready a moment ago.
    pub(crate) ready: bool,
}

/// What was decided about the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// In the order of the endpoints.
    pub(crate) verdicts: Vec<Verdict>,
    /// So many are out that all are used.
    pub(crate) panic: bool,
    /// When time alone will change something.
    pub(crate) next_change: Option<Instant>,
}

/// Decides who is used.
///
/// 1. Disabled and draining endpoints are out, and count for nothing else.
/// 2. Of the others, those out by active health are out.
/// 3. Those that passive judgement is against (ejection, breaker) are out, the longest accused first, as long as no more than
///    `max_out` of the pool is out, unready ones counted in, and at least one stays in. The rest is used in spite of it.
/// 4. If fewer than `panic_threshold` are left, all of 2 and 3 are used after all.
/// 5. Of those that are used by now, the unready ones are out as long as any other is left. This is no judgement that could be
///    wrong: a call that went there would only wait, or go on elsewhere.
///
/// What has expired at `now` counts for nothing.
pub(crate) fn decide<'a>(standings: impl Iterator<Item = &'a Standing>, limits: Limits, now: Instant) -> Decision {
    let mut next_change = None;
    let mut accused = Vec::new();
    let (mut members, mut unhealthy, mut unready) = (0_usize, 0_usize, 0_usize);
    let mut verdicts: Vec<Verdict> = standings
        .enumerate()
        .map(|(index, standing)| {
            if let Some(reason) = standing.by_administration() {
                return Verdict::out(reason);
            }
            members += 1;
            let passive = standing.by_passive_evidence(now, &mut next_change);
            let ready = standing.unready.span(now).is_none();
            if let Some(reason) = standing.by_active_health() {
                unhealthy += 1;
                return Verdict { ready, ..Verdict::out(reason) };
            }
            let Some((reason, since)) = passive else { return Verdict::IN };
            if reason == OutReason::Unready {
                unready += 1;
                return Verdict { usable: true, ready, ..Verdict::out(reason) };
            }
            accused.push((since, index));
            let probe = reason == OutReason::CircuitOpen && standing.probe_is_due(now);
            Verdict { probe, ready, ..Verdict::out(reason) }
        })
        .collect();

    accused.sort_unstable();
    let allowed = largest_share(members, limits.max_out).saturating_sub(unhealthy);
    for (_, index) in accused.iter().skip(allowed.saturating_sub(unready)) {
        verdicts[*index].usable = true;
    }
    let out = unhealthy + (accused.len() + unready).min(allowed);
    #[allow(clippy::cast_precision_loss, reason = "pools have fewer than 2^52 endpoints")]
    let panic = members > 0 && ((members - out) as f64) < limits.panic_threshold * members as f64;
    if panic {
        for verdict in &mut verdicts {
            verdict.usable |= !verdict.against.is_some_and(OutReason::is_administrative);
        }
    }
    if verdicts.iter().any(|verdict| verdict.usable && verdict.ready) {
        for verdict in &mut verdicts {
            verdict.usable &= verdict.ready;
        }
    }
    Decision { verdicts, panic, next_change }
}

/// How many of `members` may be out: never more than the share, and never all.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0..=members")]
fn largest_share(members: usize, share: f64) -> usize {
    // What 0.3 * 10 misses of 3 by rounding is given back.
    ((members as f64 * share + 1e-9) as usize).min(members.saturating_sub(1))
}

// === impl Standing ===

impl Standing {
    pub(crate) fn new(awaiting_first_probe: bool) -> Self {
        Self {
            enabled: true,
            draining: false,
            health: HealthStatus::Unknown,
            awaiting_first_probe,
            ejection: Ejection::default(),
            unready: Unready::default(),
            circuit: Circuit::Passing,
        }
    }

    /// What active probes say; the first word of theirs ends the wait for it.
    pub(crate) fn set_health(&mut self, health: HealthStatus) {
        self.health = health;
        self.awaiting_first_probe &= health == HealthStatus::Unknown;
    }

    const fn by_administration(&self) -> Option<OutReason> {
        if self.draining {
            Some(OutReason::Draining)
        } else if !self.enabled {
            Some(OutReason::Disabled)
        } else if matches!(self.circuit, Circuit::ForcedOpen) {
            Some(OutReason::CircuitForcedOpen)
        } else {
            None
        }
    }

    const fn by_active_health(&self) -> Option<OutReason> {
        match self.health {
            HealthStatus::Unhealthy => Some(OutReason::Unhealthy),
            HealthStatus::Unknown if self.awaiting_first_probe => Some(OutReason::AwaitingFirstProbe),
            HealthStatus::Unknown | HealthStatus::Healthy => None,
        }
    }

    /// The strongest passive evidence and since when there has been any; notes when the first of it runs out.
    fn by_passive_evidence(&self, now: Instant, next: &mut Option<Instant>) -> Option<(OutReason, Instant)> {
        let mut found: Option<(OutReason, Instant)> = None;
        let mut accuse = |reason, since: Instant, until: Option<Instant>| {
            found = Some(found.map_or((reason, since), |(first, earlier)| (first, earlier.min(since))));
            if let Some(until) = until.filter(|until| *until > now) {
                *next = Some(next.map_or(until, |other| other.min(until)));
            }
        };
        if let Some(span) = self.ejection.span(now) {
            accuse(OutReason::Ejected, span.since, Some(span.until));
        }
        match self.circuit {
            Circuit::Passing | Circuit::ForcedOpen => {}
            Circuit::Open { since, due } => accuse(OutReason::CircuitOpen, since, Some(due)),
            Circuit::Probing { since } => accuse(OutReason::CircuitOpen, since, None),
        }
        if let Some(span) = self.unready.span(now) {
            accuse(OutReason::Unready, span.since, Some(span.until));
        }
        found
    }

    fn probe_is_due(&self, now: Instant) -> bool {
        match self.circuit {
            Circuit::Passing | Circuit::ForcedOpen => false,
            Circuit::Open { due, .. } => due <= now,
            Circuit::Probing { .. } => true,
        }
    }
}

// === impl Verdict ===

impl Verdict {
    pub(crate) const IN: Self = Self { usable: true, against: None, probe: false, ready: true };

    const fn out(reason: OutReason) -> Self {
        Self { usable: false, against: Some(reason), probe: false, ready: true }
    }
}

// === impl OutReason ===

impl OutReason {
    /// The name used in events and logs: `disabled`, `draining`, `unhealthy`, `awaiting_first_probe`, `ejected`,
    /// `circuit_open`, `circuit_forced_open` or `unready`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::balance::OutReason::Draining.as_str(), "draining");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
            Self::AwaitingFirstProbe => "awaiting_first_probe",
            Self::Ejected => "ejected",
            Self::CircuitOpen => "circuit_open",
            Self::CircuitForcedOpen => "circuit_forced_open",
            Self::Unready => "unready",
        }
    }

    /// Whether an operator took it out: panic mode does not bring it back.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::balance::OutReason;
    ///
    /// assert!(OutReason::Draining.is_administrative());
    /// assert!(!OutReason::Ejected.is_administrative());
    /// ```
    #[must_use]
    pub const fn is_administrative(self) -> bool {
        matches!(self, Self::Disabled | Self::Draining | Self::CircuitForcedOpen)
    }
}

impl fmt::Display for OutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::balance::config::EjectionConfig;

    /// A moment to count from.
    pub(crate) fn instant() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    const HALF: Limits = Limits { max_out: 0.5, panic_threshold: 0.5 };

    fn pool(n: usize) -> Vec<Standing> {
        vec![Standing::new(false); n]
    }

    fn usable(standings: &[Standing], limits: Limits, now: Instant) -> Vec<usize> {
        let decision = decide(standings.iter(), limits, now);
        (0..standings.len()).filter(|index| decision.verdicts[*index].usable).collect()
    }

    fn eject(standing: &mut Standing, now: Instant) {
        standing.ejection.eject(now, &EjectionConfig::default());
    }

    #[test]
    fn an_endpoint_of_which_nothing_is_known_is_used() {
        let decision = decide(pool(3).iter(), HALF, instant());
        assert_eq!(decision, Decision { verdicts: vec![Verdict::IN; 3], panic: false, next_change: None });
    }

    #[test]
    fn no_more_than_the_share_is_out_and_the_longest_accused_go_first() {
        let start = instant();
        let mut standings = pool(10);
        for (step, index) in [9, 3, 7, 1, 5, 0, 2].into_iter().enumerate() {
            eject(&mut standings[index], start + Duration::from_secs(step as u64));
        }
        let now = start + Duration::from_secs(10);
        assert_eq!(usable(&standings, HALF, now), [0, 2, 4, 6, 8]);
        let tenth = Limits { max_out: 0.3, panic_threshold: 0.0 };
        assert_eq!(usable(&standings, tenth, now), [0, 1, 2, 4, 5, 6, 8]);
    }

    #[test]
    fn at_least_one_stays_in_whatever_the_share() {
        let now = instant();
        let all = Limits { max_out: 1.0, panic_threshold: 0.0 };
        for n in 1..5 {
            let mut standings = pool(n);
            standings.iter_mut().for_each(|standing| eject(standing, now));
            assert_eq!(usable(&standings, all, now).len(), 1, "{n} endpoints");
        }
    }

    #[test]
    fn expired_ejections_do_not_count_against_the_maximum() {
        let start = instant();
        let mut standings = pool(4);
        eject(&mut standings[0], start);
        eject(&mut standings[1], start);
        let later = start + Duration::from_secs(30);
        eject(&mut standings[2], later);
        eject(&mut standings[3], later);
        assert_eq!(usable(&standings, HALF, start), [2, 3]);
        assert_eq!(usable(&standings, HALF, later), [0, 1]);
    }

    #[test]
    fn the_next_change_is_the_first_end() {
        let start = instant();
        let mut standings = pool(4);
        eject(&mut standings[0], start + Duration::from_secs(5));
        eject(&mut standings[1], start);
        let decision = decide(standings.iter(), HALF, start + Duration::from_secs(6));
        assert_eq!(decision.next_change, Some(start + Duration::from_secs(30)));
        let decision = decide(standings.iter(), HALF, start + Duration::from_secs(30));
        assert_eq!(decision.next_change, Some(start + Duration::from_secs(35)));
    }

    #[test]
    fn r9_when_all_are_unhealthy_all_are_used_but_for_the_drained_and_disabled() {
        let now = instant();
        let mut standings = pool(5);
        standings.iter_mut().for_each(|standing| standing.health = HealthStatus::Unhealthy);
        standings[1].enabled = false;
        standings[4].draining = true;
        let decision = decide(standings.iter(), HALF, now);
        assert!(decision.panic);
        assert_eq!(usable(&standings, HALF, now), [0, 2, 3]);
        assert_eq!(decision.verdicts[0].against, Some(OutReason::Unhealthy));
    }

    #[test]
    fn r9_panic_begins_below_the_threshold_and_not_at_it() {
        let now = instant();
        let mut standings = pool(4);
        standings[0].health = HealthStatus::Unhealthy;
        standings[1].health = HealthStatus::Unhealthy;
        assert_eq!(usable(&standings, HALF, now), [2, 3]);
        standings[2].health = HealthStatus::Unhealthy;
        assert_eq!(usable(&standings, HALF, now), [0, 1, 2, 3]);
    }

    #[test]
    fn what_active_health_took_out_leaves_less_to_passive_judgement() {
        let now = instant();
        let mut standings = pool(4);
        standings[0].health = HealthStatus::Unhealthy;
        eject(&mut standings[1], now);
        eject(&mut standings[2], now + Duration::from_secs(1));
        assert_eq!(usable(&standings, HALF, now + Duration::from_secs(2)), [2, 3]);
    }

    #[test]
    fn unready_endpoints_are_out_as_long_as_any_other_is_left_whatever_the_share() {
        let now = instant();
        let pause = |standing: &mut Standing| {
            standing.unready.fail(now, Duration::from_secs(1), Duration::from_secs(1), 0).unwrap();
        };
        let mut standings = pool(6);
        standings[..5].iter_mut().for_each(pause);
        let decision = decide(standings.iter(), HALF, now);
        assert_eq!((usable(&standings, HALF, now), decision.panic), (vec![5], false));
        assert_eq!(decision.verdicts[0], Verdict { ready: false, ..Verdict::out(OutReason::Unready) });
        assert_eq!(decision.next_change, Some(now + Duration::from_millis(500)));
        // One that is kept in by the share, or used in panic, is rather used than one that is not ready.
        eject(&mut standings[5], now + Duration::from_millis(1));
        assert_eq!(usable(&standings, HALF, now + Duration::from_millis(2)), [5]);
        let mut standings = pool(3);
        pause(&mut standings[0]);
        standings[1].health = HealthStatus::Unhealthy;
        standings[2].health = HealthStatus::Unhealthy;
        pause(&mut standings[2]);
        assert_eq!(usable(&standings, HALF, now), [1]);
        // They count against the pool as the others do that are out.
        let mut standings = pool(10);
        standings[..4].iter_mut().for_each(pause);
        for (panic_threshold, panic) in [(0.6, false), (0.7, true)] {
            let decision = decide(standings.iter(), Limits { panic_threshold, ..HALF }, now);
            let used = decision.verdicts.iter().filter(|verdict| verdict.usable).count();
            assert_eq!((decision.panic, used), (panic, 6));
        }
        // With no other left, they are used; and again when the pause is over.
        let mut standings = pool(3);
        standings.iter_mut().for_each(pause);
        standings[1].enabled = false;
        assert_eq!(usable(&standings, HALF, now), [0, 2]);
        assert_eq!(usable(&standings, HALF, now + Duration::from_millis(500)), [0, 2]);
        assert!(decide(standings.iter(), HALF, now + Duration::from_millis(500)).verdicts[0].ready);
    }

    #[test]
    fn an_open_breaker_counts_as_out_and_asks_for_its_probe_when_due() {
        let now = instant();
        let mut standings = pool(3);
        let due = now + Duration::from_secs(5);
        standings[0].circuit = Circuit::Open { since: now, due };
        let before = decide(standings.iter(), HALF, now);
        assert_eq!(
            (before.verdicts[0].usable, before.verdicts[0].probe, before.next_change),
            (false, false, Some(due))
        );
        let at = decide(standings.iter(), HALF, due);
        assert_eq!((at.verdicts[0].usable, at.verdicts[0].probe, at.next_change), (false, true, None));
        standings[0].circuit = Circuit::Probing { since: now };
        assert!(decide(standings.iter(), HALF, due).verdicts[0].probe);
        // A second open breaker may not go out too: at most one of three.
        standings[1].circuit = Circuit::Open { since: due, due: due + Duration::from_secs(1) };
        assert_eq!(usable(&standings, HALF, due), [1, 2]);
    }

    #[test]
    fn a_late_endpoint_waits_for_its_first_probe_only_where_asked() {
        let now = instant();
        let mut standings = pool(3);
        standings[2] = Standing::new(true);
        let verdict = decide(standings.iter(), HALF, now).verdicts[2];
        assert_eq!((verdict.usable, verdict.against), (false, Some(OutReason::AwaitingFirstProbe)));
        standings[2].health = HealthStatus::Healthy;
        assert_eq!(usable(&standings, HALF, now), [0, 1, 2]);
    }

    fn any_standing(start: Instant) -> impl Strategy<Value = Standing> {
        (0_u8..8, 0_u64..60, 0_u8..3).prop_map(move |(kind, at, health)| {
            let mut standing = Standing::new(kind == 7);
            let since = start + Duration::from_secs(at);
            standing.health = match health {
                0 => HealthStatus::Unknown,
                1 => HealthStatus::Healthy,
                _ => HealthStatus::Unhealthy,
            };
            match kind {
                0 => standing.enabled = false,
                1 => standing.draining = true,
                2 => eject(&mut standing, since),
                3 => standing.circuit = Circuit::Open { since, due: since + Duration::from_secs(5) },
                4 => standing.circuit = Circuit::Probing { since },
                _ => {}
            }
            standing
        })
    }

    proptest! {
        #[test]
        fn the_rules_of_the_pool_hold_whatever_the_sources_say(
            standings in prop::collection::vec(any_standing(instant()), 0..40),
            max_out in 0.0_f64..=1.0,
            panic_threshold in 0.0_f64..=1.0,
            after in 0_u64..120,
        ) {
            let now = instant() + Duration::from_secs(after);
            let decision = decide(standings.iter(), Limits { max_out, panic_threshold }, now);
            let members = standings.iter().filter(|standing| standing.by_administration().is_none()).count();
            let unhealthy = standings
                .iter()
                .filter(|standing| standing.by_administration().is_none() && standing.by_active_health().is_some())
                .count();
            let used = decision.verdicts.iter().filter(|verdict| verdict.usable).count();
            let judged = members - used;
            // Nobody that an operator took out is used, and nobody without a reason is out.
            for (standing, verdict) in standings.iter().zip(&decision.verdicts) {
                prop_assert!(standing.by_administration().is_none() || !verdict.usable);
                prop_assert!(verdict.usable || verdict.against.is_some());
            }
            // More than the share is out only where active health alone took it.
            prop_assert!(judged as f64 <= (members as f64 * max_out + 1e-6).max(unhealthy as f64));
            // One stays in unless active health says otherwise and panic mode is off.
            prop_assert!(members == 0 || used > 0 || unhealthy == members && !decision.panic);
            prop_assert!(!decision.panic || used == members);
            prop_assert!(decision.panic || members == 0 || used as f64 >= members as f64 * panic_threshold);
            prop_assert!(decision.next_change.is_none_or(|next| next > now));
        }
    }
}
