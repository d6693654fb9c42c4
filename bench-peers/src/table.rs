//! The rows, as a table and as JSON.

use mainstay_instructions::callgrind::Counts;
use serde_json::{Value, json};

use crate::peers::Case;
use crate::timing::Times;

/// What one library costs on one path.
pub(crate) struct Row {
    path: String,
    library: &'static str,
    /// Over the bare service.
    instructions: f64,
    locked: Option<f64>,
    allocations: f64,
    /// Not measured with a recorder installed.
    times: Option<Times>,
}

impl Row {
    pub(crate) fn new(case: &Case, suffix: &str, counts: Counts, bare: Counts, times: Option<Times>) -> Self {
        Self {
            path: format!("{}{suffix}", case.path),
            library: case.library,
            instructions: counts.instructions - if case.is_bare() { 0.0 } else { bare.instructions },
            locked: counts.locked,
            allocations: counts.allocations,
            times,
        }
    }
}

/// The rows as a table in Markdown, those of one path together.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut paths: Vec<&str> = Vec::new();
    for row in rows {
        if !paths.contains(&row.path.as_str()) {
            paths.push(&row.path);
        }
    }
    let mut text = String::from(
        "| path | library | Ir over bare | locked | allocations | time over bare | two threads |\n|---|---|--:|--:|--:|--:|--:|\n",
    );
    for path in paths {
        for row in rows.iter().filter(|row| row.path == path) {
            let Row { library, instructions, locked, allocations, times, .. } = row;
            let locked = locked.map_or("-".to_owned(), |locked| format!("{locked:.0}"));
            let (ratio, scaling) = times.map_or(("-".to_owned(), "-".to_owned()), |times| {
                (format!("{:.1}", times.ratio_to_bare), format!("{:.2}", times.two_threads))
            });
            text += &format!(
                "| {path} | {library} | {instructions:.0} | {locked} | {allocations:.0} | {ratio} | {scaling} |\n"
            );
        }
    }
    text
}

/// The rows as JSON.
pub(crate) fn json(rows: &[Row]) -> String {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "path": row.path,
                "library": row.library,
                "instructions": row.instructions,
                "locked": row.locked,
                "allocations": row.allocations,
                "ratio_to_bare": row.times.map(|times| times.ratio_to_bare),
                "two_threads": row.times.map(|times| times.two_threads),
            })
        })
        .collect();
    format!("{:#}\n", json!({ "rows": rows }))
}
