//! A plot over time: a band for each phase, a line for each flow.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::escape;
use super::explain::is_calm;
use super::scale::{Scale, time_step};
use crate::measured::{BUCKET, Bucket, Phase, ratio};
use crate::report::Report;

// In units of the view box; the page scales it.
const WIDTH: f64 = 1120.0;
const HEIGHT: f64 = 310.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 1100.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 268.0;
/// The width of a letter of the phases' names, generously.
const LETTER: f64 = 6.4;

/// A point has no value where nothing was asked.
type Points = Vec<Option<f64>>;

struct Plot {
    title: &'static str,
    note: &'static str,
    scale: Scale,
    lines: Vec<(&'static str, Points)>,
    /// Seconds.
    total: f64,
}

/// The three plots; none if no time passed.
pub(super) fn plots(report: &Report) -> String {
    let end = report.ours.phases.last().map_or(Duration::ZERO, |phase| phase.ends);
    let total = end.max(report.ours.timeline.last().map_or(Duration::ZERO, |bucket| bucket.at + BUCKET)).as_secs_f64();
    if total <= 0.0 {
        return "<p>Nothing was measured.</p>".into();
    }
    let lines = |value: fn(&Bucket) -> Option<f64>| -> Vec<(&'static str, Points)> {
        let points = |(name, flow): (_, Option<&crate::measured::Measured>)| {
            Some((name, flow?.timeline.iter().map(value).collect()))
        };
        report.flows().into_iter().filter_map(points).collect()
    };
    let values = |lines: &[(&str, Points)]| lines.iter().flat_map(|(_, points)| points.clone()).flatten().collect();
    let success = lines(|bucket| (bucket.offered > 0).then(|| ratio(bucket.succeeded, bucket.offered)));
    let latency = lines(|bucket| (bucket.offered > 0).then_some(bucket.p99.as_secs_f64()));
    let in_flight = lines(|bucket| u32::try_from(bucket.in_flight).ok().map(f64::from));
    let (latencies, counts): (Vec<f64>, Vec<f64>) = (values(&latency), values(&in_flight));
    let plots = [
        Plot {
            title: "Success rate",
            note: "right answers, of all requests; higher is better",
            scale: Scale::Share,
            lines: success,
            total,
        },
        Plot {
            title: "Latency, p99",
            note: "99 of 100 requests took no longer; logarithmic, lower is better",
            scale: Scale::of_seconds(latencies.into_iter()),
            lines: latency,
            total,
        },
        Plot {
            title: "Requests in flight",
            note: "sent and not yet answered; logarithmic, lower is better",
            scale: Scale::of_counts(counts.into_iter()),
            lines: in_flight,
            total,
        },
    ];
    plots.iter().map(|plot| plot.figure(&report.ours.phases)).collect()
}

// === impl Plot ===

impl Plot {
    fn figure(&self, phases: &[Phase]) -> String {
        let mut svg = String::new();
        self.bands(&mut svg, phases);
        self.grid(&mut svg);
        // Ours is drawn last, over the others.
        for (name, points) in self.lines.iter().rev() {
            let _ = write!(svg, r#"<path class="series {name}" d="{}"/>"#, self.path(points));
        }
        let keys: String = self.lines.iter().map(|(name, _)| key(name)).collect();
        format!(
            r#"<figure class="card"><figcaption><b>{0}</b><span class="soft small">{1}</span><span class="keys">{keys}</span>
</figcaption><div class="scroll"><svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{0} over time"
 data-plot="{2}">{svg}<line class="cursor" y1="{TOP}" y2="{BOTTOM}" visibility="hidden"/></svg></div>
<div class="tip" hidden></div></figure>
"#,
            self.title,
            self.note,
            escape(&self.data(phases).to_string())
        )
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.total).clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - self.scale.height(value) * (BOTTOM - TOP)
    }

    fn bands(&self, svg: &mut String, phases: &[Phase]) {
        for (index, phase) in phases.iter().enumerate() {
            let (from, to) = (self.x(phase.begins.as_secs_f64()), self.x(phase.ends.as_secs_f64()));
            if !is_calm(&phase.name) {
                let (width, height) = (to - from, BOTTOM - TOP);
                // Neighbours are told apart.
                let class = if index % 2 == 0 { "band pale" } else { "band" };
                let _ = write!(
                    svg,
                    r#"<rect class="{class}" x="{from:.1}" y="{TOP}" width="{width:.1}" height="{height}"/>"#
                );
            }
            let _ = write!(svg, r#"<line class="edge" x1="{to:.1}" x2="{to:.1}" y1="{TOP}" y2="{BOTTOM}"/>"#);
            svg.push_str(&label(&phase.name, from, to));
        }
    }

    fn grid(&self, svg: &mut String) {
        for (value, said) in self.scale.ticks() {
            let y = self.y(value);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/><text x="{}" y="{:.1}" text-anchor="end">{said}</text>"#,
                LEFT - 8.0,
                y + 4.0
            );
        }
        let step = time_step(self.total);
        let mut at = 0.0;
        while at <= self.total {
            let x = self.x(at);
            let _ = write!(
                svg,
                r#"<line class="axis" x1="{x:.1}" x2="{x:.1}" y1="{BOTTOM}" y2="{}"/><text x="{x:.1}" y="{}" text-anchor="middle">{at} s</text>"#,
                BOTTOM + 5.0,
                BOTTOM + 20.0
            );
            at += step;
        }
        let _ = write!(svg, r#"<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>"#);
        let (middle, below) = (f64::midpoint(LEFT, RIGHT), HEIGHT - 4.0);
        let _ = write!(
            svg,
            r#"<text x="{middle}" y="{below}" text-anchor="middle">time since the first phase began</text>"#
        );
    }

    /// Broken where there is no value.
    fn path(&self, points: &[Option<f64>]) -> String {
        let mut path = String::new();
        let mut pen_down = false;
        let mut middle = BUCKET.as_secs_f64() / 2.0;
        for point in points {
            if let Some(value) = point.filter(|_| middle <= self.total) {
                let (x, y) = (self.x(middle), self.y(value));
                let _ = write!(path, "{}{x:.1} {y:.1}", if pen_down { "L" } else { "M" });
            }
            pen_down = point.is_some();
            middle += BUCKET.as_secs_f64();
        }
        path
    }

    /// What is shown of the point under the pointer.
    fn data(&self, phases: &[Phase]) -> Value {
        let row = |(name, points): &(&str, Points)| {
            let said: Vec<_> = points.iter().map(|point| point.map(|value| self.scale.say(value))).collect();
            json!({ "name": name, "values": said })
        };
        let rows: Vec<_> = self.lines.iter().map(row).collect();
        let phases: Vec<_> = phases
            .iter()
            .map(|Phase { name, begins, ends, .. }| {
                json!({ "name": name, "begins": begins.as_secs_f64(), "ends": ends.as_secs_f64() })
            })
            .collect();
        json!({
            "left": LEFT, "width": RIGHT - LEFT, "total": self.total, "step": BUCKET.as_secs_f64(),
            "rows": rows, "phases": phases,
        })
    }
}

/// A phase's name above its band, on as many lines as it has words; along the band where it is too narrow for them.
fn label(name: &str, from: f64, to: f64) -> String {
    let words: Vec<_> = name.split_inclusive('-').collect();
    let letters = words.iter().map(|word| word.chars().count()).max().and_then(|letters| u32::try_from(letters).ok());
    let middle = f64::midpoint(from, to);
    if f64::from(letters.unwrap_or_default()) * LETTER > to - from {
        let (x, y) = (middle + 4.0, TOP + 6.0);
        return format!(
            r#"<text transform="translate({x:.1} {y}) rotate(-90)" text-anchor="end">{}</text>"#,
            escape(name)
        );
    }
    let mut y = TOP - 7.0;
    let mut text = String::new();
    for word in words.iter().rev() {
        let _ = write!(text, r#"<text x="{middle:.1}" y="{y:.1}" text-anchor="middle">{}</text>"#, escape(word));
        y -= 13.0;
    }
    text
}

fn key(name: &str) -> String {
    let line = format!(r#"<svg viewBox="0 0 30 8" aria-hidden="true"><path class="series {name}" d="M1 4H29"/></svg>"#);
    format!(r#"<span class="key">{line}{name}</span>"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{empty, report};

    #[test]
    fn there_is_a_line_for_each_flow_that_ran() {
        let mut report = report();
        // In each of the three plots one in the plot and one in its legend.
        let count = |report: &Report, flow: &str| plots(report).matches(&format!(r#""series {flow}" d="M"#)).count();
        assert_eq!(["ours", "tower", "naive"].map(|flow| count(&report, flow)), [6, 6, 6]);
        report.tower = None;
        assert_eq!(["ours", "tower", "naive"].map(|flow| count(&report, flow)), [6, 0, 6]);
        let plots = plots(&report);
        for word in ["100 %", "100 ms", "10 s", "server-", "killed"] {
            assert!(plots.contains(word), "{word}");
        }
        assert!(!plots.contains("NaN") && !plots.contains("inf"));
    }

    #[test]
    fn no_value_breaks_the_line() {
        let plot = Plot { title: "", note: "", scale: Scale::Share, lines: Vec::new(), total: 1.0 };
        let path = plot.path(&[Some(0.0), None, Some(1.0), Some(1.0), Some(0.5)]);
        assert_eq!(path, format!("M{:.1} 268.0M{:.1} 50.0L{:.1} 50.0", plot.x(0.125), plot.x(0.625), plot.x(0.875)));
    }

    #[test]
    fn nothing_measured_is_no_plot() {
        let mut empty = empty();
        assert!(!plots(&empty).contains("NaN"));
        empty.ours = crate::measured::Measured::default();
        assert_eq!(plots(&empty), "<p>Nothing was measured.</p>");
    }

    #[test]
    fn a_narrow_band_has_its_name_along_it() {
        assert!(label("burst", 0.0, 10.0).contains("rotate") && !label("burst", 0.0, 50.0).contains("rotate"));
        assert_eq!(label("a-<b", 0.0, 50.0).matches("<text").count(), 2);
        assert!(label("a-<b", 0.0, 50.0).contains("&lt;b") && label("<b", 0.0, 1.0).contains("&lt;b"));
    }
}
