//! What retries and hedges draw on: a share of the calls that were really sent, over a recent window.
//!
//! # Why
//!
//! Three attempts a call are three times the load, at the very moment the callee fails under load; three layers of such
//! retries are 27 times. A limit on attempts bounds what one call may do; a budget bounds what all of them do together. While
//! few calls fail it never shows; when most of them do, retries stop being sent, and the callee sees 1.2 times the load
//! instead of 3 (with a budget of 10 % in each of three layers, 1.1^3 = 1.33 times).
//!
//! Have one budget for each logical destination, shared (a clone is a cheap handle to the same one) by everything that
//! sends extra calls there.
//!
//! # Examples
//!
//! ```
//! use mainstay::budget::{Budget, BudgetConfig};
//!
//! let mut config = BudgetConfig::default();
//! config.reserve = 0;
//! let budget = Budget::new(config)?;
//! assert!(!budget.try_withdraw(), "nothing was sent yet");
//! for _ in 0..10 {
//!     budget.record_sent();
//! }
//! assert!(budget.try_withdraw() && budget.try_withdraw(), "20 % of 10");
//! assert!(!budget.try_withdraw());
//! # Ok::<(), mainstay::InvalidConfig>(())
//! ```
//!
//! # Semantics
//!
//! By default, extra attempts are at most **20 % of the calls sent, and 10 more in any 10 seconds** (that is 1/s, so that a
//! client that is mostly idle may still retry).
//!
//! * What a call earns can be spent for 2 seconds and lapses then: an hour without failures saves up no more than two
//!   seconds do. At 1000 calls a second, 80 % of which fail for a minute, the callee sees 1.21 times the load at most,
//!   saved-up credit and reserve included. Windows are counted in tenths, and up to a tenth generously.
//! * In a long outage extra attempts are as even as the calls that pay for them.
//! * Only what was sent counts. A call that was refused locally (an open circuit, a limit) earns nothing, and an extra
//!   attempt that was refused locally is given back ([`refund`](Budget::refund)).
//! * An extra attempt earns nothing: else each would pay for the next.
//! * A refund is worth the one token that was withdrawn. It never brings a token back that has lapsed, or that has come back by
//!   itself because the window of the reserve has passed.
//! * Each call is dated exactly and reads the clock, as long as there are fewer than 512 in a tenth of the window. Beyond that,
//!   counting a call ([`record_sent`](Budget::record_sent)) is a load and a store on the thread's own cache line, and each 64th
//!   call of a thread reads the clock, as does each withdrawal. What was counted in between is dated then, so up to 63 calls per
//!   thread can be dated later than they were sent.
//! * Ratio and reserve can be [changed](Budget::reconfigure) while the budget is in use; its balance is kept.
//! * Withdrawals are exact under concurrency: no two spend the same token. What is earned meanwhile is not
//!   lost, but where exactly as much lapses in the same nanoseconds.
//!
//! [`Budget::in_flight`] goes by another rule: extra attempts in flight are at most 20 % of the calls in flight, or 3. Who uses
//! such a budget by hand says when a call starts ([`call_started`](Budget::call_started)) and when an extra attempt has ended
//! ([`settle`](Budget::settle)); a retry does.

mod config;
mod in_flight;
mod ledger;
mod ring;
mod window;

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

pub use config::BudgetConfig;
use in_flight::InFlight;
pub use in_flight::{CallInFlight, InFlightConfig};
use ledger::Ledger;

use crate::error::InvalidConfig;

/// A budget for extra attempts; a clone is a handle to the same one.
///
/// The default is that of [`BudgetConfig`].
///
/// # Examples
///
/// ```
/// use mainstay::budget::Budget;
///
/// let budget = Budget::default();
/// assert_eq!(budget.balance(), 10.0, "what an idle client may spend at once");
/// assert!(budget.clone().try_withdraw());
/// assert_eq!(budget.balance(), 9.0);
/// ```
#[derive(Clone)]
pub struct Budget {
    rule: Rule,
}

#[derive(Clone)]
enum Rule {
    Unlimited,
    /// A share of the calls sent lately.
    Sent(Arc<Ledger>),
    /// A share of the calls in flight.
    InFlight(Arc<InFlight>),
}

// === impl Budget ===

impl Budget {
    /// A budget of its own, full of what an idle client may spend.
    ///
    /// # Errors
    ///
    /// What [`BudgetConfig::validate`] finds.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::{Budget, BudgetConfig};
    ///
    /// let mut config = BudgetConfig::default();
    /// config.ratio = -1.0;
    /// assert_eq!(Budget::new(config).unwrap_err().field(), "ratio");
    /// ```
    pub fn new(config: BudgetConfig) -> Result<Self, InvalidConfig> {
        config.validate()?;
        Ok(Self::valid(config))
    }

    /// A budget that never runs out. Its withdrawals cost nothing, and bound nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::Budget;
    ///
    /// let unlimited = Budget::unlimited();
    /// assert!((0..1000).all(|_| unlimited.try_withdraw()));
    /// assert_eq!(unlimited.balance(), f64::INFINITY);
    /// ```
    #[must_use]
    pub const fn unlimited() -> Self {
        Self { rule: Rule::Unlimited }
    }

    /// A budget of extra attempts in flight: at most a share of the calls in flight, or a minimum, as in Envoy's retry budgets.
    ///
    /// It knows no time: slow extra attempts use it up longer than quick ones, so it bounds the load that is *in* the callee. A
    /// call that fails at once holds its share for hardly any time; against that the default rule is the better one.
    ///
    /// # Errors
    ///
    /// What [`InFlightConfig::validate`] finds.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::{Budget, InFlightConfig};
    ///
    /// let budget = Budget::in_flight(InFlightConfig::default())?;
    /// assert_eq!((0..100).filter(|_| budget.try_withdraw()).count(), 3);
    /// budget.settle();
    /// assert!(budget.try_withdraw(), "one has ended");
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn in_flight(config: InFlightConfig) -> Result<Self, InvalidConfig> {
        config.validate()?;
        Ok(Self { rule: Rule::InFlight(Arc::new(InFlight::new(config))) })
    }

    /// Its settings; `None` when it is unlimited, or goes by what is in flight.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::{Budget, BudgetConfig};
    ///
    /// assert_eq!(Budget::default().config(), Some(BudgetConfig::default()));
    /// assert_eq!(Budget::unlimited().config(), None);
    /// ```
    #[must_use]
    pub fn config(&self) -> Option<BudgetConfig> {
        match &self.rule {
            Rule::Sent(ledger) => Some(ledger.config()),
            Rule::Unlimited | Rule::InFlight(_) => None,
        }
    }

    /// Goes by these settings from now on, for all handles to this budget. The balance is kept: what was earned and not yet
    /// spent stays good for as long as it was, and what was drawn from the reserve counts against the new one.
    ///
    /// # Errors
    ///
    /// What [`BudgetConfig::validate`] finds; another [`window`](BudgetConfig::window) or
    /// [`reserve_window`](BudgetConfig::reserve_window), which cannot change while the budget is in use; or a budget that is
    /// unlimited, or goes by what is in flight. Then nothing changes.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::{Budget, BudgetConfig};
    ///
    /// let budget = Budget::default();
    /// assert!(budget.try_withdraw());
    /// let mut config = BudgetConfig::default();
    /// config.reserve = 5;
    /// budget.reconfigure(config)?;
    /// assert_eq!(budget.balance(), 4.0);
    /// # Ok::<(), mainstay::InvalidConfig>(())
    /// ```
    pub fn reconfigure(&self, config: BudgetConfig) -> Result<(), InvalidConfig> {
        config.validate()?;
        match &self.rule {
            Rule::Sent(ledger) => ledger.reconfigure(config),
            Rule::Unlimited | Rule::InFlight(_) => {
                let requirement = "only a budget that goes by the calls sent has such a ratio";
                Err(InvalidConfig::new("ratio", config.ratio, requirement))
            }
        }
    }

    /// Counts a call that was sent, once a call and not for its extra attempts.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::Budget;
    ///
    /// let budget = Budget::default();
    /// (0..10).for_each(|_| budget.record_sent());
    /// assert_eq!(budget.balance(), 12.0);
    /// ```
    #[inline]
    pub fn record_sent(&self) {
        if let Rule::Sent(ledger) = &self.rule {
            ledger.record_sent(now);
        }
    }

    /// A call is in flight for as long as the answer of this exists. Costs nothing but for a budget of what is in flight.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::Budget;
    ///
    /// let call = Budget::default().call_started();
    /// drop(call);
    /// ```
    #[inline]
    pub fn call_started(&self) -> CallInFlight {
        let Rule::InFlight(in_flight) = &self.rule else { return CallInFlight::NOT_COUNTED };
        in_flight.start_call();
        CallInFlight(Some(in_flight.clone()))
    }

    /// Whether it matters that a call has [started](Self::call_started).
    #[cfg(feature = "retry")]
    pub(crate) const fn counts_in_flight(&self) -> bool {
        matches!(self.rule, Rule::InFlight(_))
    }

    /// Takes what one extra attempt costs; `false`, and nothing taken, when there is less.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::Budget;
    ///
    /// let budget = Budget::default();
    /// assert_eq!((0..100).filter(|_| budget.try_withdraw()).count(), 10);
    /// ```
    #[must_use]
    pub fn try_withdraw(&self) -> bool {
        self.try_withdraw_at(1, now)
    }

    /// Withdraws `cost` times what one extra attempt costs; `false`, and nothing taken, when there is less.
    ///
    /// A retry takes twice as much after a throttle as after any other failure. [`settle`](Self::settle) and
    /// [`refund`](Self::refund) go by one withdrawal: call them `cost` times.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::Budget;
    ///
    /// let budget = Budget::default();
    /// assert_eq!((0..100).filter(|_| budget.try_withdraw_cost(2)).count(), 5);
    /// ```
    #[must_use]
    pub fn try_withdraw_cost(&self, cost: u32) -> bool {
        self.try_withdraw_at(cost, now)
    }

    /// [Withdraws](Self::try_withdraw_cost) at a time that the caller may have read already; a cost of zero does not read it.
    #[inline]
    pub(crate) fn try_withdraw_at(&self, cost: u32, now: impl FnOnce() -> std::time::Instant) -> bool {
        if cost == 0 {
            return true;
        }
        match &self.rule {
            Rule::Unlimited => true,
            Rule::Sent(ledger) => ledger.try_withdraw(cost, now()),
            Rule::InFlight(in_flight) => in_flight.try_start(cost),
        }
    }

    /// The extra attempt of one withdrawal has ended. Only a budget of what is in flight needs to know.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::Budget;
    ///
    /// let budget = Budget::default();
    /// assert!(budget.try_withdraw());
    /// budget.settle();
    /// assert_eq!(budget.balance(), 9.0, "it was sent, and stays spent");
    /// ```
    pub fn settle(&self) {
        if let Rule::InFlight(in_flight) = &self.rule {
            in_flight.end();
        }
    }

    /// Gives back what one withdrawal took: the extra attempt was not sent after all.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::Budget;
    ///
    /// let budget = Budget::default();
    /// assert!(budget.try_withdraw());
    /// budget.refund();
    /// assert_eq!(budget.balance(), 10.0);
    /// ```
    pub fn refund(&self) {
        match &self.rule {
            Rule::Unlimited => {}
            Rule::Sent(ledger) => ledger.refund(now()),
            Rule::InFlight(in_flight) => in_flight.end(),
        }
    }

    /// How many extra attempts may be sent now; a snapshot.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(mainstay::budget::Budget::default().balance(), 10.0);
    /// ```
    #[must_use]
    pub fn balance(&self) -> f64 {
        match &self.rule {
            Rule::Unlimited => f64::INFINITY,
            Rule::Sent(ledger) => ledger.balance(now()),
            Rule::InFlight(in_flight) => in_flight.balance(),
        }
    }

    /// Whether both are handles to the same budget.
    ///
    /// # Examples
    ///
    /// ```
    /// use mainstay::budget::Budget;
    ///
    /// let budget = Budget::default();
    /// assert!(budget.is_same(&budget.clone()));
    /// assert!(!budget.is_same(&Budget::default()));
    /// ```
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.rule, &other.rule) {
            (Rule::Sent(one), Rule::Sent(other)) => Arc::ptr_eq(one, other),
            (Rule::InFlight(one), Rule::InFlight(other)) => Arc::ptr_eq(one, other),
            (Rule::Unlimited, Rule::Unlimited) => true,
            _ => false,
        }
    }

    fn valid(config: BudgetConfig) -> Self {
        Self { rule: Rule::Sent(Arc::new(Ledger::new(config, now()))) }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::valid(BudgetConfig::default())
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("config", &self.config()).field("balance", &self.balance()).finish()
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
