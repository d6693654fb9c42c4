//! [`Gate`]: how a monitor ends the work of a prober for good, also while it runs on another thread.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::cores::lock::lock;

/// A prober is inside of its gate while it runs the user's code at once: the first step of a check, or the listener of an event.
///
/// Once the gate is closed and [`wait`](Self::wait) has returned, no such code begins any more.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    inside: bool,
}

/// Leaves the gate when it is dropped; it never leaves the thread that entered.
pub(crate) struct Inside<'a>(&'a Gate);

thread_local! {
    /// How many gates this thread is inside of.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

// === impl Gate ===

impl Gate {
    /// `None` once the gate is closed. Only its one prober enters.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        state.inside = true;
        INSIDE.set(INSIDE.get() + 1);
        Some(Inside(self))
    }

    /// Lets nothing enter from now on.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
    }

    /// Waits until the prober has left the gate.
    ///
    /// A probe or a listener that ends checks itself does not wait: neither for itself, nor for another that may be waiting for it.
    pub(crate) fn wait(&self) {
        if INSIDE.get() > 0 {
            return;
        }
        let mut state = lock(&self.state);
        while state.inside {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

// === impl Inside ===

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get() - 1);
        lock(&self.0.state).inside = false;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_closed_gate_lets_nothing_in() {
        let gate = Gate::default();
        drop(gate.enter().unwrap());
        gate.close();
        assert!(gate.enter().is_none());
        gate.wait();
    }

    #[test]
    fn what_is_inside_on_another_thread_is_waited_for() {
        let gate = Gate::default();
        let (entered, has_entered) = mpsc::channel();
        std::thread::scope(|scope| {
            let prober = scope.spawn(|| {
                let inside = gate.enter().unwrap();
                entered.send(()).unwrap();
                // Once the gate is closed nothing keeps this thread from leaving last but the wait itself.
                while !lock(&gate.state).closed {
                    std::thread::yield_now();
                }
                drop(inside);
            });
            has_entered.recv().unwrap();
            gate.close();
            gate.wait();
            assert!(!lock(&gate.state).inside);
            prober.join().unwrap();
        });
    }

    #[test]
    fn what_is_inside_of_a_gate_waits_for_none() {
        let (own, other) = (Gate::default(), Gate::default());
        let _inside = own.enter().unwrap();
        let held = other.enter().unwrap();
        own.close();
        own.wait();
        other.wait();
        drop(held);
        assert!(own.enter().is_none());
    }
}
