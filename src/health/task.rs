//! The task of one target: pause, check, record, for ever.

use std::any::Any;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::config::MonitorConfig;
use super::monitor::Key;
use super::probe::DynProbe;
use super::shared::Prober;
use super::status::CheckFailure;
use crate::cores::random::{thread_draw, unit};

pub(crate) async fn run<K: Key>(mut prober: Prober<K>, probe: Arc<dyn DynProbe>, wake: Arc<Notify>) {
    let mut config = prober.shared().watch_config();
    let mut started = Instant::now();
    let draw = unit(thread_draw());
    wait(&mut config, &wake, |config| config.first_pause(draw).saturating_sub(started.elapsed())).await;
    loop {
        started = Instant::now();
        let now_in_force = config.borrow().clone();
        let Some(result) = begin(&prober, check(&*probe, now_in_force.timeout)).await else { return };
        prober.record(result, &now_in_force);
        let pace = prober.core().pace();
        let draw = unit(thread_draw());
        wait(&mut config, &wake, |config| config.pause(pace, draw).saturating_sub(started.elapsed())).await;
    }
}

/// Runs a check whose first step happens inside of the prober's gate; `None` if that is closed.
async fn begin<K: Key, T>(prober: &Prober<K>, check: impl Future<Output = T>) -> Option<T> {
    let mut check = pin!(check);
    let mut begun = false;
    poll_fn(|cx| {
        if begun {
            return check.as_mut().poll(cx).map(Some);
        }
        begun = true;
        let Some(_inside) = prober.gate().enter() else { return Poll::Ready(None) };
        check.as_mut().poll(cx).map(Some)
    })
    .await
}

/// One check: whatever goes wrong in it, down to a panic in a drop, is its failure.
async fn check(probe: &dyn DynProbe, limit: Duration) -> Result<(), CheckFailure> {
    let checked = AssertUnwindSafe(async { timeout(limit, async { probe.check_boxed().await }).await });
    match checked.catch_unwind().await {
        Ok(Ok(Ok(()))) => Ok(()),
        // The error is the user's own, and its `Display` may panic as well.
        Ok(Ok(Err(error))) => match std::panic::catch_unwind(AssertUnwindSafe(|| cut(&error.to_string()))) {
            Ok(text) if error.is_answer() => Err(CheckFailure::Answered(text)),
            Ok(text) => Err(CheckFailure::Failed(text)),
            Err(panic) => Err(CheckFailure::Panicked(message(&*panic))),
        },
        Ok(Err(_elapsed)) => Err(CheckFailure::TimedOut { limit }),
        Err(panic) => Err(CheckFailure::Panicked(message(&*panic))),
    }
}

/// Waits for `remaining`, measured anew when the settings change; less when woken.
async fn wait(
    config: &mut watch::Receiver<MonitorConfig>,
    wake: &Notify,
    remaining: impl Fn(&MonitorConfig) -> Duration,
) {
    let mut woken = pin!(wake.notified());
    loop {
        let pause = remaining(&config.borrow_and_update());
        if pause.is_zero() {
            // A probe that never waits must not keep its thread, nor be out of reach of an abort.
            tokio::task::yield_now().await;
            return;
        }
        let mut slept = pin!(sleep(pause));
        let mut changed = pin!(config.changed());
        let over = poll_fn(|cx| {
            if slept.as_mut().poll(cx).is_ready() || woken.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            changed.as_mut().poll(cx).map(|_| false)
        })
        .await;
        if over {
            return;
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> Arc<str> {
    let text = panic.downcast_ref::<&str>().copied();
    cut(text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message"))
}

/// At most 256 bytes: what a target answers must not fill memory, logs and pages.
pub(crate) fn cut(text: &str) -> Arc<str> {
    const LONGEST: usize = 256;
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(&*cut("short"), "short");
        assert_eq!(cut(&"a".repeat(1_000)).len(), 256);
        assert_eq!(cut(&"ä€".repeat(1_000)).chars().filter(|c| *c == 'ä').count(), 51);
    }

    #[test]
    fn a_panic_says_its_message() {
        assert_eq!(&*message(&"static"), "static");
        assert_eq!(&*message(&String::from("made")), "made");
        assert_eq!(&*message(&7_u8), "no message");
    }
}
