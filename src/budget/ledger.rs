//! [`Ledger`]: a [`Window`] and the calls that were not yet entered into it. Pure: takes `now`.
//!
//! While few calls are made, each is entered into the window at once, with the time that it has read for that. While many are,
//! a call should cost a budget nothing worth mentioning: they are counted in a stripe of the thread's own and entered in
//! batches, by each [`BATCH`]th call of a thread and by a withdrawal that finds no credit. They are then dated with the batch.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::BudgetConfig;
use super::window::Window;
use crate::cores::counters::StripedCounters;
use crate::cores::sync::atomic::{AtomicU64, Ordering};
use crate::cores::sync::{Mutex, lock};
use crate::error::InvalidConfig;

/// How many calls of a thread form a batch; a power of two.
const BATCH: u64 = 64;
/// From this many calls in a slot on they are entered in batches, in that slot and the next. What a batch dates wrongly is then
/// a small part of what was sent.
const MANY: u64 = 8 * BATCH;

#[derive(Debug)]
pub(super) struct Ledger {
    /// Unlike that of any other.
    number: u64,
    config: Mutex<BudgetConfig>,
    start: Instant,
    sent: StripedCounters<1>,
    /// How many of `sent` were entered.
    entered: AtomicU64,
    /// `BATCH - 1` while calls are entered in batches, else 0. Like the two below it only decides when calls are entered, never
    /// how many, so threads may overwrite each other's: all three are relaxed.
    mask: AtomicU64,
    /// The slot in which calls were entered last, and how many had been sent when that was first done.
    slot: AtomicU64,
    sent_before: AtomicU64,
    window: Window,
}

/// A slot of a ledger's window, and when it is.
#[derive(Clone, Copy)]
struct KnownSlot {
    ledger: u64,
    slot: u64,
    begins: Instant,
    ends: Instant,
}

thread_local! {
    /// The slot that was asked for last: to compare times costs less than to subtract and divide them.
    static KNOWN_SLOT: Cell<Option<KnownSlot>> = const { Cell::new(None) };
}

impl Ledger {
    /// `config` must be valid.
    pub(super) fn new(config: BudgetConfig, now: Instant) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            config: Mutex::new(config),
            start: now,
            sent: StripedCounters::new(),
            entered: AtomicU64::new(0),
            mask: AtomicU64::new(0),
            slot: AtomicU64::new(0),
            sent_before: AtomicU64::new(0),
            window: Window::new(&config),
        }
    }

    pub(super) fn config(&self) -> BudgetConfig {
        *lock(&self.config)
    }

    /// Goes by another ratio and reserve from now on. Calls that were counted before and are not entered yet earn by the new ratio.
    pub(super) fn reconfigure(&self, config: BudgetConfig) -> Result<(), InvalidConfig> {
        let mut current = lock(&self.config);
        let windows = [
            ("window", config.window, current.window),
            ("reserve_window", config.reserve_window, current.reserve_window),
        ];
        for (field, window, current) in windows {
            if window != current {
                return Err(InvalidConfig::new(field, window, "cannot change while the budget is in use"));
            }
        }
        self.window.reconfigure(&config);
        *current = config;
        Ok(())
    }

    #[inline]
    pub(super) fn record_sent(&self, now: impl FnOnce() -> Instant) {
        if self.sent.count(0) & self.mask.load(Ordering::Relaxed) == 0 {
            self.enter_batch(now);
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_batch(&self, now: impl FnOnce() -> Instant) {
        self.enter(self.since_start(now()));
    }

    /// Takes what `cost` extra attempts cost, or nothing.
    #[inline(never)]
    pub(super) fn try_withdraw(&self, cost: u32, now: Instant) -> bool {
        let slot = self.slot_at(now);
        self.window.lapse(slot);
        // What was entered already often is enough, and is spent first in any case.
        if self.window.try_spend(cost) {
            return true;
        }
        self.enter_in(slot);
        self.window.try_spend(cost) || self.window.try_draw(cost, self.since_start(now))
    }

    pub(super) fn refund(&self, now: Instant) {
        self.window.refund(self.since_start(now));
    }

    pub(super) fn balance(&self, now: Instant) -> f64 {
        let now = self.since_start(now);
        self.enter(now);
        self.window.balance(now)
    }

    /// Enters the calls that are waiting for it.
    #[cold]
    #[inline(never)]
    fn enter(&self, now: Duration) {
        self.enter_in(self.window.slot_at(now));
    }

    fn enter_in(&self, slot: u64) {
        let sent = self.sent.get(0);
        // Of two threads at once, each enters what the other has not.
        let entered = self.entered.fetch_max(sent, Ordering::Relaxed);
        if sent > entered {
            self.window.earn(sent - entered, slot);
            self.choose_batch(sent, entered, slot);
        }
    }

    /// Decides whether the calls that follow are entered in batches.
    fn choose_batch(&self, sent: u64, entered: u64, slot: u64) {
        let last = self.slot.load(Ordering::Relaxed);
        let many = sent.saturating_sub(self.sent_before.load(Ordering::Relaxed)) >= MANY;
        if slot > last {
            self.slot.store(slot, Ordering::Relaxed);
            self.sent_before.store(entered, Ordering::Relaxed);
            if !many || slot > last + 1 {
                self.mask.store(0, Ordering::Relaxed);
            }
        } else if many {
            self.mask.store(BATCH - 1, Ordering::Relaxed);
        }
    }

    #[inline]
    fn slot_at(&self, now: Instant) -> u64 {
        self.known_slot(now).unwrap_or_else(|| self.look_slot_up(now))
    }

    #[inline(always)]
    fn known_slot(&self, now: Instant) -> Option<u64> {
        let known = KNOWN_SLOT.get()?;
        (known.ledger == self.number && known.begins <= now && now < known.ends).then_some(known.slot)
    }

    #[cold]
    #[inline(never)]
    fn look_slot_up(&self, now: Instant) -> u64 {
        let slot = self.window.slot_at(self.since_start(now));
        let (begins, ends) = self.window.span(slot);
        if let (Some(begins), Some(ends)) = (self.start.checked_add(begins), self.start.checked_add(ends)) {
            KNOWN_SLOT.set(Some(KnownSlot { ledger: self.number, slot, begins, ends }));
        }
        slot
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn ledger(ratio: f64, reserve: u32, seconds: u64, now: Instant) -> Ledger {
        let window = Duration::from_secs(seconds);
        Ledger::new(BudgetConfig { ratio, window, reserve, reserve_window: window }, now)
    }

    /// R6: a peer lets all 1000 retries through.
    #[test]
    fn in_one_second_retries_stay_within_a_fifth_of_the_calls_and_the_reserve() {
        for (calls, failing_every, at_most) in [(2_000, 2, 410), (1_000, 1, 210)] {
            let begin = start();
            let ledger = ledger(0.2, 10, 1, begin);
            let mut retries = 0;
            for call in 0..calls {
                let now = begin + Duration::from_secs(1) * call / calls;
                ledger.record_sent(|| now);
                if call % failing_every == 0 && ledger.try_withdraw(1, now) {
                    retries += 1;
                }
            }
            assert!(retries <= at_most, "{retries}");
            assert!(retries >= at_most - 12, "{retries}: the budget is there to be used");
        }
    }

    /// R7, after ten minutes without a failure.
    #[test]
    fn an_outage_of_most_calls_costs_a_fifth_of_the_load_whatever_was_saved_before() {
        let begin = start();
        let ledger = Ledger::new(BudgetConfig::default(), begin);
        let at = |milli: u64| begin + Duration::from_millis(milli);
        let quiet = 600_000;
        (0..quiet).for_each(|milli| ledger.record_sent(|| at(milli)));
        let mut load = 0;
        for milli in quiet..quiet + 60_000 {
            ledger.record_sent(|| at(milli));
            load += 1;
            // Up to two retries, and four of five attempts fail.
            for attempt in 0..2 {
                if (milli + attempt) % 5 == 0 || !ledger.try_withdraw(1, at(milli)) {
                    break;
                }
                load += 1;
            }
        }
        assert!(load <= 72_600, "{load} is more than 1.21 times 60 000");
        assert!(load > 71_000, "{load}: the budget is there to be used");
    }

    #[test]
    fn of_many_calls_each_64th_reads_the_clock() {
        let begin = start();
        let ledger = ledger(0.2, 0, 10, begin);
        let mut reads = 0;
        let mut send = |calls: u64, now: Instant| {
            let before = reads;
            (0..calls).for_each(|_| {
                ledger.record_sent(|| {
                    reads += 1;
                    now
                })
            });
            reads - before
        };
        assert_eq!(send(MANY, begin), MANY);
        assert_eq!(send(100 * BATCH, begin), 100);
        // Slots are a second long. There are as many in the next one, and few in those that follow.
        assert_eq!(send(100 * BATCH, begin + Duration::from_secs(1)), 100);
        assert_eq!(send(BATCH, begin + Duration::from_secs(2)), 1);
        assert_eq!(send(BATCH, begin + Duration::from_secs(3)), 1, "the batch that finds out");
        assert_eq!(send(100, begin + Duration::from_secs(4)), 100);
        assert_eq!(ledger.balance(begin), 0.2 * (MANY + 202 * BATCH + 100) as f64);
    }

    /// Also after another burst, of which 63 calls at most could not be told from these.
    #[test]
    fn a_burst_earns_its_share_after_any_silence() {
        let begin = start();
        let hours = |hours: u64| begin + Duration::from_secs(3_600 * hours);
        let ledger = ledger(0.2, 0, 2, begin);
        for hour in 1..5 {
            (0..60).for_each(|_| ledger.record_sent(|| hours(hour)));
            assert_eq!((0..60).filter(|_| ledger.try_withdraw(1, hours(hour))).count(), 12);
        }
        for threads in [4, 8] {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..60).for_each(|_| ledger.record_sent(|| hours(threads))));
                }
            });
            let granted = (0..1_000).filter(|_| ledger.try_withdraw(1, hours(threads))).count() as u64;
            assert_eq!(granted, 12 * threads);
        }
        (0..10 * MANY).for_each(|_| ledger.record_sent(|| hours(10)));
        (0..60).for_each(|_| ledger.record_sent(|| hours(11)));
        let granted = (0..10_000).filter(|_| ledger.try_withdraw(1, hours(11))).count();
        assert!((12..=25).contains(&granted), "{granted}");
    }

    #[test]
    fn however_many_calls_were_sent_what_they_earned_lapses() {
        let begin = start();
        for calls in [1, 63, 64, 65, 100, MANY, 100 * BATCH] {
            let ledger = ledger(0.2, 0, 2, begin);
            (0..calls).for_each(|_| ledger.record_sent(|| begin));
            let later = begin + Duration::from_millis(2_200);
            assert!(!ledger.try_withdraw(1, later), "{calls} calls");
            assert_eq!(ledger.balance(later), 0.0);
        }
    }

    #[test]
    fn few_calls_in_a_long_time_earn_only_for_the_part_that_is_recent() {
        let begin = start();
        let ledger = ledger(1.0, 0, 10, begin);
        let at = |tenths: u64| begin + Duration::from_millis(100 * tenths);
        (0..=36_000).for_each(|tenths| ledger.record_sent(|| at(tenths)));
        let balance = ledger.balance(at(36_000));
        assert!((100.0..=110.0).contains(&balance), "{balance} of ten calls a second");
    }

    #[test]
    fn the_slot_of_a_time_is_the_same_whatever_was_asked_before() {
        let begin = start();
        let ledgers = [ledger(0.2, 0, 1, begin), ledger(0.2, 0, 2, begin + Duration::from_millis(30))];
        let millis = [0, 99, 100, 99, 250, 0, 199, 200, 5_000, 129, 130, 229, 230];
        for ledger in ledgers.iter().chain(&ledgers) {
            for now in millis.map(|milli| begin + Duration::from_millis(milli)) {
                let expected = ledger.window.slot_at(ledger.since_start(now));
                assert_eq!([ledger.slot_at(now), ledger.slot_at(now)], [expected; 2]);
            }
        }
    }

    #[test]
    fn calls_of_many_threads_are_entered_once_each() {
        let begin = start();
        let ledger = ledger(1.0, 0, 60, begin);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1_000).for_each(|_| ledger.record_sent(|| begin)));
            }
        });
        assert_eq!(ledger.balance(begin), 8_000.0);
    }

    /// A plain "at most so many in a window" lets them through in one burst a window.
    #[test]
    fn in_a_long_outage_retries_are_as_even_as_the_calls() {
        let begin = start();
        let ledger = ledger(0.2, 0, 10, begin);
        let mut by_second = [0; 30];
        for milli in 0..30_000_u32 {
            let now = begin + Duration::from_millis(milli.into());
            ledger.record_sent(|| now);
            by_second[milli as usize / 1_000] += u32::from(ledger.try_withdraw(1, now));
        }
        assert!(by_second.iter().all(|retries| (199..=201).contains(retries)), "{by_second:?}");
    }

    proptest! {
        /// What it promises, checked against a log of every call and every retry.
        #[test]
        fn at_no_time_are_there_more_retries_than_calls_pay_for(
            calls in prop::collection::vec((0_u64..3_000, 0_u32..3), 1..400), ratio in 1_u32..=10, reserve in 0_u32..30,
        ) {
            let begin = start();
            let ratio = f64::from(ratio) / 10.0;
            let ledger = ledger(ratio, reserve, 10, begin);
            let (mut sent, mut retried): (Vec<u64>, Vec<u64>) = Default::default();
            let mut milli = 0;
            for (gap, wanted) in calls {
                milli += gap;
                let now = begin + Duration::from_millis(milli);
                ledger.record_sent(|| now);
                sent.push(milli);
                for _ in 0..wanted {
                    if ledger.try_withdraw(1, now) {
                        retried.push(milli);
                    }
                }
                let recent = |log: &[u64], millis| log.iter().filter(|&&at| at + millis > milli).count() as f64;
                // Retries of the last window; the calls of it and of the window before, whose credit was still good.
                let paid = ratio * recent(&sent, 21_000) + f64::from(reserve);
                prop_assert!(recent(&retried, 10_000) <= paid);
            }
        }
    }
}

#[cfg(all(test, mainstay_loom))]
mod model {
    use std::sync::Arc;

    use super::*;
    use crate::cores::sync::model::{self, join, spawn, with_interruptions};

    #[test]
    fn each_call_is_entered_once_whoever_enters_it() {
        with_interruptions(2, || {
            let begin = model::now();
            let window = Duration::from_secs(10);
            let config = BudgetConfig { ratio: 1.0, window, reserve: 0, reserve_window: window };
            let ledger = Arc::new(Ledger::new(config, begin));
            let threads = [1, 2].map(|calls| {
                let ledger = Arc::clone(&ledger);
                spawn(move || {
                    (0..calls).for_each(|_| ledger.record_sent(|| begin));
                    ledger.enter(Duration::ZERO);
                })
            });
            threads.into_iter().for_each(join);
            assert_eq!(ledger.balance(begin), 3.0);
            assert_eq!(ledger.balance(begin), 3.0, "not again");
        });
    }

    #[test]
    fn no_two_spend_what_one_call_earned() {
        with_interruptions(2, || {
            let begin = model::now();
            let window = Duration::from_secs(10);
            let config = BudgetConfig { ratio: 1.0, window, reserve: 0, reserve_window: window };
            let ledger = Arc::new(Ledger::new(config, begin));
            let threads = [(); 2].map(|()| {
                let ledger = Arc::clone(&ledger);
                spawn(move || {
                    ledger.record_sent(|| begin);
                    u32::from(ledger.try_withdraw(1, begin))
                })
            });
            let spent: u32 = threads.into_iter().map(join).sum();
            let left = (0..3).filter(|_| ledger.try_withdraw(1, begin)).count() as u32;
            assert_eq!(spent + left, 2);
        });
    }
}
