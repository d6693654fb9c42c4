use std::time::Duration;

use super::*;
use crate::audit::Restored;
use crate::measured::Bucket;

/// A run in which a millionth of one phase failed, and one of two demands was not met.
pub(super) fn report() -> Report {
    let phase = |name: &str, begins: u64, offered: u64, failed: u64| Phase {
        name: name.into(),
        begins: Duration::from_secs(begins),
        ends: Duration::from_secs(begins + 10),
        offered,
        sent: offered,
        answered: offered,
        succeeded: offered - failed,
        p50: Duration::from_micros(1_200),
        p99: Duration::from_micros(23_500),
        p999: Duration::from_secs(3),
        reads: offered,
        hits: offered / 2,
        servers: (1..=8).map(|server| (format!("app-{server}"), 10)).collect(),
        failures: [("no answer".to_owned(), failed)].into(),
        ..Phase::default()
    };
    let flow = |failed: u64| Measured {
        phases: vec![phase("steady", 0, 500, 0), phase("server-killed", 10, 1_000_000, failed)],
        total: phase("whole run", 0, 1_000_500, failed),
        timeline: (0..80)
            .map(|index| Bucket {
                at: crate::measured::BUCKET * index,
                offered: u64::from(index % 7),
                succeeded: u64::from(index % 7) / 2,
                p99: Duration::from_millis(u64::from(index)),
                in_flight: u64::from(index),
            })
            .collect(),
        send_lag: Duration::from_millis(3),
    };
    let demand = |name: &str, met, figure: &str| Demand { name: name.into(), met, figure: figure.into() };
    Report {
        seed: 7,
        rate: 100,
        capacity: Some(900.0),
        ours: flow(1),
        naive: Some(flow(300_000)),
        tower: Some(flow(20_000)),
        audit: Audit {
            acknowledged: 1_234,
            lost: 1,
            restored: Some(Restored { integrity: "ok".into(), ..Restored::default() }),
            examples: vec!["user <1> & \"co\"".into()],
            ..Audit::default()
        },
        demands: vec![
            demand("server-killed: at least 99.9 % succeed", true, "99.99 %"),
            demand("no write is lost", false, "1 <lost>"),
        ],
    }
}

/// A run in which nothing was asked, without baselines.
pub(super) fn empty() -> Report {
    let ours = Measured { phases: vec![Phase::default()], timeline: vec![Bucket::default()], ..Measured::default() };
    let audit = Audit::default();
    Report { capacity: None, naive: None, tower: None, demands: Vec::new(), ours, audit, ..report() }
}

#[test]
fn the_worst_run_has_the_most_unmet_demands_then_the_lowest_success() {
    let (bad, mut worse, mut met) = (report(), report(), report());
    worse.ours.phases[1].succeeded -= 1;
    met.demands[1].met = true;
    met.ours.phases[1].succeeded = 0;
    assert_eq!(worst(&[met.clone(), bad.clone(), worse.clone(), bad.clone()]), 2);
    assert_eq!(worst(&[worse, bad.clone(), met]), 0);
    assert_eq!((worst(&[bad.clone(), bad]), worst(&[])), (0, 0));
}

#[test]
fn a_late_sender_makes_the_run_invalid() {
    let mut report = report();
    assert!(report.valid());
    report.tower.as_mut().expect("ran").send_lag = MOST_SEND_LAG + Duration::from_micros(1);
    assert!(!report.valid());
}

#[test]
fn the_page_is_written_beside_the_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.json");
    Report::write(&[report()], &path).expect("written");
    let json = std::fs::read_to_string(&path).expect("the JSON");
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    assert!(
        std::fs::read_to_string(folder.path().join("report.html")).expect("the page").starts_with("<!doctype html>")
    );
}

#[test]
fn what_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing").join("report.json");
    for (reports, path) in
        [(vec![report()], missing), (vec![], "none.json".into()), (vec![report()], "report.html".into())]
    {
        let error = format!("{:#}", Report::write(&reports, &path).expect_err("nothing to write, or nowhere"));
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
