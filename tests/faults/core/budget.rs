//! Retry budgets: refunds and bursts.

use std::thread;
use std::time::Duration;

use mainstay::budget::{Budget, BudgetConfig, InFlightConfig};
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn budget(ratio: f64, reserve: u32) -> Budget {
    let mut config = BudgetConfig::default();
    (config.ratio, config.reserve) = (ratio, reserve);
    Budget::new(config).unwrap()
}

fn granted(budget: &Budget) -> usize {
    (0..10_000).take_while(|_| budget.try_withdraw()).count()
}

#[tokio::test(start_paused = true)]
async fn entry_08_a_refund_is_worth_one_token() {
    let budget = budget(0.0, 10);
    assert_eq!(granted(&budget), 10);
    advance(5 * SECOND).await;
    (0..10).for_each(|_| budget.refund());
    assert_eq!(budget.balance(), 10.0);
    advance(Duration::from_millis(6_500)).await;
    assert_eq!(budget.balance(), 10.0);
    assert_eq!(granted(&budget), 10);
}

#[tokio::test(start_paused = true)]
async fn entry_08_a_refund_revives_nothing_that_has_lapsed_or_come_back() {
    let reserve = budget(0.0, 10);
    assert_eq!(granted(&reserve), 10);
    advance(20 * SECOND).await;
    (0..10).for_each(|_| reserve.refund());
    assert_eq!(granted(&reserve), 10);

    let earned = budget(0.5, 0);
    (0..20).for_each(|_| earned.record_sent());
    assert_eq!(granted(&earned), 10);
    advance(3 * SECOND).await;
    (0..10).for_each(|_| earned.refund());
    assert_eq!(granted(&earned), 0);
}

/// The first of the two is of the credit and must not come back as one of the reserve.
#[tokio::test(start_paused = true)]
async fn entry_08_a_withdrawal_of_two_that_fails_takes_nothing() {
    let budget = budget(0.2, 3);
    assert_eq!(granted(&budget), 3);
    (0..5).for_each(|_| budget.record_sent());
    for _ in 0..5 {
        assert!(!budget.try_withdraw_cost(2));
        assert_eq!(budget.balance(), 1.0);
    }
    advance(3 * SECOND).await;
    assert_eq!(budget.balance(), 0.0, "it has lapsed with what earned it");

    let in_flight = Budget::in_flight(InFlightConfig::default()).unwrap();
    assert!(in_flight.try_withdraw_cost(2) && !in_flight.try_withdraw_cost(2) && in_flight.try_withdraw());
}

#[tokio::test(start_paused = true)]
async fn entry_11_a_burst_after_an_hour_of_silence_earns_its_share() {
    let budget = budget(0.2, 0);
    for _ in 0..3 {
        advance(HOUR).await;
        (0..60).for_each(|_| budget.record_sent());
        assert_eq!(granted(&budget), 12);
    }
}

#[test]
fn entry_11_a_burst_of_many_threads_earns_its_share() {
    // Threads do not see the paused clock of a test; none of the calls can lapse in a minute.
    let mut config = BudgetConfig::default();
    (config.ratio, config.reserve, config.window) = (0.2, 0, 60 * SECOND);
    let budget = Budget::new(config).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..60).for_each(|_| budget.record_sent()));
        }
    });
    assert_eq!(granted(&budget), 48);
}

#[tokio::test(start_paused = true)]
async fn entry_11_few_calls_in_an_hour_save_nothing_up() {
    let budget = budget(0.2, 0);
    for _ in 0..63 {
        advance(60 * SECOND).await;
        budget.record_sent();
    }
    advance(SECOND).await;
    assert_eq!(granted(&budget), 0, "one call is left in the window");
}

/// Of the list of tests that noticed nothing: the credit of more than one batch of calls.
#[tokio::test(start_paused = true)]
async fn entry_11_what_many_calls_earned_lapses() {
    for calls in [1, 64, 100, 256] {
        let budget = budget(0.2, 0);
        (0..calls).for_each(|_| budget.record_sent());
        advance(Duration::from_millis(2_200)).await;
        assert_eq!(granted(&budget), 0, "{calls} calls");
    }
}
