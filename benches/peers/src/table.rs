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
    /// Whether two threads can share one.
    is_clone: bool,
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
            is_clone: case.is_clone,
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
            is_clone: case.is_clone,
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

    /// Nanoseconds of a bare service, and what anything else adds to one.
    fn nanoseconds(&self) -> Option<f64> {
        self.costs.map(|(_, times)| if self.is_bare() { times.nanoseconds } else { times.over_bare() })
    }

    fn two_threads(&self) -> Option<f64> {
        self.costs.filter(|_| self.is_clone).map(|(_, times)| times.two_threads)
    }

    fn is_bare(&self) -> bool {
        self.library == "bare"
    }

    /// Our time over the time of the quickest library on the same path, ours aside.
    fn to_best_peer(&self, rows: &[Self]) -> Option<f64> {
        if self.library != "mainstay" {
            return None;
        }
        let peers = rows.iter().filter(|row| row.path == self.path && row.library != "mainstay");
        let best = peers.filter_map(Self::nanoseconds).min_by(f64::total_cmp)?;
        Some(self.nanoseconds()? / best)
    }
}

/// The rows as a table in Markdown, those of one path together, with the notes below; or the plain ones of them only.
pub(crate) fn markdown(all: &[Row], only_plain: bool) -> String {
    let rows: Vec<&Row> = all.iter().filter(|row| !only_plain || row.is_plain).collect();
    let mut paths: Vec<&str> = Vec::new();
    for row in &rows {
        if !paths.contains(&row.path.as_str()) {
            paths.push(&row.path);
        }
    }
    let mut text = String::from(
        "| path | library | ns over bare | to the best peer | two threads | instructions | locked | allocations | note |\n\
         |---|---|--:|--:|--:|--:|--:|--:|---|\n",
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
                "| {path} | {} | {} | {} | {} | {} | {} | {} | {note} |\n",
                row.library,
                figure(row.nanoseconds(), 1),
                row.to_best_peer(all).map_or(String::new(), |ratio| format!("{ratio:.2}")),
                figure(row.two_threads(), 2),
                figure(row.instructions, 0),
                figure(row.locked(), 0),
                figure(row.allocations(), 0),
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
    let values: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "path": row.path,
                "library": row.library,
                "instructions": row.instructions,
                "locked": row.locked(),
                "allocations": row.allocations(),
                "nanoseconds_over_bare": row.nanoseconds(),
                "to_best_peer": row.to_best_peer(rows),
                "two_threads": row.two_threads(),
                "note": row.note,
            })
        })
        .collect();
    format!("{:#}\n", json!({ "threads_pinned_to_cores": cores, "rows": values }))
}
