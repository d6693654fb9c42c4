//! One run, from the parent's side: start the parts, walk one request, drive load through a kill and a restart, report.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::flags::Flags;
use crate::part::{Notice, Role};
use crate::report::Measured;
use crate::supervisor::Flow;
use crate::walk;

/// How many application servers there are.
const SERVERS: usize = 3;

/// The one that is killed.
const VICTIM: &str = "app-2";

/// Runs the flow, and ends every part of it whatever happens.
pub(crate) async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut flow = Flow::new(flags.verbose).await?;
    // The exit codes are the shell's: 128 and the signal's number.
    let ended = tokio::select! {
        ended = through(&mut flow, flags) => ended,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        _ = hang_up.recv() => Ok(ExitCode::from(129)),
    };
    flow.stop().await;
    ended
}

async fn through(flow: &mut Flow, flags: &Flags) -> anyhow::Result<ExitCode> {
    println!("mainstay reference flow: a load balancer, {SERVERS} application servers, a database, on loopback TCP\n");
    let servers = start(flow, flags).await?;
    let mut parts: Vec<_> = flow.parts().collect();
    // In the order a request takes.
    parts.sort_by_key(|(name, ..)| {
        ["load", "balancer", "app", "database"].iter().position(|kind| name.starts_with(kind))
    });
    for (name, address, id) in parts {
        println!("  {name:<9} http://{address}  process {id}");
    }
    walk::walk(flow, SERVERS).await?;
    if flags.serve {
        return serve(flow).await;
    }
    let measured = drive_load(flow, flags).await?;
    measured.print(&servers);
    Ok(verdict(&measured))
}

/// From the back to the front, so that each part finds what it calls; the names of the servers.
async fn start(flow: &mut Flow, flags: &Flags) -> anyhow::Result<Vec<String>> {
    let database = flow.start("database", Role::Database, None).await?;
    let mut servers = Vec::new();
    for number in 1..=SERVERS {
        let name = format!("app-{number}");
        let address = flow.start(&name, Role::Application { database }, None).await?;
        servers.push((name, address));
    }
    let target = flow.start("balancer", Role::Balancer { servers: servers.clone() }, None).await?;
    if !flags.serve {
        flow.start("load", Role::Load { target, rate: flags.rate, seed: flags.seed }, None).await?;
    }
    Ok(servers.into_iter().map(|(name, _)| name).collect())
}

/// Three phases of equal length: all servers, one killed, all again.
async fn drive_load(flow: &mut Flow, flags: &Flags) -> anyhow::Result<Measured> {
    let (rate, seed, seconds) = (flags.rate, flags.seed, flags.duration.as_secs());
    println!("\nLoad: {rate} requests/s for {seconds} s, open loop, 90 % reads, Zipf keys, seed {seed}");
    flow.tell("load", "prepare").await?;
    let prepared = |notice: &Notice| match notice {
        Notice::Prepared { users, records } => Some((*users, *records)),
        _ => None,
    };
    let (users, records) = flow.hear("load", prepared).await?;

    let started = Instant::now();
    let say = |what: &str| println!("  {:>4.1} s  {what}", started.elapsed().as_secs_f64());
    let until = |third: u32| started + flags.duration * third / 3;

    flow.forget();
    flow.tell("load", "phase all servers").await?;
    say(&format!("all servers up; {users} users and {records} records written"));
    watch_until(flow, until(1), &say).await?;

    flow.tell("load", &format!("phase {VICTIM} killed")).await?;
    let id = flow.kill(VICTIM).await?;
    say(&format!("{VICTIM} killed with SIGKILL (process {id})"));
    watch_until(flow, until(2), &say).await?;

    flow.tell("load", &format!("phase {VICTIM} restarted")).await?;
    flow.restart(VICTIM).await?;
    say(&format!("{VICTIM} restarted on the same address"));
    watch_until(flow, until(3), &say).await?;

    flow.tell("load", "finish").await?;
    let measured = flow
        .hear("load", |notice| match notice {
            Notice::Measured(measured) => Some((**measured).clone()),
            _ => None,
        })
        .await?;
    say("done");
    Ok(measured)
}

/// Until then, says what the balancer thinks of its servers whenever it changes its mind.
async fn watch_until(flow: &mut Flow, until: Instant, say: &impl Fn(&str)) -> anyhow::Result<()> {
    let changed = |_: &str, notice: &Notice| match notice {
        Notice::Server { name, change } => Some(format!("balancer: {name} {change}")),
        _ => None,
    };
    while let Some(change) = flow.listen(changed, until.saturating_duration_since(Instant::now())).await? {
        say(&change);
    }
    sleep_until(until).await;
    Ok(())
}

fn verdict(measured: &Measured) -> ExitCode {
    let total = &measured.total;
    let failed = total.offered - total.succeeded;
    match failed {
        0 => println!(
            "\nThe kill cost no failed request: {} of {} got the right answer.",
            total.succeeded, total.offered
        ),
        _ => println!("\n{failed} of {} requests failed.", total.offered),
    }
    ExitCode::from(u8::from(failed > 0))
}

/// Keeps everything running until a signal ends it.
async fn serve(flow: &mut Flow) -> anyhow::Result<ExitCode> {
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
