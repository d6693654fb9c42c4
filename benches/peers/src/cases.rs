//! The paths, and each library's way through them.

use std::future::ready;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use backon::{ConstantBuilder, Retryable as _};
use governor::{Quota, RateLimiter};
use mainstay::balance::Picker;
use mainstay::budget::Budget;
use mainstay::telemetry::TelemetryLayer;
use mainstay_instructions::bare::{Bare, Failed, Script};
use mainstay_instructions::callgrind::Plan;
use mainstay_instructions::subject::{Handle, Subject, closure, service, succeeds};
use tower::timeout::Timeout;
use tower::{Layer, Service};

use crate::peers::{resilience, seatbelt};
use crate::{ours, peers};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

const BARE: &str = "bare";
const BARE_PENDING: &str = "bare, pending once";
const BY_COUNT: &str = "breaker closed, count window";
const CONSECUTIVE: &str = "breaker closed, consecutive failures";
const BY_TIME: &str = "breaker closed, 60 s window";
/// The same, when it holds so many calls.
const BY_TIME_HOLDING: [(&str, u64); 3] = [
    ("breaker closed, 60 s window that holds no call", 0),
    ("breaker closed, 60 s window that holds 1 000 calls", 1_000),
    ("breaker closed, 60 s window that holds 10 000 calls", 10_000),
];
/// Windows that hold failures: one call of so many.
const FAILING: [(&str, u32); 2] = [
    ("breaker closed, count window, 1 call of 10 fails", 10),
    ("breaker closed, count window, 1 call of 100 fails", 100),
];
const FAILING_BY_TIME: [(&str, u32); 2] = [
    ("breaker closed, 60 s window, 1 call of 10 fails", 10),
    ("breaker closed, 60 s window, 1 call of 1 000 fails", 1_000),
];
const KEYED: [(&str, u64); 2] = [("keyed breaker, 1 key", 1), ("keyed breaker, 1 000 keys", 1_000)];
const OPEN: &str = "breaker open";
const HALF_OPEN: &str = "breaker half-open, refusal";
const BUDGET: &str = "retry with budget";
const BUDGET_FAILURE: &str = "retry with budget, one failure";
const NO_BUDGET: &str = "retry without budget";
const FUTURE: &str = "retry of a future";
const FUTURE_FAILURE: &str = "retry of a future, one failure";
const FUTURE_TIMER: &str = "retry of a future, one failure, default sleeper";
const READY: &str = "timeout, ready";
const PENDING: &str = "timeout, pending once";
const STACK: &str = "timeout > retry > breaker";
const DEADLINE_FAILURE: &str = "timeout > retry with budget, one failure";
const IN_FLIGHT: [(&str, u32); 2] =
    [("pool, least in flight, 10 endpoints", 10), ("pool, least in flight, 10 000 endpoints", 10_000)];
const EWMA: [(&str, u32); 2] = [("pool, peak EWMA, 10 endpoints", 10), ("pool, peak EWMA, 10 000 endpoints", 10_000)];
const HIT: &str = "cache hit";
const TELEMETRY: &str = "telemetry";
const CLIENT: &str = "timeout > retry > pool of 10 [ breaker > timeout ]";
const ADMITS: &str = "for comparison: a rate limiter that admits";
const DENIES: &str = "for comparison: a rate limiter that denies";

const ZERO_BY_TIMER: &str = "it takes a zero delay to tokio's timer, which waits for about a millisecond";
const NOTHING_WAITED_FOR: &str = "with a sleeper that is ready at once; without one, see `default sleeper`";
const WAITS_FOR_LOCK: &str = "two threads: whoever finds its lock taken in `poll_ready` waits for a millisecond";
const NOT_CLONE: &str = "its balancer cannot be cloned: two threads need a buffer";
const ADMITS_ALL: &str = "a half-open circuit of it admits every call, and refuses none";

/// One library on one path.
pub(crate) struct Case {
    pub(crate) path: &'static str,
    pub(crate) library: &'static str,
    /// Which calls succeed.
    succeeds: Succeeds,
    /// Whether every call waits for a timer.
    waits: bool,
    /// Whether two threads can call one instance; a service that cannot be cloned has neither that figure nor a clone per call.
    pub(crate) is_clone: bool,
    /// Why there is nothing to measure, or what to know of what was.
    pub(crate) note: Option<&'static str>,
    make: Make,
}

#[derive(Clone, Copy)]
enum Succeeds {
    All,
    None,
    /// All but one in this many.
    AllButOneIn(u64),
}

enum Make {
    Plain(Box<dyn Fn() -> Box<dyn Subject> + Sync>),
    /// A breaker over a time window, and how many calls are to be in it.
    Window(fn() -> Window, u64),
    /// The library has no such thing.
    Nothing,
}

/// A breaker over a time window.
pub(crate) struct Window {
    pub(crate) subject: Box<dyn Subject>,
    pub(crate) empty: Box<dyn Fn() + Sync>,
}

/// What can be called.
pub(crate) struct Made {
    pub(crate) subject: Box<dyn Subject>,
    window: Option<(Box<dyn Fn() + Sync>, u64)>,
}

// === impl Case ===

impl Case {
    fn refused(&mut self) {
        self.succeeds = Succeeds::None;
    }

    fn fails_one_in(&mut self, calls: u32) -> &mut Self {
        self.succeeds = Succeeds::AllButOneIn(calls.into());
        self
    }

    fn not_clone(&mut self) -> &mut Self {
        self.is_clone = false;
        self
    }

    /// How many of `calls` succeed.
    pub(crate) fn successes(&self, calls: u64) -> u64 {
        match self.succeeds {
            Succeeds::All => calls,
            Succeeds::None => 0,
            Succeeds::AllButOneIn(number) => calls - calls / number,
        }
    }

    fn note(&mut self, note: &'static str) -> &mut Self {
        self.note = Some(note);
        self
    }

    fn waits(&mut self) {
        self.waits = true;
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.library == "bare"
    }

    /// Whether there is something to measure.
    pub(crate) fn exists(&self) -> bool {
        !matches!(self.make, Make::Nothing)
    }

    /// Whether each call may make the next one dearer.
    pub(crate) fn grows(&self) -> bool {
        matches!(self.make, Make::Window(..))
    }

    /// # Panics
    ///
    /// Where there is nothing to measure.
    pub(crate) fn make(&self) -> Made {
        match &self.make {
            Make::Plain(make) => Made { subject: make(), window: None },
            &Make::Window(make, holding) => {
                let Window { subject, empty } = make();
                Made { subject, window: Some((empty, holding)) }
            }
            Make::Nothing => panic!("{} has no {}", self.library, self.path),
        }
    }

    /// Calls that fill windows, and calls that count.
    pub(crate) fn plan(&self) -> Plan {
        match self.make {
            _ if self.waits => Plan { warm_up: 20, counted: 50 },
            Make::Window(..) => Plan { warm_up: 100, counted: 100 },
            _ => Plan { warm_up: 1_000, counted: 2_000 },
        }
    }

    /// The path of the bare service that it is compared with: the cheapest one for every library, so that the error that a
    /// library asks of its users is part of its cost.
    pub(crate) fn over(&self) -> &'static str {
        match self.path {
            PENDING | BARE_PENDING => BARE_PENDING,
            _ => BARE,
        }
    }
}

// === impl Made ===

impl Made {
    /// Whether each call may make the next one dearer.
    pub(crate) fn grows(&self) -> bool {
        self.window.is_some()
    }

    /// Lets a time window hold the calls that it is to hold.
    pub(crate) fn refill(&self) {
        if let Some((empty, calls)) = &self.window {
            empty();
            self.subject.calls(Handle::Reused)(*calls);
        }
    }
}

/// The place of the bare service that `case` is compared with.
pub(crate) fn bare_of(cases: &[&Case], case: &Case) -> usize {
    cases.iter().position(|other| other.path == case.over()).expect("bare services are never filtered out")
}

/// The service inside of the peers' layers.
pub(crate) fn answers() -> Bare<Failed> {
    Bare::new(Script::Answers)
}

#[derive(Default)]
struct List(Vec<Case>);

impl List {
    fn add(&mut self, path: &'static str, library: &'static str, make: Make) -> &mut Case {
        let succeeds = Succeeds::All;
        self.0.push(Case { path, library, succeeds, waits: false, is_clone: true, note: None, make });
        self.0.last_mut().expect("just pushed")
    }

    fn case(
        &mut self,
        path: &'static str,
        library: &'static str,
        make: impl Fn() -> Box<dyn Subject> + Sync + 'static,
    ) -> &mut Case {
        self.add(path, library, Make::Plain(Box::new(make)))
    }

    fn none(&mut self, path: &'static str, library: &'static str, why: &'static str) {
        self.add(path, library, Make::Nothing).note(why);
    }
}

/// All cases; the bare services come first.
pub(crate) fn all() -> Vec<Case> {
    let mut list = List::default();
    list.case(BARE, "bare", || service(answers()));
    list.case(BARE_PENDING, "bare", || service(Bare::<Failed>::new(Script::PendingOnce)));
    breakers(&mut list);
    retries(&mut list);
    timeouts_and_stack(&mut list);
    pools_and_caches(&mut list);
    list.0
}

fn breakers(list: &mut List) {
    list.case(BY_COUNT, "mainstay", || ours::closed(|_| ()));
    list.case(BY_COUNT, "tower-resilience", || service(resilience::by_count().layer(answers())));
    list.case(BY_COUNT, "recloser", || peers::recloser(false, Script::Answers));
    list.none(BY_COUNT, "failsafe", "it has no count window");

    list.case(CONSECUTIVE, "mainstay", || {
        ours::closed(|config| (config.failure_rate, config.consecutive_failures) = (None, Some(5)))
    });
    list.case(CONSECUTIVE, "tower-resilience", || service(resilience::consecutive().layer(answers())));
    list.case(CONSECUTIVE, "failsafe", || peers::failsafe_consecutive(false));
    list.none(CONSECUTIVE, "recloser", "it judges by rate only");

    list.case(BY_TIME, "mainstay", || ours::closed(ours::minute));
    list.none(
        BY_TIME,
        "tower-resilience",
        "its cost grows with the calls in the window: see the windows that hold some",
    );
    list.case(BY_TIME, "failsafe", || peers::failsafe_minute(Script::Answers));
    list.case(BY_TIME, "seatbelt", || seatbelt::breaker(None));
    list.none(BY_TIME, "recloser", "it has no time window");
    for (path, calls) in BY_TIME_HOLDING {
        list.add(path, "mainstay", Make::Window(ours::time_window, calls));
        list.add(path, "tower-resilience", Make::Window(resilience::time_window, calls));
    }

    for (path, calls) in FAILING {
        let script = Script::FailsOneIn(calls);
        list.case(path, "mainstay", move || ours::failing(calls, |_| ())).fails_one_in(calls);
        list.case(path, "recloser", move || peers::recloser(false, script)).fails_one_in(calls);
        list.case(path, "tower-resilience", move || resilience::failing(calls)).fails_one_in(calls);
    }
    for (path, calls) in FAILING_BY_TIME {
        let script = Script::FailsOneIn(calls);
        list.case(path, "mainstay", move || ours::failing(calls, ours::minute)).fails_one_in(calls);
        list.case(path, "failsafe", move || peers::failsafe_minute(script)).fails_one_in(calls);
        list.case(path, "seatbelt", move || seatbelt::breaker(Some(calls))).fails_one_in(calls);
    }
    for (path, keys) in KEYED {
        list.case(path, "mainstay", move || ours::keyed(keys));
        list.case(path, "seatbelt", move || seatbelt::keyed(keys));
    }

    list.case(OPEN, "mainstay", ours::open).refused();
    list.case(OPEN, "seatbelt", seatbelt::open).refused();
    list.case(OPEN, "tower-resilience", resilience::open).note(WAITS_FOR_LOCK).refused();
    list.case(OPEN, "recloser", || peers::recloser(true, Script::Answers)).refused();
    list.case(OPEN, "failsafe", || peers::failsafe_consecutive(true)).refused();

    list.case(HALF_OPEN, "mainstay", ours::half_open).refused();
    list.case(HALF_OPEN, "tower-resilience", resilience::half_open).note(WAITS_FOR_LOCK).refused();
    list.none(HALF_OPEN, "recloser", ADMITS_ALL);
    list.none(HALF_OPEN, "failsafe", ADMITS_ALL);
}

fn retries(list: &mut List) {
    list.case(BUDGET, "mainstay", || service(ours::retry(ours::one_in_one()).layer(ours::bare(Script::Answers))));
    list.case(BUDGET, "tower", || service(peers::tower_retry_with_budget().layer(answers())));
    list.case(BUDGET, "tower-resilience", || service(resilience::retry_with_budget().layer(answers())));
    list.none(BUDGET, "backon", "it has no budget");

    list.case(BUDGET_FAILURE, "mainstay", || {
        service(ours::retry(ours::one_in_one()).layer(ours::bare(Script::FailsFirst)))
    });
    list.case(BUDGET_FAILURE, "tower", || {
        service(peers::tower_retry_with_budget().layer(Bare::<Failed>::new(Script::FailsFirst)))
    });
    list.case(BUDGET_FAILURE, "tower-resilience", || {
        service(resilience::retry_at_once().layer(Bare::<Failed>::new(Script::FailsFirst)))
    })
    .note(ZERO_BY_TIMER)
    .waits();
    list.none(BUDGET_FAILURE, "backon", "it has no budget");

    list.case(NO_BUDGET, "mainstay", || service(ours::retry(Budget::unlimited()).layer(ours::bare(Script::Answers))));
    list.case(NO_BUDGET, "tower", || service(peers::tower_retry().layer(answers())));
    list.case(NO_BUDGET, "tower-resilience", || service(resilience::retry().layer(answers())));
    list.case(NO_BUDGET, "seatbelt", seatbelt::retry);

    list.case(FUTURE, "mainstay", || our_future(Script::Answers));
    list.case(FUTURE, "backon", || {
        let mut inner = answers();
        closure(move |request| succeeds((|| inner.call(request)).retry(at_once())))
    });
    list.case(FUTURE_FAILURE, "mainstay", || our_future(Script::FailsFirst));
    list.case(FUTURE_FAILURE, "backon", || {
        let mut inner = Bare::<Failed>::new(Script::FailsFirst);
        closure(move |request| succeeds((|| inner.call(request)).retry(at_once()).sleep(|_| ready(()))))
    })
    .note(NOTHING_WAITED_FOR);
    list.case(FUTURE_TIMER, "backon", || {
        let mut inner = Bare::<Failed>::new(Script::FailsFirst);
        closure(move |request| succeeds((|| inner.call(request)).retry(at_once())))
    })
    .note(ZERO_BY_TIMER)
    .waits();
}

fn our_future(script: Script) -> Box<dyn Subject> {
    let (layer, mut inner) = (ours::retry(Budget::unlimited()), ours::bare(script));
    closure(move |request| succeeds(layer.run(|| inner.call(request))))
}

fn at_once() -> ConstantBuilder {
    ConstantBuilder::default().with_delay(Duration::ZERO).with_max_times(2)
}

fn timeouts_and_stack(list: &mut List) {
    list.case(READY, "mainstay", || service(ours::timeout().layer(ours::bare(Script::Answers))));
    list.case(READY, "tower", || service(Timeout::new(answers(), HOUR)));
    list.case(READY, "tower-resilience", || service(resilience::timeout().layer(answers())));
    list.case(READY, "seatbelt", || seatbelt::timeout(Script::Answers));
    list.case(PENDING, "mainstay", || service(ours::timeout().layer(ours::bare(Script::PendingOnce))));
    list.case(PENDING, "tower", || service(Timeout::new(Bare::<Failed>::new(Script::PendingOnce), HOUR)));
    list.case(PENDING, "tower-resilience", || {
        service(resilience::timeout().layer(Bare::<Failed>::new(Script::PendingOnce)))
    });

    list.case(PENDING, "seatbelt", || seatbelt::timeout(Script::PendingOnce));

    list.case(DEADLINE_FAILURE, "mainstay", || {
        service(ours::total().layer(ours::retry(ours::one_in_one()).layer(ours::bare(Script::FailsFirst))))
    });
    list.case(DEADLINE_FAILURE, "tower", || {
        let failing = Bare::<Failed>::new(Script::FailsFirst);
        service(Timeout::new(peers::tower_retry_with_budget().layer(failing), HOUR))
    });

    list.case(STACK, "mainstay", || {
        let retry = ours::retry(ours::one_in_one());
        service(ours::total().layer(retry.layer(ours::breaker(|_| ()).layer(ours::bare(Script::Answers)))))
    });
    list.case(STACK, "tower", || service(Timeout::new(peers::tower_retry_with_budget().layer(answers()), HOUR)))
        .note("two layers: it has no breaker");
    list.case(STACK, "tower-resilience", resilience::stack);
    list.case(STACK, "seatbelt", seatbelt::stack).note("without a budget: it has none");

    list.case(ADMITS, "governor", || governor(Quota::per_second(NonZeroU32::MAX)));
    list.case(DENIES, "governor", || {
        // The one call in the hour is made first, and succeeds.
        governor(Quota::with_period(HOUR).expect("above zero"))
    })
    .refused();
}

fn pools_and_caches(list: &mut List) {
    for (paths, picker) in [(IN_FLIGHT, Picker::InFlight), (EWMA, Picker::PeakEwma)] {
        for (path, endpoints) in paths {
            list.case(path, "mainstay", move || ours::pool(picker, endpoints));
        }
        let [(few, _), _] = paths;
        list.case(few, "tower", move || peers::tower_balance(picker == Picker::PeakEwma)).note(NOT_CLONE).not_clone();
    }

    list.case(HIT, "mainstay", ours::hit);
    list.case(HIT, "tower-resilience", resilience::hit);
    list.case(HIT, "moka", peers::moka).note("the store alone, without a layer");

    list.case(TELEMETRY, "mainstay", || service(TelemetryLayer::new("t").layer(ours::bare(Script::Answers))));

    list.case(CLIENT, "mainstay", ours::client);
    list.case(CLIENT, "tower", peers::tower_client)
        .note("no breaker, and a buffer, since its balancer cannot be cloned");
}

fn governor(quota: Quota) -> Box<dyn Subject> {
    let limiter = Arc::new(RateLimiter::direct(quota));
    let mut inner = answers();
    if quota.burst_size() == NonZeroU32::MIN {
        limiter.check().expect("the first one");
    }
    closure(move |request| limiter.check().is_ok() && succeeds(inner.call(request)))
}
