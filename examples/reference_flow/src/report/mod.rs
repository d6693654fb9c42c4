//! What is said of a run: progress, tables, the verdict of each demand, a JSON file, a page with plots.

mod figures;
mod html;
mod json;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::audit::Audit;
use crate::measured::{Measured, Phase};

pub(crate) use table::print_progress;

/// Latency counts from the intended start, so a late sender makes figures worse, never better. One that is later than
/// this is no longer the open load that the report speaks of.
const MOST_SEND_LAG: Duration = Duration::from_millis(100);

/// A run of one seed: the flow, and beside it the baselines.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) rate: u32,
    /// Right answers per second that the flow was measured to give at most; where it was measured.
    pub(crate) capacity: Option<f64>,
    /// The flow with mainstay's layers.
    pub(crate) ours: Measured,
    pub(crate) naive: Option<Measured>,
    pub(crate) tower: Option<Measured>,
    pub(crate) audit: Audit,
    pub(crate) demands: Vec<Demand>,
}

/// Something that must hold, and whether it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Demand {
    /// In words: "server-killed: at least 99.9 % succeed".
    pub(crate) name: String,
    pub(crate) met: bool,
    /// What was measured, in words: "100.00 % of 612".
    pub(crate) figure: String,
}

/// The index of the worst run: the one with the most demands not met, and of those the one with the lowest success in
/// a phase.
pub(crate) fn worst(reports: &[Report]) -> usize {
    let badness = |report: &Report| (report.unmet().count(), 1.0 - report.lowest_success());
    let mut worst = 0;
    for (index, report) in reports.iter().enumerate().skip(1) {
        let ((unmet, failing), (most, highest)) = (badness(report), badness(&reports[worst]));
        if unmet.cmp(&most).then(failing.total_cmp(&highest)).is_gt() {
            worst = index;
        }
    }
    worst
}

// === impl Report ===

impl Report {
    /// Whether every demand was met.
    pub(crate) fn met(&self) -> bool {
        self.demands.iter().all(|demand| demand.met)
    }

    /// Writes the JSON to `path`, and the page beside it, with the extension `.html`.
    ///
    /// # Errors
    ///
    /// If there is no report, if the page would overwrite the JSON, or if a file cannot be written.
    pub(crate) fn write(reports: &[Self], path: &Path) -> anyhow::Result<()> {
        let page = path.with_extension("html");
        ensure!(!reports.is_empty(), "cannot write {}: there is no run to report", path.display());
        ensure!(page != path, "cannot write {}: the page of that name belongs beside the JSON file", path.display());
        let worst = worst(reports);
        let json = serde_json::to_string_pretty(&json::to_json(reports, worst))?;
        for (path, text) in [(path, json + "\n"), (&page, html::page(reports, worst))] {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Whether the load generator kept to its schedule.
    fn valid(&self) -> bool {
        self.flows().into_iter().filter_map(|(_, flow)| flow).all(|flow| flow.send_lag <= MOST_SEND_LAG)
    }

    fn unmet(&self) -> impl Iterator<Item = &Demand> {
        self.demands.iter().filter(|demand| !demand.met)
    }

    /// The success rate of the phase in which it is the lowest; 1 without phases.
    fn lowest_success(&self) -> f64 {
        self.ours.phases.iter().map(Phase::success_rate).fold(1.0, f64::min)
    }

    /// The flow and its baselines, in the order in which they are shown.
    fn flows(&self) -> [(&'static str, Option<&Measured>); 3] {
        [("ours", Some(&self.ours)), ("tower", self.tower.as_ref()), ("naive", self.naive.as_ref())]
    }

    /// The `index`th phase of ours, in each flow; a name may come more than once in a schedule.
    fn side_by_side(&self, index: usize) -> [(&'static str, Option<&Phase>); 3] {
        let name = self.ours.phases.get(index).map_or("", |phase| &phase.name);
        self.flows().map(|(flow, measured)| {
            let same = measured.and_then(|measured| {
                measured.phases.get(index).filter(|phase| phase.name == name).or_else(|| measured.phase(name))
            });
            (flow, same)
        })
    }

    /// The whole run, in each flow.
    fn totals(&self) -> [(&'static str, Option<&Phase>); 3] {
        self.flows().map(|(flow, measured)| (flow, measured.map(|measured| &measured.total)))
    }
}

#[cfg(test)]
mod tests;
