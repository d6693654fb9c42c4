//! One run, from the parent's side: the flow and its baselines, one after the other, and what is to be said of them.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::demands::demands;
use crate::flags::Flags;
use crate::flow::{self, Order, Ran, SERVERS};
use crate::report::{self, Report};
use crate::schedule::{self, Plan};
use crate::supervisor::Flow;
use crate::variant::Variant;
use crate::walk;

/// How many seeds a full run takes.
const SEEDS: u64 = 5;

/// Runs it all, and ends every part whatever happens.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // The flow that runs now, to be ended by whoever ends this.
    let mut running = None;
    // The exit codes are the shell's: 128 and the signal's number.
    let ended = tokio::select! {
        ended = all(&mut running, flags) => ended,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        _ = hang_up.recv() => Ok(ExitCode::from(129)),
    };
    if let Some(flow) = running {
        flow.stop().await;
    }
    ended
}

async fn all(running: &mut Option<Flow>, flags: &Flags) -> anyhow::Result<ExitCode> {
    println!("mainstay reference flow: a load balancer, {SERVERS} application servers, a database, on loopback TCP\n");
    let phases = phases(flags);
    if flags.serve {
        return serve(running, flags, &phases).await;
    }
    let first = flags.seed.unwrap_or(1);
    let seeds = if flags.full { SEEDS } else { 1 };
    let mut reports = Vec::new();
    for seed in first..=first.saturating_add(seeds - 1) {
        reports.push(one(running, flags, &phases, seed).await?);
    }
    let worst = &reports[report::worst(&reports)];
    if seeds > 1 {
        println!("\nThe worst of {seeds} runs was that of seed {}:", worst.seed);
    }
    worst.print();
    if let Some(path) = &flags.report {
        Report::write(&reports, path)?;
        println!("\nWritten: {} and {}", path.display(), path.with_extension("html").display());
    }
    let met = reports.iter().all(Report::met);
    Ok(ExitCode::from(u8::from(!met)))
}

/// Ours and the baselines, on one seed.
async fn one(running: &mut Option<Flow>, flags: &Flags, phases: &[Plan], seed: u64) -> anyhow::Result<Report> {
    let order = |variant, capacity| Order {
        variant,
        seed,
        rate: flags.rate(),
        phases,
        capacity,
        careless: flags.careless,
        talks: variant == Variant::Mainstay { without: flags.without },
    };
    let ours = drive(running, flags, &order(Variant::Mainstay { without: flags.without }, None)).await?;
    let mut baselines = [None, None];
    if !flags.no_baselines && flags.without.is_none() {
        for (measured, variant) in baselines.iter_mut().zip([Variant::Naive, Variant::Tower]) {
            println!("\nThe same again for comparison: {}", variant.describe());
            *measured = Some(drive(running, flags, &order(variant, ours.capacity)).await?.measured);
        }
    }
    let [naive, tower] = baselines;
    let demands = demands(&ours);
    let Ran { measured, capacity, audit, .. } = ours;
    Ok(Report { seed, rate: flags.rate(), capacity, ours: measured, naive, tower, audit, demands })
}

async fn drive(running: &mut Option<Flow>, flags: &Flags, order: &Order<'_>) -> anyhow::Result<Ran> {
    let flow = running.insert(Flow::new(flags.verbose).await?);
    let ran = flow::run(flow, order).await;
    if let Some(flow) = running.take() {
        flow.stop().await;
    }
    ran
}

/// The schedule, or a steady phase and the one that is asked for.
fn phases(flags: &Flags) -> Vec<Plan> {
    let mut phases = schedule::schedule(flags.rate(), flags.full);
    if let Some(only) = flags.only {
        phases.retain(|phase| phase.name == only || phase.name == "steady");
    }
    phases
}

/// Keeps everything running until a signal ends it.
async fn serve(running: &mut Option<Flow>, flags: &Flags, phases: &[Plan]) -> anyhow::Result<ExitCode> {
    let flow = running.insert(Flow::new(flags.verbose).await?);
    let variant = Variant::Mainstay { without: flags.without };
    let (seed, rate) = (1, flags.rate());
    let order = Order { variant, seed, rate, phases, capacity: None, careless: false, talks: true };
    flow::start(flow, &order).await?;
    flow::print_parts(flow);
    walk::walk(flow, SERVERS).await?;
    let balancer = flow.address("balancer")?;
    println!("\nServing; try:");
    println!("  curl -i http://{balancer}/users/1");
    println!("  curl -i http://{balancer}/users/1/records/greeting");
    println!("  curl -i -X PUT -d '\"hi\"' http://{balancer}/users/1/records/greeting");
    println!("  curl -s http://{balancer}/metrics | grep mainstay_");
    println!("  tail -f {}/*.log", flow.folder().display());
    println!("Ctrl-C ends it.");
    loop {
        flow.listen(|_, _| None::<()>, Duration::from_secs(60)).await?;
    }
}
