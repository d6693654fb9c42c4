//! Budgets, as their users see them. What they promise is tested beside the core, against logs of everything.

use std::time::Duration;

use mainstay::budget::{Budget, BudgetConfig};
use tokio::time::{advance, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn config(ratio: f64, window: Duration, reserve: u32) -> BudgetConfig {
    let mut config = BudgetConfig::default();
    (config.ratio, config.window, config.reserve, config.reserve_window) = (ratio, window, reserve, window);
    config
}

/// Scenario 14. The window of a second is tower's.
#[tokio::test(start_paused = true)]
async fn credit_lapses_and_the_reserve_stays() {
    let budget = Budget::new(config(1.0, SECOND, 0)).unwrap();
    budget.record_sent();
    sleep(3 * SECOND).await;
    assert!(!budget.try_withdraw());

    let budget = Budget::new(config(0.5, SECOND, 0)).unwrap();
    budget.record_sent();
    budget.record_sent();
    sleep(Duration::from_millis(901)).await;
    assert!(budget.try_withdraw());

    let budget = Budget::new(config(0.5, SECOND, 5)).unwrap();
    assert_eq!((0..6).map(|_| budget.try_withdraw()).filter(|taken| *taken).count(), 5);
}

/// Scenario 13.
#[tokio::test(start_paused = true)]
async fn a_balance_of_zero_is_what_a_failed_withdrawal_leaves() {
    let budget = Budget::new(config(0.25, 10 * SECOND, 10)).unwrap();
    (0..10_000).for_each(|_| budget.record_sent());
    assert_eq!(budget.balance(), 2_510.0);
    assert_eq!((0..10_000).filter(|_| budget.try_withdraw()).count(), 2_510);
    assert_eq!(budget.balance(), 0.0);
}

/// Default: 1/s on average, ten at once.
#[tokio::test(start_paused = true)]
async fn an_idle_client_has_ten_in_ten_seconds() {
    let budget = Budget::default();
    let mut taken = 0;
    for _ in 0..110 {
        taken += (0..5).filter(|_| budget.try_withdraw()).count();
        advance(SECOND).await;
    }
    assert!((90..=110).contains(&taken), "{taken} in 110 s");
}

#[test]
fn a_budget_can_be_built_used_and_dropped_outside_a_runtime() {
    let budget = Budget::default();
    budget.record_sent();
    assert!(budget.try_withdraw());
}

#[test]
fn clones_on_many_threads_share_what_there_is() {
    let budget = Budget::new(config(0.0, 60 * SECOND, 1_000)).unwrap();
    let taken: usize = std::thread::scope(|scope| {
        let take = |budget: Budget| scope.spawn(move || (0..500).filter(|_| budget.try_withdraw()).count());
        let threads: Vec<_> = (0..8).map(|_| take(budget.clone())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 1_000);
}

#[test]
fn handles_are_send_and_sync() {
    fn check<T: Send + Sync + Clone>() {}
    check::<Budget>();
}
