//! Retry budgets: refunds and bursts.
