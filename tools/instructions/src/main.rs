//! Counts the instructions and allocations that each layer adds to a call.
//!
//! Without arguments it runs itself under `valgrind --tool=callgrind`, twice for each path with different numbers of calls,
//! and prints the difference a call: exact for one binary, whatever else the machine does. Reads of the system's clock are
//! not seen as they are outside of it (the kernel's page for them is not used under valgrind).

use std::future::Future;
use std::process::{Command, ExitCode};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::{env, fs, hint, pin, process};

use mainstay::balance::{Picker, Pool};
use mainstay::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, SlowCalls, Window};
use mainstay::cache::{CacheLayer, Lookup, MemoryStore, Store};
use tower::{Layer, Service};

/// Immediately ready, as cheap as a service can be that the optimiser cannot see through: what a layer costs is to be what it
/// adds to a call, and not what it keeps from being inlined into nothing.
#[derive(Clone)]
struct Bare;

/// The answer of [`Bare`]: its poll is a call.
struct Answer<E> {
    result: Result<u64, Option<E>>,
}

impl<E> Answer<E> {
    #[inline(never)]
    fn ok(request: u64) -> Self {
        Self { result: Ok(hint::black_box(request)) }
    }

    fn err(error: E) -> Self {
        Self { result: Err(Some(error)) }
    }
}

impl<E: Unpin> Future for Answer<E> {
    type Output = Result<u64, E>;

    #[inline(never)]
    fn poll(mut self: pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.result {
            Ok(answer) => Poll::Ready(Ok(*answer)),
            Err(error) => Poll::Ready(Err(error.take().expect("polled after it was ready"))),
        }
    }
}

impl Service<u64> for Bare {
    type Response = u64;
    type Error = mainstay::BoxError;
    type Future = Answer<Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        Answer::ok(request)
    }
}

/// Makes `calls` calls on one handle.
fn drive<S: Service<u64>>(mut service: S, calls: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    for request in 0..calls {
        assert!(service.poll_ready(&mut cx).is_ready());
        let future = pin::pin!(service.call(request));
        assert!(future.poll(&mut cx).is_ready());
    }
}

/// Calls through a breaker that is closed, or was opened.
fn breaker(change: impl FnOnce(&mut CircuitBreakerConfig), open: bool, calls: u64) {
    let mut config = CircuitBreakerConfig::default();
    change(&mut config);
    let layer = CircuitBreakerLayer::new("b", config).expect("valid");
    if open {
        layer.handle().open_for(Duration::from_secs(3600)).expect("closed before");
    }
    drive(layer.layer(Bare), calls);
}

/// Calls through a pool of `endpoints`.
fn pool(picker: Picker, endpoints: u32, breaker: Option<CircuitBreakerConfig>, calls: u64) {
    let pool = Pool::builder("p").picker(picker).circuit_breaker(breaker).build().expect("valid");
    pool.handle().add_all((0..endpoints).map(|key| (key, Bare)));
    drive(pool, calls);
}

type Path = (&'static str, fn(u64));

/// What costs no allocation to be boxed.
#[derive(Debug)]
struct Fail;

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Fail {}

/// Fails each first attempt, by which the retry's own number of the attempt tells them apart.
#[derive(Clone)]
struct FailsOnce;

impl Service<u64> for FailsOnce {
    type Response = u64;
    type Error = mainstay::BoxError;
    type Future = Answer<Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        let failed = mainstay::context::current().attempt() == 1;
        if failed { Answer::err(Fail.into()) } else { Answer::ok(request) }
    }
}

/// Retries at once, with a budget that lets all of them through.
fn retry_at_once() -> mainstay::RetryLayer {
    let mut budget = mainstay::budget::BudgetConfig::default();
    budget.ratio = 1.0;
    let builder = mainstay::RetryLayer::builder("r").backoff(mainstay::backoff::BackoffConfig::none());
    builder.budget(mainstay::budget::Budget::new(budget).expect("valid")).build().expect("valid")
}

/// Every path, by name.
const PATHS: &[Path] = &[
    ("bare", |calls| drive(Bare, calls)),
    ("retry", |calls| drive(retry_at_once().layer(Bare), calls)),
    ("retry, one failure, no delay", |calls| drive(retry_at_once().layer(FailsOnce), calls)),
    ("timeout of an attempt", |calls| {
        let second = std::time::Duration::from_secs(1);
        drive(mainstay::TimeoutLayer::attempt("t", second).expect("valid").layer(Bare), calls);
    }),
    ("timeout in total", |calls| {
        let second = std::time::Duration::from_secs(1);
        drive(mainstay::TimeoutLayer::total("t", second).expect("valid").layer(Bare), calls);
    }),
    ("telemetry", |calls| drive(mainstay::telemetry::TelemetryLayer::new("t").layer(Bare), calls)),
    ("breaker, count window, closed", |calls| breaker(|_| (), false, calls)),
    ("breaker, time window, closed", |calls| {
        breaker(|config| config.window = Window::Time { length: Duration::from_secs(60) }, false, calls);
    }),
    ("breaker, slow calls, closed", |calls| {
        let slow = SlowCalls { longer_than: Duration::from_secs(1), rate: 0.5 };
        breaker(|config| config.slow_calls = Some(slow), false, calls);
    }),
    ("breaker, open", |calls| breaker(|_| (), true, calls)),
    ("cache, bare store", |calls| {
        let (_cache, store) = cached();
        for _ in 0..calls {
            assert!(matches!(store.get_now(hint::black_box(&7)), Lookup::Known(Some(_))));
        }
    }),
    ("cache, hit", |calls| drive(cached().0, calls)),
    ("balance, in flight, 10", |calls| pool(Picker::InFlight, 10, None, calls)),
    ("balance, in flight, 10000", |calls| pool(Picker::InFlight, 10_000, None, calls)),
    ("balance, peak EWMA, 10", |calls| pool(Picker::PeakEwma, 10, None, calls)),
    ("balance, peak EWMA, 10000", |calls| pool(Picker::PeakEwma, 10_000, None, calls)),
    ("balance, round robin, 10", |calls| pool(Picker::RoundRobin, 10, None, calls)),
    ("balance, in flight, breakers, 10", |calls| {
        pool(Picker::InFlight, 10, Some(CircuitBreakerConfig::default()), calls);
    }),
];

/// A cache that has the answer to everything, and its store.
fn cached() -> (impl Service<u64, Response = u64, Error: std::fmt::Debug>, MemoryStore<u64, u64>) {
    let layer = CacheLayer::builder("c").key(|_: &u64| Some(7)).build().expect("valid settings");
    let store = layer.handle().store().clone();
    let mut cache = layer.layer(Bare);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(cache.call(7)).expect("a load");
    (cache, store)
}

/// Enough to fill windows and resolve handles before the calls that count.
const WARM_UP: u64 = 1_000;
const MEASURED: u64 = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => measure(),
        [path, calls] => {
            let run = PATHS.iter().find(|(name, _)| name == path).map(|(_, run)| run);
            let (Some(run), Ok(calls)) = (run, calls.parse()) else { return ExitCode::from(2) };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let _entered = runtime.enter();
            run(calls);
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(2),
    }
}

fn measure() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let Some(bare) = instructions("bare") else {
        eprintln!("valgrind is needed to count instructions (on Debian: apt-get install valgrind)");
        return ExitCode::FAILURE;
    };
    println!("{:<32} {:>10} {:>10} {:>12}", "path", "Ir a call", "over bare", "allocations");
    for (name, run) in PATHS {
        let Some(total) = instructions(name) else { return ExitCode::FAILURE };
        let few = allocation_counter::measure(|| run(WARM_UP)).count_total;
        let many = allocation_counter::measure(|| run(WARM_UP + 1_000)).count_total;
        let allocations = many.saturating_sub(few) as f64 / 1_000.0;
        println!("{name:<32} {total:>10.1} {:>10.1} {allocations:>12.3}", total - bare);
    }
    ExitCode::SUCCESS
}

/// Instructions of one call of `path`.
fn instructions(path: &str) -> Option<f64> {
    let few = total(path, WARM_UP)?;
    let many = total(path, WARM_UP + MEASURED)?;
    Some(many.saturating_sub(few) as f64 / MEASURED as f64)
}

/// All instructions of a process that makes `calls` calls.
fn total(path: &str, calls: u64) -> Option<u64> {
    let output = env::temp_dir().join(format!("mainstay-callgrind-{}", process::id()));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(env::current_exe().ok()?)
        .args([path, &calls.to_string()])
        .output()
        .ok()?;
    let text = fs::read_to_string(&output).ok();
    let _ = fs::remove_file(&output);
    if !run.status.success() {
        eprintln!("{path}: {}", String::from_utf8_lossy(&run.stderr));
        return None;
    }
    text?.lines().find_map(|line| line.strip_prefix("summary: ")?.trim().parse().ok())
}
