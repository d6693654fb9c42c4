//! The report as JSON: durations in milliseconds, rates from 0 to 1.

use std::time::Duration;

use serde_json::{Value, json};

use super::Report;
use crate::measured::{Bucket, Measured, Phase, ratio};

/// The run at `worst`, and with several runs a line for each; null if there is no such run.
pub(crate) fn to_json(reports: &[Report], worst: usize) -> Value {
    let Some(report) = reports.get(worst) else { return Value::Null };
    let mut value = json!({
        "seed": report.seed,
        "rate": report.rate,
        "capacity": report.capacity,
        "valid": report.valid(),
        "send_lag_ms": millis(report.ours.send_lag),
        "phases": phases(&report.ours),
        "timeline": timeline(&report.ours),
        "baselines": {},
        "acknowledged_writes": report.audit.acknowledged,
        "lost_writes": report.audit.lost,
        "duplicate_writes": report.audit.duplicated,
        "stale_reads": report.audit.stale,
        "backup": report.audit.restored,
        "demands": report.demands,
    });
    for (name, measured) in [("naive", &report.naive), ("tower", &report.tower)] {
        // One that did not run is left out: no phases would look like a run without any.
        if let Some(measured) = measured {
            value["baselines"][name] = json!({
                "send_lag_ms": millis(measured.send_lag),
                "phases": phases(measured),
                "timeline": timeline(measured),
            });
        }
    }
    if reports.len() > 1 {
        value["runs"] = reports.iter().map(run).collect();
    }
    value
}

fn run(report: &Report) -> Value {
    json!({
        "seed": report.seed,
        "met": report.met(),
        "valid": report.valid(),
        "not_met": report.unmet().map(|demand| &demand.name).collect::<Vec<_>>(),
        "lowest_success_rate": report.lowest_success(),
        "acknowledged_writes": report.audit.acknowledged,
        "lost_writes": report.audit.lost,
        "duplicate_writes": report.audit.duplicated,
        "stale_reads": report.audit.stale,
    })
}

fn phases(measured: &Measured) -> Vec<Value> {
    measured.phases.iter().map(phase).collect()
}

fn phase(phase: &Phase) -> Value {
    let shares = phase.servers.keys().map(|server| (server.clone(), phase.share(server).into()));
    json!({
        "name": phase.name,
        "begins_ms": millis(phase.begins),
        "ends_ms": millis(phase.ends),
        // Requests are those that the schedule asked for, sent or not: what was not sent has failed.
        "requests": phase.offered,
        "offered": phase.offered,
        "sent": phase.sent,
        "answered": phase.answered,
        "succeeded": phase.succeeded,
        "refused": phase.refused,
        "success_rate": phase.success_rate(),
        "p50_ms": millis(phase.p50),
        "p99_ms": millis(phase.p99),
        "p999_ms": millis(phase.p999),
        "retries": phase.retries(),
        "amplification": phase.amplification(),
        "cache_hit_rate": phase.hit_rate(),
        "coalesced_loads": phase.counts.coalesced,
        "ejections": phase.ejections,
        "database_queries": phase.counts.database_queries,
        "server_share": shares.collect::<serde_json::Map<_, _>>(),
        "failures": phase.failures,
    })
}

fn timeline(measured: &Measured) -> Vec<Value> {
    measured.timeline.iter().map(bucket).collect()
}

fn bucket(bucket: &Bucket) -> Value {
    // A point without requests has no rate and no latency.
    let asked = bucket.offered > 0;
    json!({
        "at_ms": millis(bucket.at),
        "offered": bucket.offered,
        "succeeded": bucket.succeeded,
        "success_rate": asked.then(|| ratio(bucket.succeeded, bucket.offered)),
        "p99_ms": asked.then(|| millis(bucket.p99)),
        "in_flight": bucket.in_flight,
    })
}

/// To the microsecond, as it was measured.
fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{empty, report};

    #[test]
    fn the_keys_are_those_that_readers_look_for() {
        let value = to_json(&[report()], 0);
        for key in ["phases", "baselines", "acknowledged_writes", "lost_writes", "duplicate_writes", "stale_reads"] {
            assert!(!value[key].is_null(), "{key}");
        }
        for key in ["seed", "rate", "capacity", "valid", "timeline", "backup", "demands"] {
            assert!(!value[key].is_null(), "{key}");
        }
        assert!(value.get("runs").is_none());
        for phases in [&value["phases"], &value["baselines"]["naive"]["phases"], &value["baselines"]["tower"]["phases"]]
        {
            let phase = phases[1].as_object().expect("a phase");
            let keys = "name requests success_rate p50_ms p99_ms retries cache_hit_rate server_share p999_ms offered \
                        sent answered succeeded refused amplification coalesced_loads ejections database_queries failures";
            for key in keys.split_whitespace() {
                assert!(phase.contains_key(key), "{key}");
            }
        }
        let killed = &value["phases"][1];
        assert_eq!((&killed["name"], &killed["requests"]), (&json!("server-killed"), &json!(1_000_000)));
        assert_eq!((&killed["p99_ms"], &killed["failures"]["no answer"]), (&json!(23.5), &json!(1)));
        assert!(killed["success_rate"].as_f64().is_some_and(|rate| rate < 1.0));
        assert_eq!(killed["server_share"]["app-1"], json!(0.125));
        assert_eq!(value["demands"][1], json!({ "name": "no write is lost", "met": false, "figure": "1 <lost>" }));
    }

    #[test]
    fn several_runs_are_listed_below_the_worst() {
        let [mut first, second] = [report(), report()];
        first.seed = 8;
        let value = to_json(&[first, second], 1);
        assert_eq!((&value["seed"], &value["runs"][0]["seed"]), (&json!(7), &json!(8)));
        assert_eq!(value["runs"][0]["met"], json!(false));
        assert_eq!(value["runs"][0]["not_met"], json!(["no write is lost"]));
    }

    #[test]
    fn an_empty_run_has_numbers_where_numbers_are_asked_for() {
        let value = to_json(&[empty()], 0);
        // A number that is not one would be null.
        for (key, figure) in value["phases"][0].as_object().expect("a phase") {
            assert!(!figure.is_null(), "{key}");
        }
        assert_eq!((&value["baselines"], &value["capacity"]), (&json!({}), &Value::Null));
        assert_eq!(to_json(&[], 0), Value::Null);
    }
}
