//! Backoffs, as their users see them. The sequences themselves are tested beside the core.

use std::time::Duration;

use mainstay::backoff::{BackoffConfig, Growth, Jitter, Progress};

const SECOND: Duration = Duration::from_secs(1);

/// Scenario 10: jitter of a quarter second on one second, 100 000 times.
#[test]
fn jitter_stays_in_its_range_and_uses_all_of_it() {
    let config = BackoffConfig::constant(SECOND).with_cap(2 * SECOND).with_jitter(Jitter::Proportional(0.25));
    let delays: Vec<_> = config.build().unwrap().delays_seeded(1).take(100_000).collect();
    let (shortest, longest) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(*shortest >= SECOND * 3 / 4 && *shortest < Duration::from_millis(751), "{shortest:?}");
    assert!(*longest <= SECOND * 5 / 4 && *longest > Duration::from_millis(1_249), "{longest:?}");
    let mean = delays.iter().sum::<Duration>() / 100_000;
    assert!(mean.abs_diff(SECOND) < Duration::from_millis(2), "{mean:?}");
}

/// Scenario 16: with a lower bound of 500, never below it.
#[test]
fn equal_jitter_never_waits_less_than_half() {
    let config = BackoffConfig::constant(SECOND).with_jitter(Jitter::Equal);
    assert!(config.build().unwrap().delays_seeded(1).take(10_000).all(|delay| delay >= SECOND / 2 && delay <= SECOND));
}

/// Scenario 17: 100 000 attempts later it still is the cap.
#[test]
fn a_sequence_of_any_length_ends_at_its_cap() {
    for config in
        [BackoffConfig::exponential(SECOND), BackoffConfig::linear(SECOND, SECOND), BackoffConfig::fibonacci(SECOND)]
    {
        let backoff = config.with_cap(20 * SECOND).with_jitter(Jitter::None).build().unwrap();
        assert_eq!(backoff.delays().nth(100_000), Some(20 * SECOND));
    }
}

#[test]
fn the_core_takes_its_draws_as_arguments() {
    let backoff = BackoffConfig::exponential(SECOND).build().unwrap();
    let mut progress = Progress::start();
    assert_eq!(backoff.range(progress), (Duration::ZERO, SECOND));
    assert_eq!(backoff.next_delay(&mut progress, 0), Duration::ZERO);
    assert_eq!(backoff.range(progress), (Duration::ZERO, 2 * SECOND));
    let longest = backoff.next_delay(&mut progress, u64::MAX);
    assert!(2 * SECOND - longest < Duration::from_nanos(2));
}

/// Scenario 16: a reset starts over.
#[test]
fn a_reset_starts_the_sequence_over_and_the_draws_go_on() {
    let mut delays = BackoffConfig::exponential(SECOND).build().unwrap().delays_seeded(9);
    let first: Vec<_> = delays.by_ref().take(3).collect();
    delays.reset();
    let again: Vec<_> = delays.take(3).collect();
    assert!(again[0] <= SECOND && again[1] <= 2 * SECOND && again[2] <= 4 * SECOND);
    assert_ne!(first, again);
}

#[test]
fn growth_can_be_changed_field_by_field() {
    let mut config = BackoffConfig::default();
    config.growth = Growth::Exponential { factor: 3.0 };
    config.jitter = Jitter::None;
    let delays: Vec<_> = config.build().unwrap().delays().take(4).map(|delay| delay.as_millis()).collect();
    assert_eq!(delays, [50, 150, 450, 1_350]);
}
