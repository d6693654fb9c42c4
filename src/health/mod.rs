//! Health: active checks of what an application calls, and the application's own answer to "are you well?".
//!
//! Two halves that know nothing of balancers:
//!
//! * a [`Monitor`] runs a [`Probe`] for each target and publishes its [`HealthStatus`];
//! * a [`HealthReport`] gathers the state of the application's parts (fed by a monitor, a channel, a closure or by hand) and answers
//!   *startup*, *liveness* and *readiness* as JSON; a [`Shutdown`] takes the application down in the right order.
//!
//! # When to use it, and when not
//!
//! Active checks find a dead target before a request does, and a healed one without risking a request; with a balanced pool
//! that follows the monitor, requests go elsewhere within a few intervals. They see only what the probe looks at: a target that answers its
//! health page and fails every call stays healthy here. The evidence of real calls is the business of circuit breakers and
//! ejection, and the two belong together. A single target without an alternative gains little from checks, since there is nowhere
//! else to go.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use mainstay::HealthStatus;
//! use mainstay::health::{HealthReport, HttpProbe, Monitor, Role};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let monitor = Monitor::builder("upstreams").interval(Duration::from_secs(5)).build()?;
//! monitor.add("orders", HttpProbe::new("http://127.0.0.1:9/readyz")?);
//! monitor.start()?;
//!
//! let mut changes = monitor.subscribe();
//! let change = changes.changed().await.expect("the monitor lives");
//! assert_eq!(change.status, HealthStatus::Unhealthy, "nothing listens on port 9");
//!
//! let report = HealthReport::new("shop");
//! report.add_target("orders", Role::Shared, &monitor, "orders")?;
//! report.mark_started();
//! println!("{}", report.readiness().to_json());
//! # Ok(()) }
//! ```
//!
//! # How a status changes
//!
//! `rise` passes without a break (2) make a target healthy, `fall` failures without a break (3) make it unhealthy; one result of the
//! other kind starts the run over. While nothing is known, the first result decides alone, and one failure that was the target's own
//! [answer](ProbeError::is_answer) decides always (both by option). Between two checks lie
//!
//! * `interval` (2 s) while the target is healthy,
//! * `fast_interval` (a quarter of it) while a run leads towards another status, or nothing is known yet,
//! * `down_interval` (the same as `interval`) while it is unhealthy,
//!
//! each drawn anew within ± `jitter` (10 %), counted from the start of one check to the start of the next. With the defaults a
//! target that refuses connections is unhealthy 1 to 3.3 s later (at most one interval until it is looked at, then two fast
//! ones), and one that hangs 3 to 5.2 s later (each of the three checks takes its timeout of 1 s).
//!
//! Each target has a task of its own, so that one which hangs delays no other; its checks never overlap. A check that takes
//! longer than `timeout` is dropped and has failed; so has one that panics.
//!
//! # Unknown
//!
//! A target is [`Unknown`](HealthStatus::Unknown) before its first check, after its checks were [stopped](Monitor::stop), after the
//! last handle of its monitor was dropped, and when its task has died (its runtime was shut down, say). It is never left on
//! the last status. Whether unknown targets are used is the consumer's choice, see [`HealthStatus::is_usable`]; a pool is
//! optimistic by default.
//!
//! # Telemetry
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay_health_checks_total` | counter | `name`, `outcome`: `passed`, `failed`, `timed_out`, `panicked` |
//! | `mainstay_health_targets` | gauge | `name` |
//! | `mainstay_health_targets_unhealthy` | gauge | `name` |
//! | `mainstay_health_targets_unknown` | gauge | `name` |
//!
//! Every change of a status that the checks made is an event [`StatusChanged`](crate::telemetry::event::HealthEventKind::StatusChanged) with its reason; a prober's
//! death too.
//!
//! # Cancel safety
//!
//! The checks are owned by the handles of their monitor, not by any future: nothing is lost by dropping a future of this module.
//! Building, sharing and dropping anything here is legal outside a runtime; only [`Monitor::start`] needs one and says so.

mod builder;
mod config;
mod gate;
mod http_probe;
mod hysteresis;
mod monitor;
mod probe;
mod report;
mod service_probe;
mod shared;
mod shutdown;
mod status;
mod subscription;
mod task;
mod tcp_probe;

pub use builder::MonitorBuilder;
pub use config::MonitorConfig;
pub use http_probe::HttpProbe;
pub use monitor::{Key, Monitor, NotInRuntime};
pub use probe::{Probe, ProbeError};
pub use report::{HealthAnswer, HealthReport, Part, PartHealth, PartState, Phase, Question, Role, Verdict};
pub use service_probe::ServiceProbe;
pub use shared::MonitorStatistics;
pub use shutdown::{Shutdown, ShutdownConfig, Working};
pub use status::{CheckFailure, TargetHealth};

pub use crate::health_status::HealthStatus;
pub use subscription::{HealthChange, Subscription};
pub use tcp_probe::TcpProbe;
