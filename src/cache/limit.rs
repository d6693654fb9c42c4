//! [`Within`]: a future and the time it may take, without a timer for what is ready at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that fires later than this fired late: the process was stopped, or starved.
const LATE: Duration = Duration::from_millis(20);

pin_project! {
    /// `Some(output)`, or `None` when the time is over. The time starts with the first poll.
    pub(crate) struct Within<F> {
        limit: Option<Duration>,
        yielded: bool,
        #[pin]
        future: F,
        #[pin]
        timer: Option<Sleep>,
    }
}

// === impl Within ===

impl<F> Within<F> {
    pub(crate) const fn new(limit: Option<Duration>, future: F) -> Self {
        Self { limit, yielded: false, future, timer: None }
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        if this.timer.is_none()
            && let Some(deadline) = this.limit.take().and_then(|limit| Instant::now().checked_add(limit))
        {
            this.timer.set(Some(sleep_until(deadline)));
        }
        let Some(timer) = this.timer.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let deadline = timer.deadline();
        // The future may have used up the task's budget; its timer fires all the same.
        if std::pin::pin!(coop::unconstrained(timer)).poll(cx).is_pending() {
            return Poll::Pending;
        }
        if !*this.yielded && Instant::now().saturating_duration_since(deadline) > LATE {
            // The answer may have arrived meanwhile: I/O gets a turn before the callee is blamed.
            *this.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};

    use tokio_test::{assert_pending, assert_ready_eq, task};

    use super::*;

    #[test]
    fn what_is_ready_at_once_needs_no_timer_and_no_runtime() {
        let mut within = task::spawn(Within::new(Some(Duration::from_millis(1)), ready(7)));
        assert_ready_eq!(within.poll(), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_over_at_its_end_even_for_a_future_that_spends_the_budget() {
        let greedy = poll_fn(|cx| {
            while let Poll::Ready(spent) = coop::poll_proceed(cx) {
                spent.made_progress();
            }
            Poll::<()>::Pending
        });
        let within = tokio::spawn(Within::new(Some(Duration::from_millis(50)), greedy));
        tokio::task::yield_now().await;
        assert!(!within.is_finished());
        // The greedy future wakes itself for ever, so a paused clock does not move on its own.
        tokio::time::advance(Duration::from_millis(51)).await;
        tokio::task::yield_now().await;
        assert!(within.is_finished());
        assert_eq!(within.await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_timer_yields_once_before_it_blames() {
        let mut within = task::spawn(Within::new(Some(Duration::from_millis(50)), pending::<()>()));
        assert_pending!(within.poll());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_pending!(within.poll());
        assert!(within.is_woken());
        assert_ready_eq!(within.poll(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_wins_over_a_time_that_is_over() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut within = task::spawn(Within::new(Some(Duration::from_millis(50)), told));
        assert_pending!(within.poll());
        tokio::time::advance(Duration::from_secs(5)).await;
        tell.send(7).unwrap();
        assert_ready_eq!(within.poll(), Some(Ok(7)));
    }
}
