//! [`Progress`]: how far a call has come that did not end with its first attempt.

use std::pin::Pin;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::handle::{Cause, Core};
use super::time_limits::WaitLimit;
use crate::backoff;
use crate::cores::unwind::{Guard, Notice};
use crate::outcome::Outcome;
use crate::timer::Timer;

pin_project! {
    /// Most calls never need one.
    #[derive(Debug)]
    #[project = ProgressParts]
    pub(super) struct Progress {
        // For the end of an attempt, of a delay, or of the wait for readiness.
        #[pin]
        pub(super) timer: Timer,
        pub(super) stage: Stage,
        pub(super) delayed_until: Option<Instant>,
        // Set when readiness is first waited for; the inner `None` is no limit.
        pub(super) ready_limit: Option<Option<WaitLimit>>,
        pub(super) delays: backoff::Progress,
        // Some attempt may have reached the callee.
        pub(super) sent: bool,
        // How many tokens of the budget were paid for the attempt that runs, or is waited for.
        pub(super) paid: u32,
        // The copy for the next attempt may be lost while that is waited for.
        pub(super) may_be_lost: bool,
        // Why there is another attempt.
        pub(super) cause: Cause,
        // What the last attempt ended in.
        pub(super) outcome: Outcome,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Attempting,
    /// Waits for the end of a delay, then for the service to be ready for the next attempt.
    Between,
    /// A panic has taken the call along.
    Lost,
}

/// Notices a panic before there is any [`Progress`].
pub(super) struct LostAtFirst<'a> {
    pub(super) core: &'a Core,
    pub(super) progress: Pin<&'a mut Option<Progress>>,
}

/// The same for a later one.
pub(super) struct Lost<'a> {
    pub(super) core: &'a Core,
    pub(super) stage: &'a mut Stage,
    pub(super) paid: u32,
}

// === impl Progress ===

impl Progress {
    pub(super) const fn start() -> Self {
        Self {
            timer: Timer::new(),
            stage: Stage::Attempting,
            delayed_until: None,
            ready_limit: None,
            delays: backoff::Progress::start(),
            sent: false,
            paid: 0,
            may_be_lost: false,
            cause: Cause::NotSent,
            outcome: Outcome::Ignored,
        }
    }
}

// === impl Core ===

impl Core {
    /// Has the budget pay, or be paid, for an attempt that ended, and may have been `sent`; whether one was before is in `any_sent`.
    #[inline]
    pub(super) fn account(&self, any_sent: &mut bool, paid: u32, sent: bool) {
        if sent && !*any_sent {
            *any_sent = true;
            self.budget.record_sent();
        } else if sent {
            self.settle(paid);
        } else {
            self.refund(paid);
        }
    }

    fn settle(&self, paid: u32) {
        (0..paid).for_each(|_| self.budget.settle());
    }

    /// Gives back what was paid for an attempt that is not sent.
    pub(super) fn refund(&self, paid: u32) {
        (0..paid).for_each(|_| self.budget.refund());
    }

    /// A panic came out of the code of others and takes the call along.
    #[cold]
    #[inline(never)]
    pub(super) fn lose(&self, stage: &mut Stage, paid: u32) {
        self.close(*stage, paid);
        *stage = Stage::Lost;
        self.record_panicked();
    }

    /// The same before there is any progress.
    #[cold]
    #[inline(never)]
    fn lose_at_first(&self, mut progress: Pin<&mut Option<Progress>>) {
        progress.set(Some(Progress { stage: Stage::Lost, ..Progress::start() }));
        self.record_panicked();
    }

    /// The caller has left, if the call was not lost before.
    #[cold]
    #[inline(never)]
    pub(super) fn abandon(&self, progress: Option<&Progress>) {
        let (stage, paid) = progress.map_or((Stage::Attempting, 0), |progress| (progress.stage, progress.paid));
        if stage != Stage::Lost {
            self.record_abandoned();
            self.close(stage, paid);
        }
    }

    /// The call ends at this stage and without a result: what was paid for an attempt that has not started is given back.
    fn close(&self, stage: Stage, paid: u32) {
        match stage {
            Stage::Attempting => self.settle(paid),
            _ => self.refund(paid),
        }
    }
}

// === impl LostAtFirst ===

impl<'a> LostAtFirst<'a> {
    #[inline(always)]
    pub(super) const fn guard(core: &'a Core, progress: Pin<&'a mut Option<Progress>>) -> Guard<Self> {
        Guard(Self { core, progress })
    }
}

impl Notice for LostAtFirst<'_> {
    #[inline(always)]
    fn unwound(&mut self) {
        self.core.lose_at_first(self.progress.as_mut());
    }
}

// === impl Lost ===

impl Notice for Lost<'_> {
    #[inline(always)]
    fn unwound(&mut self) {
        self.core.lose(self.stage, self.paid);
    }
}
