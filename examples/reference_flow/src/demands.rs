//! What must hold, and whether it did: every demand in words, with its figure.

use std::time::Duration;

use crate::SERVER_ATTEMPT;
use crate::clock::Moment;
use crate::faults::Fault;
use crate::flow::{Ran, SERVERS};
use crate::measured::{Phase, quantile, ratio};
use crate::report::Demand;
use crate::sample::Sample;
use crate::schedule::{NEW, Step, VICTIM};

/// Where a part that can stand in survives, this share of the requests gets the right answer.
const SUCCESS: f64 = 0.999;

/// The phases in which one survives.
const REDUNDANT: [&str; 10] = [
    "steady",
    "server-killed",
    "server-frozen",
    "server-slow",
    "server-failing",
    "cache-failing",
    "cache-hanging",
    "cache-empty",
    "scaling",
    "recovered",
];

/// What a server that is well gets at the least: half of what would be fair.
#[allow(clippy::cast_precision_loss, reason = "a handful")]
const SHARE: f64 = 0.5 / SERVERS as f64;

/// A server that answers half of its requests with errors is out by then.
const EJECTED_WITHIN: Duration = Duration::from_secs(2);

/// What a refusal may take: it costs nothing to say no.
const QUICK: Duration = Duration::from_millis(100);

/// What succeeds of the phase in which the database is killed and restarted.
const OUTAGE_SUCCESS: f64 = 0.97;

/// Longer than this, nobody waits for an answer while the database stalls.
const HANG: Duration = Duration::from_millis(1500);

/// What an admitted request may take while twice as many come as can be answered.
const ADMITTED: Duration = Duration::from_millis(500);

/// A generator that sent later than this has not offered what it says it did.
const SEND_LAG: Duration = Duration::from_millis(100);

/// So many cached reads in the stall are enough to say something about them.
const FEW: u64 = 30;

/// All demands on the phases that were run.
pub(crate) fn demands(ran: &Ran) -> Vec<Demand> {
    let mut demands = Demands { ran, found: Vec::new() };
    for span in &ran.spans {
        let name = span.name.as_str();
        if REDUNDANT.contains(&name) {
            demands.success(name);
        }
        match name {
            "server-killed" => demands.share_back(name, Step::Restart(VICTIM)),
            "server-frozen" => demands.frozen(),
            "server-slow" => demands.slow(),
            "server-failing" => demands.failing(),
            "database-stalled" => demands.stalled(),
            "scaling" => demands.added(),
            "database-killed" => demands.database_back(),
            "burst" => demands.burst(),
            _ => {}
        }
    }
    demands.writes();
    demands.valid();
    demands.found
}

struct Demands<'a> {
    ran: &'a Ran,
    found: Vec<Demand>,
}

// === impl Demands ===

impl<'a> Demands<'a> {
    fn add(&mut self, name: impl Into<String>, met: bool, figure: impl Into<String>) {
        self.found.push(Demand { name: name.into(), met, figure: figure.into() });
    }

    fn success(&mut self, phase: &str) {
        let Some(measured) = self.ran.measured.phase(phase) else { return };
        let (rate, figure) = (measured.success_rate(), of(measured.succeeded, measured.offered));
        self.add(format!("{phase}: 99.9 % get the right answer"), rate >= SUCCESS, figure);
    }

    /// In the last fifth of the phase, the server that was out gets what a server gets.
    fn share_back(&mut self, phase: &str, since: Step) {
        let (Some(_), Some((begins, ends))) = (self.at(since), self.span(phase)) else { return };
        let measured = self.between(ends.before(ends.since(begins) / 5), ends);
        let share = measured.share(VICTIM);
        let figure = format!("{:.0} % of the answers in the phase's last fifth", share * 100.0);
        self.add(format!("{phase}: {VICTIM} gets its share back (half of a fair one or more)"), share >= SHARE, figure);
    }

    fn frozen(&mut self) {
        let Some(at) = self.at(Step::Freeze(VICTIM)) else { return };
        let name = "server-frozen: the black hole is out before a single attempt has timed out (1 s)";
        let out = self.out_after(at);
        self.add(name, out.is_some_and(|out| out < SERVER_ATTEMPT), within(out));
        self.share_back("server-frozen", Step::Thaw(VICTIM));
    }

    fn slow(&mut self) {
        let slow = Fault::Slow(Duration::from_millis(200));
        let (Some(from), Some(to)) = (self.at(Step::Fault(VICTIM, slow)), self.at(Step::Fault(VICTIM, Fault::None)))
        else {
            return;
        };
        let share = self.between(from, to).share(VICTIM);
        let name = format!("server-slow: {VICTIM} gets less than half of its fair share");
        self.add(name, share < SHARE, format!("{:.0} % of the answers while it is slow", share * 100.0));
    }

    fn failing(&mut self) {
        let Some(at) = self.at(Step::Fault(VICTIM, Fault::FailHalf)) else { return };
        let after = self.out_after(at);
        let name = "server-failing: it is ejected within 2 s";
        self.add(name, after.is_some_and(|after| after <= EJECTED_WITHIN), within(after));
        self.share_back("server-failing", Step::Fault(VICTIM, Fault::None));
    }

    fn stalled(&mut self) {
        let (Some(from), Some(to)) = (self.at(Step::Freeze("database")), self.at(Step::Thaw("database"))) else {
            return;
        };
        let during: Vec<&Sample> = self.during(from, to).collect();
        let count = |wanted: &dyn Fn(&&&Sample) -> bool| during.iter().filter(wanted).count() as u64;

        let cached = count(&|sample| sample.cached);
        let well = count(&|sample| sample.cached && sample.succeeded());
        let met = cached >= FEW && ratio(well, cached) >= SUCCESS;
        self.add("database-stalled: 99.9 % of the cached reads go on", met, of(well, cached));

        let mut writes: Vec<_> = during.iter().filter(|sample| sample.write).map(|sample| sample.latency()).collect();
        writes.sort_unstable();
        let median = quantile(&writes, 500);
        let met = !writes.is_empty() && median <= QUICK;
        let figure = format!("half of {} within {}", writes.len(), millis(median));
        self.add("database-stalled: a write gets a quick 503 (half of them within 100 ms)", met, figure);

        let longest = during.iter().map(|sample| sample.latency()).max().unwrap_or_default();
        self.add("database-stalled: nobody hangs (1.5 s)", longest <= HANG, format!("longest {}", millis(longest)));

        let failed = count(&|sample| !sample.succeeded());
        let marked = count(&|sample| !sample.succeeded() && sample.dependency_failed);
        let name = "database-stalled: 99 % of the failures say that a dependency failed";
        self.add(name, ratio(marked, failed) >= 0.99, of(marked, failed));

        let out = self.ran.eligible.iter().filter(|(_, usable, at)| !usable && (from..to).contains(at)).count();
        self.add("database-stalled: no server is sent away for it", out == 0, format!("{out} sent away"));

        if let Some(phase) = self.ran.measured.phase("database-stalled") {
            let (at_balancer, counts) = (phase.amplification(), phase.counts);
            let at_servers = ratio(counts.database_attempts, counts.database_calls.max(1));
            let figure = format!("{at_balancer:.3} attempts a request, {at_servers:.2} a database call");
            let met = at_balancer <= 1.01 && at_servers <= 1.25;
            self.add("database-stalled: no retry multiplies it (1.01, 1.25)", met, figure);
        }
    }

    fn added(&mut self) {
        let Some((begins, ends)) = self.span("scaling") else { return };
        let middle = Moment(begins.0.midpoint(ends.0));
        let share = self.between(middle, ends).share(NEW);
        let figure = format!("{:.0} % of the answers in the second half", share * 100.0);
        self.add(format!("scaling: {NEW} gets its share (half of a fair one or more)"), share >= SHARE, figure);
    }

    fn database_back(&mut self) {
        let (Some(at), Some((_, ends))) = (self.at(Step::Restart("database")), self.span("database-killed")) else {
            return;
        };
        let phase = self.between(at.after(Duration::from_secs(1)), ends);
        let figure = of(phase.succeeded, phase.offered);
        let met = phase.offered > 0 && phase.success_rate() >= SUCCESS;
        self.add("database-killed: 1 s after its restart, 99.9 % succeed", met, figure);
        let Some(phase) = self.ran.measured.phase("database-killed") else { return };
        let figure = of(phase.succeeded, phase.offered);
        let met = phase.success_rate() >= OUTAGE_SUCCESS;
        let counts = phase.counts;
        let amplification = ratio(counts.database_attempts, counts.database_calls.max(1));
        self.add("database-killed: 97 % succeed, since reads wait for the circuit", met, figure);
        let figure = format!("{amplification:.2} attempts a database call");
        self.add("database-killed: no wait multiplies it (1.10)", amplification <= 1.10, figure);
    }

    fn burst(&mut self) {
        let (Some(from), Some(to), Some(capacity)) = (self.at(Step::Burst), self.at(Step::Calm), self.ran.capacity)
        else {
            return;
        };
        let phase = self.between(from, to);
        // What was answered in that time, not what was asked in it and waited for until after it.
        let in_time = |sample: &&Sample| sample.succeeded() && (from..to).contains(&sample.done);
        #[allow(clippy::cast_precision_loss, reason = "counts of one run")]
        let goodput = self.ran.samples.iter().filter(in_time).count() as f64 / to.since(from).as_secs_f64();
        let share = goodput / capacity;
        let figure = format!("{goodput:.0}/s of {capacity:.0}/s: {:.0} %", share * 100.0);
        let refused: Vec<_> = latencies(self.during(from, to).filter(|sample| sample.refused()));
        let admitted: Vec<_> = latencies(self.during(from, to).filter(|sample| !sample.refused()));
        let (answered, refusals) = (quantile(&admitted, 990), quantile(&refused, 990));
        let (failed, turned_away) = (phase.offered - phase.succeeded, phase.refused);
        self.add("burst: goodput is 90 % of the measured capacity", share >= 0.9, figure);
        self.add("burst: p99 of what is admitted (500 ms)", answered <= ADMITTED, millis(answered));
        let figure = of(turned_away, failed);
        let met = failed > 0 && ratio(turned_away, failed) >= SUCCESS;
        self.add("burst: the rest gets a 503 and `Retry-After`", met, figure);
        self.add("burst: and gets it quickly (p99 100 ms)", refusals <= QUICK, millis(refusals));
    }

    fn writes(&mut self) {
        let audit = self.ran.audit.clone();
        let of = format!("of {} acknowledged", audit.acknowledged);
        self.add("writes: none is lost", audit.lost == 0 && audit.acknowledged > 0, format!("{} {of}", audit.lost));
        self.add("writes: none is applied twice", audit.duplicated == 0, format!("{} {of}", audit.duplicated));
        let figure = format!("{} older than that", audit.stale);
        self.add("reads: none is older than stated (3 s, marked ones 63 s)", audit.stale == 0, figure);
        let (met, figure) = match &audit.restored {
            None => (false, "there is no backup".to_owned()),
            Some(restored) => {
                let met = restored.missing + restored.foreign == 0 && restored.integrity == "ok";
                let holds = format!("{} of {} writes missing", restored.missing, restored.acknowledged);
                (met, format!("{holds}, {} too new, integrity {}", restored.foreign, restored.integrity))
            }
        };
        self.add("backup: restored, it holds what was acknowledged before it", met, figure);
    }

    fn valid(&mut self) {
        let (lag, total) = (self.ran.measured.send_lag, &self.ran.measured.total);
        let met = lag <= SEND_LAG && total.sent == total.offered;
        let figure = format!("{} sent, at most {} late", of(total.sent, total.offered), millis(lag));
        self.add("the run is valid: the load was offered as planned (100 ms)", met, figure);
    }

    fn at(&self, step: Step) -> Option<Moment> {
        self.ran.steps.iter().find(|(taken, _)| *taken == step).map(|(_, at)| *at)
    }

    fn span(&self, phase: &str) -> Option<(Moment, Moment)> {
        self.ran.spans.iter().find(|span| span.name == phase).map(|span| (span.begins, span.ends))
    }

    fn during(&self, from: Moment, to: Moment) -> impl Iterator<Item = &'a Sample> + use<'a> {
        self.ran.samples.iter().filter(move |sample| (from..to).contains(&sample.intended))
    }

    fn between(&self, from: Moment, to: Moment) -> Phase {
        Phase::of(self.during(from, to))
    }

    /// How long after `at` the balancer sent the victim away.
    fn out_after(&self, at: Moment) -> Option<Duration> {
        let out = self.ran.eligible.iter().find(|(name, usable, when)| name == VICTIM && !usable && *when >= at);
        out.map(|(_, _, when)| when.since(at))
    }
}

fn latencies<'a>(samples: impl Iterator<Item = &'a Sample>) -> Vec<Duration> {
    let mut latencies: Vec<_> = samples.map(Sample::latency).collect();
    latencies.sort_unstable();
    latencies
}

/// Cut, not rounded: 100 % means all of them.
fn of(part: u64, whole: u64) -> String {
    format!("{:.2} % of {whole}", (ratio(part, whole) * 10_000.0).floor() / 100.0)
}

fn within(time: Option<Duration>) -> String {
    time.map_or("never".into(), |time| format!("after {}", millis(time)))
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}
