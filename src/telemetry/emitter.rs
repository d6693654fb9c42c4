//! [`Emitter`]: the sending end of events.
#![allow(dead_code, reason = "used by the families, each behind its feature")]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Event, Listener};
use crate::name::Name;

/// The name of a layer, and who listens to it.
#[derive(Clone)]
pub(crate) struct Emitter {
    name: &'static Name,
    listener: Option<Arc<dyn Listener>>,
}

impl Emitter {
    pub(crate) fn new(name: &Name, listener: Option<Arc<dyn Listener>>) -> Self {
        Self { name: name.kept(), listener }
    }

    /// The name, as it stands in refusals.
    pub(crate) const fn name(&self) -> &'static Name {
        self.name
    }

    /// Builds the event if anybody listens, and tells them.
    #[inline]
    pub(crate) fn emit<'a>(&'a self, build: impl FnOnce(&'a Name) -> Event<'a>) {
        if self.is_listening() {
            self.send(&build(self.name));
        }
    }

    /// Whether an event would be built.
    #[inline]
    pub(crate) fn is_listening(&self) -> bool {
        #[cfg(feature = "tracing")]
        if super::tracing::is_enabled() {
            return true;
        }
        self.listener.is_some()
    }

    #[cold]
    fn send(&self, event: &Event<'_>) {
        #[cfg(feature = "tracing")]
        super::tracing::send(event);
        if let Some(listener) = &self.listener {
            // The call goes on as if the listener had returned; the panic hook has told the operator.
            let _ = catch_unwind(AssertUnwindSafe(|| listener.on_event(event)));
        }
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter").field("name", &self.name).field("listening", &self.listener.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::event::{CacheEvent, CacheEventKind};

    fn event(name: &Name) -> Event<'_> {
        Event::Cache(CacheEvent { name, kind: CacheEventKind::StoreFailed { operation: "get", reason: "down" } })
    }

    #[test]
    fn nothing_is_built_when_nobody_listens() {
        let emit = || Emitter::new(&Name::from("quiet"), None).emit(|_| unreachable!("nobody listens"));
        #[cfg(feature = "tracing")]
        ::tracing::subscriber::with_default(::tracing::subscriber::NoSubscriber::new(), emit);
        #[cfg(not(feature = "tracing"))]
        emit();
    }

    #[test]
    fn a_panicking_listener_does_not_reach_the_call() {
        let listener: Arc<dyn Listener> = Arc::new(|_: &Event<'_>| panic!("a listener of the test"));
        Emitter::new(&Name::from("loud"), Some(listener)).emit(event);
    }
}
