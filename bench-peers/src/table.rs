//! The rows, as a table and as JSON.

use mainstay_instructions::callgrind::Counts;
use serde_json::{Value, json};

use crate::cases::Case;
use crate::timing::Times;

/// What one library costs on one path. A figure that is not there could not be measured, and the note says why.
pub(crate) struct Row {
    path: String,
    library: &'static str,
    /// Whether it is a row without a recorder, on a handle that is reused.
    is_plain: bool,
    costs: Option<(Counts, Times)>,
    /// Over the bare service.
    instructions: Option<f64>,
    note: Option<String>,
}

impl Row {
    pub(crate) fn measured(case: &Case, suffix: &str, counts: Counts, bare: Counts, times: Times) -> Self {
        Self {
            path: format!("{}{suffix}", case.path),
            library: case.library,
            is_plain: suffix.is_empty(),
            costs: Some((counts, times)),
            instructions: Some(counts.instructions - if case.is_bare() { 0.0 } else { bare.instructions }),
            note: case.note.map(str::to_owned),
        }
    }

    pub(crate) fn missing(case: &Case, suffix: &str, why: &str) -> Self {
        Self {
            path: format!("{}{suffix}", case.path),
            library: case.library,
            is_plain: suffix.is_empty(),
            costs: None,
            instructions: None,
            note: Some(why.to_owned()),
        }
    }

    fn locked(&self) -> Option<f64> {
        self.costs.and_then(|(counts, _)| counts.locked)
    }

    fn allocations(&self) -> Option<f64> {
        self.costs.map(|(counts, _)| counts.allocations)
    }

    fn ratio_to_bare(&self) -> Option<f64> {
        self.costs.map(|(_, times)| times.ratio_to_bare)
    }

    fn two_threads(&self) -> Option<f64> {
        self.costs.map(|(_, times)| times.two_threads)
    }
}

/// The rows as a table in Markdown, those of one path together, with the notes below; or the plain ones of them only.
pub(crate) fn markdown(rows: &[Row], only_plain: bool) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| !only_plain || row.is_plain).collect();
    let mut paths: Vec<&str> = Vec::new();
    for row in &rows {
        if !paths.contains(&row.path.as_str()) {
            paths.push(&row.path);
        }
    }
    let mut text = String::from(
        "| path | library | Ir over bare | locked | allocations | time over bare | two threads | note |\n\
         |---|---|--:|--:|--:|--:|--:|---|\n",
    );
    let mut notes: Vec<&str> = Vec::new();
    for path in paths {
        for row in rows.iter().filter(|row| row.path == path) {
            let figure = |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
            let note = row.note.as_deref().map_or(String::new(), |note| {
                let place = notes.iter().position(|&other| other == note).unwrap_or_else(|| {
                    notes.push(note);
                    notes.len() - 1
                });
                (place + 1).to_string()
            });
            text += &format!(
                "| {path} | {} | {} | {} | {} | {} | {} | {note} |\n",
                row.library,
                figure(row.instructions, 0),
                figure(row.locked(), 0),
                figure(row.allocations(), 0),
                figure(row.ratio_to_bare(), 1),
                figure(row.two_threads(), 2),
            );
        }
    }
    if !notes.is_empty() {
        text += "\nNotes:\n\n";
    }
    for (place, note) in notes.iter().enumerate() {
        text += &format!("{}. {note}\n", place + 1);
    }
    text
}

/// The rows as JSON, all of them.
pub(crate) fn json(rows: &[Row], cores: Option<[usize; 2]>) -> String {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "path": row.path,
                "library": row.library,
                "instructions": row.instructions,
                "locked": row.locked(),
                "allocations": row.allocations(),
                "ratio_to_bare": row.ratio_to_bare(),
                "two_threads": row.two_threads(),
                "note": row.note,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "threads_pinned_to_cores": cores, "rows": rows }))
}
