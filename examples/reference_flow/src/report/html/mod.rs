//! The report as one page: nothing is loaded from elsewhere, and it reads without its few lines of script.

mod explain;
mod plot;
mod scale;
mod tables;

use super::Report;
use super::figures;

/// The run at `worst`, and with several runs a line for each.
pub(super) fn page(reports: &[Report], worst: usize) -> String {
    let main =
        reports.get(worst).map_or("<p>There is no run to report.</p>".into(), |report| main(report, reports, worst));
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>mainstay: the reference flow</title>
<style>
{}</style></head><body><main>
<h1>The reference flow, through every disaster</h1>
<p>A user's request goes to a load balancer, from there to one of several application servers, and from there to a cache
or a database. While requests keep coming, parts of the flow are killed, frozen, slowed down and emptied, one after the
other. The same requests and the same disasters are put to each flow that is shown here: <b>ours</b> has the layers of
mainstay, <b>tower</b> has what tower brings along (power of two choices, retries with a budget, timeouts, load
shedding) and a plain cache, and <b>naive</b> takes the servers in turn and does nothing else.</p>
{main}</main>
<script>
{}</script></body></html>
"#,
        include_str!("style.css"),
        include_str!("hover.js"),
    )
}

fn main(report: &Report, reports: &[Report], worst: usize) -> String {
    let runs = if reports.len() > 1 {
        format!(
            "<h2>All runs</h2><p>One a seed; the rest of the page is about the worst.</p>{}",
            tables::runs(reports, worst)
        )
    } else {
        String::new()
    };
    format!(
        r#"{facts}
{verdict}
{tiles}
{runs}
<h2>Demands</h2>
{demands}
<h2>Over time</h2>
<p>A point is {bucket} ms of requests, by the time at which they were meant to start. Shaded bands are the disasters.</p>
{plots}
<h2>Phase by phase</h2>
<p>Latency counts from the moment at which a request was meant to start, and requests that nobody answered are in it.
Success is cut, not rounded: 100.00 % means that nothing failed.</p>
{phases}
<h2>Writes</h2>
<p>What ours was told is stored, against what the database and its restored backup hold in the end.</p>
{writes}
<h2>Why requests failed</h2>
{failures}
<h2>Who answered, in ours</h2>
<p>The share of each application server in all the answers that came from one.</p>
{servers}"#,
        facts = facts(report),
        verdict = verdict(report),
        tiles = tiles(report),
        demands = tables::demands(report),
        bucket = crate::measured::BUCKET.as_millis(),
        plots = plot::plots(report),
        phases = tables::phases(report),
        writes = tables::writes(report),
        failures = tables::failures(report),
        servers = tables::servers(report),
    )
}

fn facts(report: &Report) -> String {
    let capacity = report.capacity.map(|capacity| format!("<span>capacity {capacity:.0} answers/s</span>"));
    format!(
        r#"<div class="run"><span>seed {}</span><span>{} requests/s</span>{}<span>sent late by at most {}</span></div>"#,
        report.seed,
        report.rate,
        capacity.unwrap_or_default(),
        figures::time(report.ours.send_lag),
    )
}

/// What a reader in a hurry wants to know.
fn verdict(report: &Report) -> String {
    let (unmet, all) = (report.unmet().count(), report.demands.len());
    let invalid = if report.valid() {
        ""
    } else {
        r#"<div class="verdict bad"><strong>Not valid</strong>The load generator could not keep to its schedule.</div>"#
    };
    let verdict = match (unmet, all) {
        (_, 0) => r#"<p class="soft">Nothing was demanded of this run.</p>"#.into(),
        (0, _) => format!(r#"<div class="verdict good"><strong>✓ All {all} demands were met</strong></div>"#),
        (_, _) => {
            let item = |demand: &super::Demand| {
                format!("<li>{}: <b>{}</b></li>", escape(&demand.name), escape(&demand.figure))
            };
            let items: String = report.unmet().map(item).collect();
            format!(
                r#"<div class="verdict bad"><strong>✗ {unmet} of {all} demands NOT met</strong><ul>{items}</ul></div>"#
            )
        }
    };
    format!("{invalid}{verdict}")
}

fn tiles(report: &Report) -> String {
    let (total, audit) = (&report.ours.total, &report.audit);
    let tiles = [
        ("requests", figures::count(total.offered)),
        ("success, whole run", figures::success(total)),
        ("p99, whole run", figures::latency(total, total.p99)),
        ("writes lost", format!("{} of {}", figures::count(audit.lost), figures::count(audit.acknowledged))),
        ("writes applied twice", figures::count(audit.duplicated)),
        ("stale reads", figures::count(audit.stale)),
    ];
    let tile = |(what, figure)| format!(r#"<div class="tile"><b>{figure}</b><span>{what}</span></div>"#);
    format!(r#"<div class="tiles">{}</div>"#, tiles.map(tile).concat())
}

/// As text, or as an attribute's value in quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
