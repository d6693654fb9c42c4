//! [`Window`]: what calls have earned lately, and what was spent. Pure: takes `now`, the time since its owner's start.
//!
//! Credit that was earned is spent from the oldest on and lapses with the window. Instead of a queue of tokens it is one
//! number that never exceeds what was earned within the window, which is the same thing: what is left after spending the
//! oldest is the newest. Because what was spent does not come back when its window ends, retries in a long outage are as
//! even as the calls; a plain "at most n in a window" would let them through in one burst a window.

use std::time::Duration;

use super::BudgetConfig;
use super::ring::Ring;
use crate::cores::sync::atomic::{AtomicI64, Ordering};

/// What one extra attempt costs. Finer than any ratio that matters: 0.0001 of it is still 100.
const TOKEN: i64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Window {
    /// What one call earns.
    earning: AtomicI64,
    earned: Ring,
    /// Earned and not spent.
    credit: AtomicI64,
    /// How many may be drawn without having been earned.
    reserve: AtomicI64,
    drawn: Ring,
}

impl Window {
    /// `config` must be valid.
    pub(super) fn new(config: &BudgetConfig) -> Self {
        Self {
            earning: AtomicI64::new(tokens(config.ratio)),
            earned: Ring::new(config.window),
            credit: AtomicI64::new(0),
            reserve: AtomicI64::new(i64::from(config.reserve)),
            drawn: Ring::new(config.reserve_window),
        }
    }

    /// Goes by another ratio and reserve from now on. What was earned and drawn so far counts as it did.
    pub(super) fn reconfigure(&self, config: &BudgetConfig) {
        self.earning.store(tokens(config.ratio), Ordering::Relaxed);
        self.reserve.store(i64::from(config.reserve), Ordering::Relaxed);
    }

    /// The number of the slot in which what is sent at this time earns.
    #[inline]
    pub(super) fn slot_at(&self, now: Duration) -> u64 {
        self.earned.slot_at(now)
    }

    /// When that slot begins and ends.
    pub(super) const fn span(&self, slot: u64) -> (Duration, Duration) {
        self.earned.span(slot)
    }

    /// Earns for `calls` that were sent in the slot `current`, that of now.
    #[inline]
    pub(super) fn earn(&self, calls: u64, current: u64) {
        // Or older credit could pass for what is being noted, and be spent.
        self.lapse(current);
        let amount = self.earning.load(Ordering::Relaxed).saturating_mul(i64::try_from(calls).unwrap_or(i64::MAX));
        self.earned.add_in(amount, current);
        // A thread that sees this credit also sees that it was earned, and does not take it for lapsed.
        self.credit.fetch_add(amount, Ordering::Release);
    }

    /// Spends what `cost` extra attempts cost: of the credit, else of the reserve.
    #[cfg(test)]
    pub(super) fn try_withdraw(&self, now: Duration) -> bool {
        self.lapse(self.slot_at(now));
        self.try_spend(1) || self.try_draw(1, now)
    }

    /// Spends what `cost` extra attempts cost of the credit alone, all that has not [lapsed](Self::lapse).
    #[inline]
    pub(super) fn try_spend(&self, cost: u32) -> bool {
        let spend = |credit: i64| Some(credit - i64::from(cost) * TOKEN).filter(|&left| left >= 0);
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }

    /// Spends what `cost` extra attempts cost of the reserve, after whole tokens that are left of the credit.
    pub(super) fn try_draw(&self, cost: u32, now: Duration) -> bool {
        let whole = |credit: i64| (credit / TOKEN).min(i64::from(cost));
        let spend = |credit: i64| Some(credit - whole(credit) * TOKEN).filter(|&left| left < credit);
        let spent = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).map_or(0, whole);
        let drawn = self.drawn.try_add(i64::from(cost) - spent, self.reserve.load(Ordering::Relaxed), now);
        if !drawn {
            self.credit.fetch_add(spent * TOKEN, Ordering::Relaxed);
        }
        drawn
    }

    /// Takes one withdrawal back: of the reserve first, which is drawn on last, and else of the credit, where it lapses with
    /// what was earned.
    pub(super) fn refund(&self, now: Duration) {
        if !self.drawn.take_back(now) {
            self.credit.fetch_add(TOKEN, Ordering::Relaxed);
        }
    }

    /// What could be spent, in tokens.
    #[allow(clippy::cast_precision_loss, reason = "a reading for humans")]
    pub(super) fn balance(&self, now: Duration) -> f64 {
        self.lapse(self.slot_at(now));
        let reserve = self.reserve.load(Ordering::Relaxed) - self.drawn.sum(now);
        self.credit.load(Ordering::Relaxed) as f64 / TOKEN as f64 + reserve.max(0) as f64
    }

    /// Lets go of the credit that is older than the window, in the slot of now.
    #[inline]
    pub(super) fn lapse(&self, current: u64) {
        let mut credit = self.credit.load(Ordering::Acquire);
        loop {
            let earned = self.earned.sum_in(current);
            if credit <= earned {
                return;
            }
            // What another thread has earned since is looked at with all that it was added to.
            match self.credit.compare_exchange_weak(credit, earned, Ordering::Relaxed, Ordering::Acquire) {
                Ok(_) => return,
                Err(seen) => credit = seen,
            }
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a valid ratio stays far below 2^53, and casts saturate"
)]
fn tokens(count: f64) -> i64 {
    (count * TOKEN as f64).round() as i64
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn config(ratio: f64, reserve: u32, seconds: u64) -> BudgetConfig {
        let window = Duration::from_secs(seconds);
        BudgetConfig { ratio, window, reserve, reserve_window: window }
    }

    fn start() -> Duration {
        Duration::ZERO
    }

    fn earn(window: &Window, calls: u64, now: Duration) {
        window.earn(calls, window.slot_at(now));
    }

    /// Scenario 13.
    #[test]
    fn a_steady_share_of_the_calls_may_be_repeated() {
        for ratio in [0.1, 0.25, 0.5, 0.75, 0.99, 0.999, 0.9999, 0.01, 0.001, 0.0001] {
            let now = start();
            let window = Window::new(&config(ratio, 0, 1));
            let spent = (0..10_000).filter(|_| {
                earn(&window, 1, now);
                window.try_withdraw(now)
            });
            let (spent, expected) = (spent.count() as f64, 10_000.0 * ratio);
            assert!((spent - expected).abs() <= 1.0, "{spent} of {expected}");
        }
    }

    /// Scenario 13.
    #[test]
    fn the_balance_is_what_was_earned_and_the_reserve() {
        let now = start();
        let double = Window::new(&config(2.0, 0, 10));
        earn(&double, 10_000, now);
        assert_eq!(double.balance(now), 20_000.0);

        let window = Window::new(&config(0.5, 10, 1));
        assert_eq!(window.balance(now), 10.0);
        earn(&window, 10_000, now);
        assert_eq!(window.balance(now), 5_010.0);
        while window.try_withdraw(now) {}
        assert_eq!(window.balance(now), 0.0);
        assert!(!Window::new(&config(0.0, 0, 10)).try_withdraw(now), "nothing of nothing");
    }

    /// Scenario 14.
    #[test]
    fn credit_leaves_with_the_window_and_the_reserve_comes_back_with_it() {
        let now = start();
        let after = |millis| now + Duration::from_millis(millis);
        let one = Window::new(&config(1.0, 0, 1));
        earn(&one, 1, now);
        assert!(!one.try_withdraw(after(3_000)));

        let half = Window::new(&config(0.5, 0, 1));
        earn(&half, 2, now);
        assert!(half.try_withdraw(after(901)));

        let reserve = Window::new(&config(0.5, 5, 1));
        assert!((0..5).all(|_| reserve.try_withdraw(now)));
        assert!(!reserve.try_withdraw(now));
        assert!(!reserve.try_withdraw(after(1_000)), "still in the window");
        assert!(reserve.try_withdraw(after(1_100)));
    }

    /// Scenario 18 (a bucket of 500 at 5 a retry, and 0.4 of a token a success), as shares of one token.
    #[test]
    fn two_retries_of_ten_and_a_success_that_pays_a_part() {
        let now = start();
        let bucket = Window::new(&config(0.4, 2, 60));
        assert!(bucket.try_withdraw(now) && bucket.try_withdraw(now));
        assert!(!bucket.try_withdraw(now));
        earn(&bucket, 2, now);
        assert!(!bucket.try_withdraw(now), "0.8 is not enough");
        earn(&bucket, 1, now);
        assert!(bucket.try_withdraw(now), "1.2 is");
        bucket.refund(now);
        assert!(bucket.try_withdraw(now), "what was given back can be spent again");
        assert!(!bucket.try_withdraw(now));
    }

    /// Whatever it was taken of, and however late it is given back.
    #[test]
    fn a_refund_is_worth_one_token_and_revives_none() {
        let second = Duration::from_secs;
        let reserve = Window::new(&config(0.0, 10, 10));
        assert!((0..10).all(|_| reserve.try_withdraw(start())));
        (0..10).for_each(|_| reserve.refund(second(5)));
        assert_eq!(reserve.balance(second(5)), 10.0);
        assert_eq!(reserve.balance(Duration::from_millis(11_500)), 10.0);

        let late = Window::new(&config(0.0, 10, 10));
        assert!((0..10).all(|_| late.try_withdraw(start())));
        (0..10).for_each(|_| late.refund(second(20)));
        assert_eq!(late.balance(second(20)), 10.0, "they had come back by themselves");

        let both = Window::new(&config(1.0, 2, 10));
        earn(&both, 3, start());
        assert!((0..5).all(|_| both.try_withdraw(start())));
        (0..9).for_each(|_| both.refund(second(5)));
        assert_eq!(both.balance(second(5)), 5.0, "no more than there was");
        assert_eq!(both.balance(second(12)), 2.0, "the credit lapses all the same");
    }

    #[test]
    fn a_withdrawal_of_two_takes_both_or_none() {
        let now = start();
        let window = Window::new(&config(1.0, 3, 10));
        earn(&window, 3, now);
        assert!(window.try_spend(2) && !window.try_spend(2));
        assert!(window.try_draw(2, now), "one of the credit and one of the reserve");
        assert_eq!(window.balance(now), 2.0);
        assert!(window.try_draw(1, now));
        earn(&window, 0, now);
        assert!(!window.try_draw(2, now));
        assert_eq!(window.balance(now), 1.0);

        earn(&window, 1, now);
        assert!(window.try_withdraw(now) && window.try_withdraw(now));
        earn(&window, 1, now);
        assert!(!window.try_draw(2, now), "one is not enough");
        assert_eq!(window.balance(now), 1.0);
        assert_eq!(window.balance(Duration::from_secs(12)), 3.0, "and it was credit, which has lapsed");
    }

    #[test]
    fn of_many_threads_no_two_spend_the_same_token() {
        let now = start();
        let window = Window::new(&config(1.0, 0, 60));
        earn(&window, 10_000, now);
        let spent: usize = std::thread::scope(|scope| {
            let take = || (0..2_000).filter(|_| window.try_withdraw(now)).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(spent, 10_000);
    }

    proptest! {
        /// Against a queue of every token that was ever earned, each with its time, spent from the oldest on.
        #[test]
        fn the_window_is_a_queue_of_tokens_that_lapse(
            steps in prop::collection::vec(
                (prop_oneof![Just(0), 0_u64..40, 0_u64..400, 0_u64..5_000], prop::option::of(0_u64..20)), 1..300,
            ),
            reserve in 0_u32..5,
        ) {
            let begin = start();
            let window = Window::new(&config(1.0, reserve, 1));
            let mut tokens: VecDeque<u64> = VecDeque::new();
            let mut drawn: Vec<u64> = Vec::new();
            let mut millis = 0;
            for (gap, earned) in steps {
                millis += gap;
                let (now, slot) = (begin + Duration::from_millis(millis), millis / 100);
                tokens.retain(|&at| at + 10 >= slot);
                drawn.retain(|&at| at + 10 >= slot);
                if let Some(calls) = earned {
                    earn(&window, calls, now);
                    tokens.extend((0..calls).map(|_| slot));
                } else {
                    let expected = tokens.pop_front().is_some() || {
                        let more = drawn.len() < reserve as usize;
                        if more {
                            drawn.push(slot);
                        }
                        more
                    };
                    prop_assert_eq!(window.try_withdraw(now), expected);
                }
                let balance = tokens.len() + reserve as usize - drawn.len();
                prop_assert_eq!(window.balance(now), balance as f64);
            }
        }
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::sync::Arc;

    use super::*;
    use crate::cores::sync::model::{join, spawn, with_interruptions};

    fn window(earned: u64, reserve: u32) -> Arc<Window> {
        let length = Duration::from_secs(10);
        let window = Window::new(&BudgetConfig { ratio: 1.0, window: length, reserve, reserve_window: length });
        earn(&window, earned, start());
        Arc::new(window)
    }

    const fn start() -> Duration {
        Duration::ZERO
    }

    fn earn(window: &Window, calls: u64, now: Duration) {
        window.earn(calls, window.slot_at(now));
    }

    const fn next_slot() -> Duration {
        Duration::from_secs(1)
    }

    #[test]
    fn no_two_spend_the_same_token() {
        for (earned, reserve) in [(1, 0), (0, 1), (1, 1)] {
            for now in [start(), next_slot()] {
                with_interruptions(3, move || {
                    let window = window(earned, reserve);
                    let threads = [1, 2].map(|tries| {
                        let window = Arc::clone(&window);
                        spawn(move || (0..tries).filter(|_| window.try_withdraw(now)).count() as u64)
                    });
                    let spent: u64 = threads.into_iter().map(join).sum();
                    assert_eq!(spent, earned + u64::from(reserve));
                    assert!(!window.try_withdraw(now));
                });
            }
        }
    }

    #[test]
    fn what_is_given_back_can_be_spent_again_once() {
        for (earned, reserve) in [(2, 0), (0, 2), (1, 1)] {
            with_interruptions(3, move || {
                let window = window(earned, reserve);
                let threads = [(); 2].map(|()| {
                    let window = Arc::clone(&window);
                    spawn(move || {
                        assert!(window.try_withdraw(start()));
                        window.refund(start());
                    })
                });
                threads.into_iter().for_each(join);
                let again = (0..4).filter(|_| window.try_withdraw(start())).count();
                assert_eq!(again, 2);
            });
        }
    }

    /// The deviation that is allowed: were it exactly as much as lapses, it might lapse with that.
    #[test]
    fn what_is_earned_while_older_credit_lapses_does_not_lapse_with_it() {
        with_interruptions(3, || {
            let window = window(2, 0);
            let now = Duration::from_secs(11);
            let (earning, spending) = (Arc::clone(&window), Arc::clone(&window));
            let earner = spawn(move || earn(&earning, 1, now));
            let spender = spawn(move || usize::from(spending.try_withdraw(now)));
            join(earner);
            let spent = join(spender) + (0..3).filter(|_| window.try_withdraw(now)).count();
            assert_eq!(spent, 1);
        });
    }

    #[test]
    fn what_is_earned_while_another_withdraws_is_there_once() {
        for now in [start(), next_slot()] {
            with_interruptions(3, move || {
                let window = window(1, 0);
                let (earning, spending) = (Arc::clone(&window), Arc::clone(&window));
                let earner = spawn(move || earn(&earning, 1, now));
                let spender = spawn(move || (0..2).filter(|_| spending.try_withdraw(now)).count());
                join(earner);
                let spent = join(spender) + (0..3).filter(|_| window.try_withdraw(now)).count();
                assert_eq!(spent, 2);
            });
        }
    }
}
