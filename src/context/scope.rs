//! [`Scope`]: what a layer sets for what it wraps, and [`InScope`], a future that is polled and dropped under it.

use super::*;

/// Fields that a layer sets for what it wraps.
pub(crate) trait Scope {
    /// What the thread-local held before.
    type Outer: Copy;

    /// Sets the scope's own fields.
    fn enter(&mut self) -> Self::Outer;

    /// Restores them, and keeps what the inner side noted.
    fn leave(&mut self, outer: Self::Outer);
}

/// Sets the deadline.
#[derive(Debug)]
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) struct DeadlineScope(pub(crate) Option<Instant>);

/// Sets what a timeout limits: the deadline of a whole call, or the end of an attempt.
#[derive(Debug)]
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) enum TimeoutScope {
    Total(Option<Instant>),
    Attempt(Option<Instant>),
}

/// Sets the attempt and its end, and takes the notes of the layers below.
#[derive(Debug)]
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) struct AttemptScope {
    attempt: Attempt,
    /// `None` leaves the end that is set further out.
    end: Option<Instant>,
    tried: Tried,
    given_up: Identities,
}

/// Sets what a [`Context`] holds. Notes of the layers below belong to the attempt around it, and pass through.
#[derive(Debug)]
pub(crate) struct ContextScope(pub(crate) Context);

/// Sets everything, and keeps the notes of the layers below from the attempt around it.
#[derive(Debug)]
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) struct FullScope {
    deadline: DeadlineScope,
    attempt_end: Option<Instant>,
    attempt: AttemptScope,
    criticality: Criticality,
}

/// Empties everything: for work that belongs to no single caller.
#[derive(Debug)]
#[allow(dead_code, reason = "used by the families, each behind its feature")]
pub(crate) struct IsolatedScope(FullScope);

impl Scope for DeadlineScope {
    type Outer = Option<Instant>;

    #[inline]
    fn enter(&mut self) -> Option<Instant> {
        DEADLINE.replace(self.0)
    }

    #[inline]
    fn leave(&mut self, outer: Option<Instant>) {
        DEADLINE.set(outer);
    }
}

impl Scope for TimeoutScope {
    type Outer = Option<Instant>;

    #[inline]
    fn enter(&mut self) -> Option<Instant> {
        match *self {
            Self::Total(deadline) => DEADLINE.replace(deadline),
            Self::Attempt(end) => ATTEMPT_END.replace(end),
        }
    }

    #[inline]
    fn leave(&mut self, outer: Option<Instant>) {
        match self {
            Self::Total(_) => DEADLINE.set(outer),
            Self::Attempt(_) => ATTEMPT_END.set(outer),
        }
    }
}

impl Scope for AttemptScope {
    /// The end is `None` where the scope left it alone.
    type Outer = (Attempt, Option<Option<Instant>>);

    #[inline(always)]
    fn enter(&mut self) -> Self::Outer {
        let outer = ATTEMPT.get();
        // A retry that gave up in an earlier poll, without an error that can be told from others, no longer counts.
        let own = self.attempt.0 & !Attempt::GAVE_UP;
        if (outer.0 | own) & (Attempt::NOTED | Attempt::MARKED) == 0 {
            ATTEMPT.set(Attempt(own));
        } else {
            self.exchange();
            ATTEMPT.set(Attempt(own | Attempt::EXCHANGED));
        }
        let end = if self.end.is_some() { Some(ATTEMPT_END.replace(self.end)) } else { None };
        (outer, end)
    }

    #[inline(always)]
    fn leave(&mut self, (outer, end): Self::Outer) {
        if let Some(end) = end {
            ATTEMPT_END.set(end);
        }
        let left = ATTEMPT.replace(outer);
        if left != self.attempt {
            // Unless they were exchanged, none were noted outside.
            if left.0 & (Attempt::EXCHANGED | Attempt::NOTED | Attempt::MARKED) != 0 {
                self.exchange();
            }
            self.attempt = Attempt(left.0 & !Attempt::EXCHANGED);
        }
    }
}

#[allow(dead_code, reason = "used by the families, each behind its feature")]
impl AttemptScope {
    #[inline]
    pub(crate) const fn new(attempt: Attempt) -> Self {
        Self { attempt, end: None, tried: Tried::NONE, given_up: Identities::NONE }
    }

    /// Exchanges the notes that are kept beside the attempt with those in the thread-locals.
    #[cold]
    #[inline(never)]
    fn exchange(&mut self) {
        self.tried = TRIED.replace(self.tried);
        self.given_up = GIVEN_UP.replace(self.given_up);
    }

    /// Whether a retry inside gave up with what the attempt ended in. `is_among` says whether that is one of some errors, or
    /// `None` if it cannot be told from others.
    pub(crate) fn gave_up(&self, is_among: impl FnOnce(Identities) -> Option<bool>) -> bool {
        let known = if self.attempt.is_marked() { is_among(self.given_up) } else { None };
        known.unwrap_or(self.attempt.gave_up_in_this_poll())
    }

    /// Sets the end of the attempt, which must be the nearest; `None` leaves what is set further out.
    #[inline]
    pub(crate) const fn set_end(&mut self, end: Option<Instant>) {
        self.end = end;
    }

    /// The attempt, with what was noted in it so far.
    pub(crate) const fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Goes on to the next attempt, which knows what the last has tried.
    pub(crate) const fn next_attempt(&mut self) {
        self.attempt = self.attempt.next();
        self.end = None;
    }
}

impl Scope for ContextScope {
    type Outer = Context;

    fn enter(&mut self) -> Context {
        let outer = current();
        self.set();
        outer
    }

    fn leave(&mut self, outer: Context) {
        Self(outer).set();
    }
}

impl ContextScope {
    fn set(&self) {
        let Context { deadline, attempt_end, attempt, criticality } = self.0;
        DEADLINE.set(deadline);
        ATTEMPT_END.set(attempt_end);
        ATTEMPT.set(ATTEMPT.get().with_number(attempt));
        CRITICALITY.set(criticality);
    }
}

impl Scope for FullScope {
    type Outer = (Option<Instant>, Option<Instant>, <AttemptScope as Scope>::Outer, Criticality);

    fn enter(&mut self) -> Self::Outer {
        let criticality = CRITICALITY.replace(self.criticality);
        let attempt_end = ATTEMPT_END.replace(self.attempt_end);
        (self.deadline.enter(), attempt_end, self.attempt.enter(), criticality)
    }

    fn leave(&mut self, (deadline, attempt_end, attempt, criticality): Self::Outer) {
        self.deadline.leave(deadline);
        ATTEMPT_END.set(attempt_end);
        self.attempt.leave(attempt);
        CRITICALITY.set(criticality);
    }
}

#[allow(dead_code, reason = "used by the families, each behind its feature")]
impl FullScope {
    /// Whether a retry inside gave up in the last poll.
    pub(crate) const fn gave_up(&self) -> bool {
        self.attempt.attempt.gave_up_in_this_poll()
    }
}

impl From<Context> for FullScope {
    fn from(context: Context) -> Self {
        Self {
            deadline: DeadlineScope(context.deadline),
            attempt_end: context.attempt_end,
            attempt: AttemptScope::new(Attempt::new(context.attempt)),
            criticality: context.criticality,
        }
    }
}

#[allow(dead_code, reason = "used by the families, each behind its feature")]
impl IsolatedScope {
    pub(crate) fn new() -> Self {
        Self(Context::new().into())
    }
}

impl Scope for IsolatedScope {
    type Outer = <FullScope as Scope>::Outer;

    fn enter(&mut self) -> Self::Outer {
        self.0.enter()
    }

    fn leave(&mut self, outer: Self::Outer) {
        self.0.leave(outer);
    }
}

/// Leaves a scope when it is [told](Self::leave) to, or dropped on unwinding.
pub(crate) struct Entered<'a, S: Scope> {
    scope: &'a mut S,
    outer: S::Outer,
}

impl<'a, S: Scope> Entered<'a, S> {
    #[inline(always)]
    fn new(scope: &'a mut S) -> Self {
        let outer = scope.enter();
        Self { scope, outer }
    }

    /// The same as to drop it, but in line.
    #[inline(always)]
    pub(crate) fn leave(self) {
        let entered = &mut *ManuallyDrop::new(self);
        entered.scope.leave(entered.outer);
    }
}

impl<S: Scope> Drop for Entered<'_, S> {
    #[inline]
    fn drop(&mut self) {
        self.scope.leave(self.outer);
    }
}

/// Runs `work` with the scope's fields set, and restores them on the way out, on unwinding too.
#[inline(always)]
pub(crate) fn within<S: Scope, R>(scope: &mut S, work: impl FnOnce() -> R) -> R {
    let entered = Entered::new(scope);
    let result = work();
    entered.leave();
    result
}

pin_project! {
    /// Polls and drops a future inside a scope.
    #[derive(Debug)]
    pub(crate) struct InScope<S: Scope, F> {
        scope: S,
        // `None` once it finished or was cleared.
        #[pin]
        future: Option<F>,
    }

    impl<S: Scope, F> PinnedDrop for InScope<S, F> {
        #[inline]
        fn drop(this: Pin<&mut Self>) {
            if this.future.is_some() {
                this.abandon();
            }
        }
    }
}

#[allow(dead_code, reason = "used by the families, each behind its feature")]
impl<S: Scope, F> InScope<S, F> {
    pub(crate) const fn new(scope: S, future: F) -> Self {
        Self { scope, future: Some(future) }
    }

    /// Without a future: there is nothing to poll.
    pub(crate) const fn empty(scope: S) -> Self {
        Self { scope, future: None }
    }

    /// Makes the future inside the scope: for the inner service's `call`.
    #[inline(always)]
    pub(crate) fn call(mut scope: S, make: impl FnOnce() -> F) -> Self {
        let future = within(&mut scope, make);
        Self::new(scope, future)
    }

    pub(crate) const fn scope(&self) -> &S {
        &self.scope
    }

    pub(crate) fn scope_mut(self: Pin<&mut Self>) -> &mut S {
        self.project().scope
    }

    /// Drops the future now, inside the scope.
    #[inline]
    pub(crate) fn clear(self: Pin<&mut Self>) {
        if self.future.is_some() {
            self.abandon();
        }
    }

    /// Out of the way of futures that have finished.
    #[inline(never)]
    fn abandon(self: Pin<&mut Self>) {
        let mut this = self.project();
        within(this.scope, || this.future.set(None));
    }

    /// Puts the next future in, made inside the scope, and dropping the last one there.
    #[inline(always)]
    pub(crate) fn set(mut self: Pin<&mut Self>, make: impl FnOnce() -> F) {
        self.as_mut().clear();
        let mut this = self.project();
        let future = within(this.scope, make);
        this.future.set(Some(future));
    }

    /// Enters the scope, for who polls the future by itself: a result that passes through one function less is copied once less.
    #[inline(always)]
    pub(crate) fn enter(self: Pin<&mut Self>) -> (Entered<'_, S>, Pin<&mut Option<F>>) {
        let this = self.project();
        (Entered::new(this.scope), this.future)
    }

    /// Whether there is a future to poll.
    #[inline]
    pub(crate) const fn is_running(&self) -> bool {
        self.future.is_some()
    }
}

impl<S: Scope, F: Future> Future for InScope<S, F> {
    type Output = F::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let entered = Entered::new(this.scope);
        let polled = match this.future.as_mut().as_pin_mut() {
            Some(running) => running.poll(cx),
            // Polled after `clear`: as a finished future, it has nothing more to say.
            None => Poll::Pending,
        };
        if polled.is_ready() {
            // Dropped where it finished, so that nobody has to come back into the scope for that.
            this.future.set(None);
        }
        entered.leave();
        polled
    }
}
