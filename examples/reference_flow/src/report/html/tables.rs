//! The tables of the page.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::escape;
use super::explain::explain;
use crate::measured::Phase;
use crate::report::figures::{self, NONE};
use crate::report::{Demand, Report};

type Column = (&'static str, fn(&Phase) -> String);

const COLUMNS: [Column; 11] = [
    ("requests", |phase| figures::count(phase.offered)),
    ("success", figures::success),
    ("p50", |phase| figures::latency(phase, phase.p50)),
    ("p99", |phase| figures::latency(phase, phase.p99)),
    ("p99.9", |phase| figures::latency(phase, phase.p999)),
    ("turned away", |phase| figures::count(phase.refused)),
    ("retries", |phase| figures::count(phase.retries())),
    ("attempts / request", figures::amplification),
    ("cache hits", figures::hits),
    ("ejections", |phase| figures::count(phase.ejections)),
    ("database queries", |phase| figures::count(phase.counts.database_queries)),
];

/// The demands, those first that were not met.
pub(super) fn demands(report: &Report) -> String {
    let row = |Demand { name, met, figure }: &Demand| {
        let (class, verdict) = if *met { ("met", "✓ met") } else { ("not-met", "✗ NOT MET") };
        let (name, figure) = (escape(name), escape(figure));
        format!(
            r#"<tr><td class="{class}">{verdict}</td><td class="wrap">{name}</td><td class="wrap">{figure}</td></tr>"#
        )
    };
    let met = report.demands.iter().filter(|demand| demand.met);
    let rows: String = report.unmet().chain(met).map(row).collect();
    table("words", "<th>verdict</th><th>demand</th><th>measured</th>", &format!("<tbody>{rows}</tbody>"))
}

/// Ours beside both baselines, phase by phase.
pub(super) fn phases(report: &Report) -> String {
    let mut body = String::new();
    let phases = report.ours.phases.iter().enumerate();
    let phases = phases.map(|(index, phase)| (phase.name.as_str(), explain(&phase.name), report.side_by_side(index)));
    for (name, sentence, flows) in phases.chain([("whole run", "All phases together.", report.totals())]) {
        let (name, across) = (escape(name), COLUMNS.len() + 1);
        let _ = write!(
            body,
            r#"<tbody><tr><th class="phase wrap" colspan="{across}"><div><b>{name}</b><span>{sentence}</span></div></th></tr>"#
        );
        for (flow, phase) in flows {
            // A baseline that never ran is not shown at all; one without this phase is.
            if flow != "ours" && !report.flows().iter().any(|(name, ran)| *name == flow && ran.is_some()) {
                continue;
            }
            let cell = |(_, figure): &Column| format!("<td>{}</td>", phase.map_or(NONE.into(), figure));
            let cells: String = COLUMNS.iter().map(cell).collect();
            let _ = write!(body, r#"<tr class="{flow}"><th>{flow}</th>{cells}</tr>"#);
        }
        body.push_str("</tbody>\n");
    }
    let names: String = COLUMNS.iter().map(|(name, _)| format!("<th>{name}</th>")).collect();
    table("", &format!("<th>flow</th>{names}"), &body)
}

/// The share of each server in ours.
pub(super) fn servers(report: &Report) -> String {
    let phases = &report.ours.phases;
    let servers: BTreeSet<&str> = phases.iter().flat_map(|phase| phase.servers.keys()).map(String::as_str).collect();
    let names: String = servers.iter().map(|server| format!("<th>{}</th>", escape(server))).collect();
    let mut rows = String::new();
    for phase in phases {
        let shares = servers.iter().map(|server| format!("<td>{}</td>", escape(&figures::share(phase, server))));
        let _ = write!(rows, "<tr><th>{}</th>{}</tr>", escape(&phase.name), shares.collect::<String>());
    }
    table("", &format!("<th>phase</th>{names}"), &format!("<tbody>{rows}</tbody>"))
}

/// Why requests failed, in each flow.
pub(super) fn failures(report: &Report) -> String {
    let totals: Vec<_> = report.totals().into_iter().filter_map(|(name, phase)| Some((name, phase?))).collect();
    // Those of ours first, the most frequent first.
    let mut reasons: Vec<&str> = Vec::new();
    for (reason, _) in totals.iter().flat_map(|(_, phase)| figures::by_count(&phase.failures)) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    if reasons.is_empty() {
        return r#"<p class="soft">No request failed.</p>"#.into();
    }
    let names: String = totals.iter().map(|(name, _)| format!("<th>{name}</th>")).collect();
    let mut rows = String::new();
    for reason in reasons {
        let count = |(_, phase): &(_, &Phase)| phase.failures.get(reason).copied().unwrap_or_default();
        let cells: String = totals.iter().map(|flow| format!("<td>{}</td>", figures::count(count(flow)))).collect();
        let _ = write!(rows, r#"<tr><th class="wrap">{}</th>{cells}</tr>"#, escape(reason));
    }
    table("", &format!("<th>reason</th>{names}"), &format!("<tbody>{rows}</tbody>"))
}

/// What became of the writes of ours.
pub(super) fn writes(report: &Report) -> String {
    let row = |(what, figure): (&str, String)| {
        format!(r#"<tr><th>{}</th><td class="wrap">{}</td></tr>"#, escape(what), escape(&figure))
    };
    let mut rows: String = figures::writes(&report.audit).into_iter().map(row).collect();
    rows.extend(report.audit.examples.iter().map(|example| row(("for example", example.clone()))));
    table("words", "<th>writes</th><th>count</th>", &format!("<tbody>{rows}</tbody>"))
}

/// All seeds.
pub(super) fn runs(reports: &[Report], worst: usize) -> String {
    let mut rows = String::new();
    for (index, report) in reports.iter().enumerate() {
        let (class, verdict) = if report.met() { ("met", "✓ met") } else { ("not-met", "✗ NOT MET") };
        let shown = if index == worst { ", shown on this page" } else { "" };
        let (met, all) = (report.demands.len() - report.unmet().count(), report.demands.len());
        let lowest = report.ours.phases.iter().min_by(|a, b| a.success_rate().total_cmp(&b.success_rate()));
        let lowest = lowest.map_or(NONE.into(), |phase| format!("{} ({})", figures::success(phase), phase.name));
        let _ = write!(
            rows,
            r#"<tr><th>{}{shown}</th><td class="{class}">{verdict}</td><td>{met} of {all}</td><td>{}</td><td>{}</td></tr>"#,
            report.seed,
            escape(&lowest),
            figures::count(report.audit.lost),
        );
    }
    let head = "<th>seed</th><th>verdict</th><th>demands met</th><th>lowest success</th><th>writes lost</th>";
    table("", head, &format!("<tbody>{rows}</tbody>"))
}

fn table(class: &str, head: &str, body: &str) -> String {
    format!(
        r#"<div class="card scroll"><table class="{class}"><thead><tr>{head}</tr></thead>{body}</table></div>
"#
    )
}
