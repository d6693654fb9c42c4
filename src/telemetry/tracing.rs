//! Events as `tracing` events, with the target `mainstay`.
//!
//! What happens to a single call (a retry, a timeout) is `DEBUG`: in an outage there is one a request. What changes the
//! state of a part is `WARN` when it got worse, `INFO` when it did not.

use ::tracing::level_filters::LevelFilter;
use ::tracing::{Level, enabled, event};

use super::Event;

const TARGET: &str = "mainstay";

#[inline]
pub(super) fn is_enabled() -> bool {
    // What everybody asks first, in line; who listens is asked out of line.
    LevelFilter::current() >= LevelFilter::WARN && is_enabled_for_us()
}

#[cold]
#[inline(never)]
fn is_enabled_for_us() -> bool {
    enabled!(target: TARGET, Level::WARN)
}

pub(super) fn send(happened: &Event<'_>) {
    macro_rules! send {
        ($level:expr) => {
            event!(
                target: TARGET,
                $level,
                family = happened.family(),
                name = happened.name().as_str(),
                kind = happened.kind(),
                "{happened}"
            )
        };
    }
    match happened {
        Event::Retry(_) | Event::Timeout(_) => send!(Level::DEBUG),
        _ if happened.is_warning() => send!(Level::WARN),
        _ => send!(Level::INFO),
    }
}
