//! What the load generator notes of each request, and what it keeps as the journal of writes: raw, one JSON object a line.
//!
//! Everything that is reported is worked out from these lines by the parent, after the run.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// The name of the file of samples in the run's folder.
pub(crate) const SAMPLES: &str = "samples.jsonl";

/// The name of the journal of writes in the run's folder.
pub(crate) const JOURNAL: &str = "journal.jsonl";

/// One finished request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// When the schedule wanted it to start: latency counts from here.
    pub(crate) intended: Moment,
    /// When it was really sent; `None` if it was not.
    pub(crate) sent: Option<Moment>,
    /// When the answer was there or the client gave up.
    pub(crate) done: Moment,
    pub(crate) write: bool,
    /// A read of something that every server had answered since it was last written: it does not need the database.
    pub(crate) cached: bool,
    /// 0 where nobody answered.
    pub(crate) status: u16,
    /// The answer said when to come again.
    pub(crate) retry_after: bool,
    /// The answer said that something behind the server failed, not the server.
    pub(crate) dependency_failed: bool,
    /// The server that answered; empty where it was the balancer itself, or nobody.
    pub(crate) server: String,
    /// What the server said of its cache: `hit`, `miss`, `stale`, or nothing.
    pub(crate) cache: String,
    /// The record that was read, and the version that the answer had.
    pub(crate) read: Option<(usize, u64)>,
    /// Why this is no success; `None` if the right answer came, body and all.
    pub(crate) failure: Option<String>,
}

/// One line of the journal: a write that was sent, and when its acknowledgement was there, if ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Before the first byte was sent.
    pub(crate) sent: Moment,
    /// When the answer that acknowledges it was there; `None` where it may or may not have been applied.
    pub(crate) acknowledged: Option<Moment>,
    pub(crate) what: WriteOf,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WriteOf {
    /// A record got this version: `user` (its id in the database) and `name` are where the database keeps it, `record` is
    /// its index in the workload.
    Record { record: usize, user: i64, name: String, version: u64 },
    /// A session was added; `device` is unique to the request.
    Session { user: i64, device: String },
}

// === impl Sample ===

impl Sample {
    pub(crate) fn succeeded(&self) -> bool {
        self.failure.is_none()
    }

    pub(crate) fn answered(&self) -> bool {
        self.status != 0
    }

    /// From the intended start to the end, be it an answer or the client's patience.
    pub(crate) fn latency(&self) -> Duration {
        self.done.since(self.intended)
    }

    /// Turned away on purpose, with a word on when to come again.
    pub(crate) fn refused(&self) -> bool {
        self.status == 503 && self.retry_after
    }
}

/// Reads a file of one JSON object a line. A last line that was cut off by a kill is left out.
pub(crate) fn read_lines<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).with_context(|| format!("bad line: {line}"))).collect()
}
