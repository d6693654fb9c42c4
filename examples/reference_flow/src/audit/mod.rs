//! What became of the writes: the journal of the load generator against what the database and its backup hold.
//!
//! Writes overlap, and one that nobody acknowledged may have been applied, or not, or may still be. So nothing is called
//! wrong here that a correct database could have done: a version is *definitely older* than a write only if it was
//! acknowledged before that write was sent. Of two writes that overlapped, either may be the last.
//!
//! The journal must be whole: each write that was sent is in it, also those that failed.

mod backup;
mod content;
mod history;
mod rules;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::backup::{Backup, Restored};
use self::content::Content;
use self::history::History;
use crate::clock::Moment;
use crate::sample::{Sample, Written};

/// Findings that are told in words.
const EXAMPLES: usize = 5;

/// Later than all of a run.
const NEVER: Moment = Moment(u64::MAX);

/// The verdict over all writes and reads of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Audit {
    /// Writes that the user was told are done.
    pub(crate) acknowledged: u64,
    /// Acknowledged writes that the database does not hold, and values in it that nobody wrote.
    pub(crate) lost: u64,
    /// Applications too many: a write that was applied three times counts as two.
    pub(crate) duplicated: u64,
    /// Reads that were older than an acknowledged write by more than the stated staleness, or that nobody wrote.
    pub(crate) stale: u64,
    /// The backup that was restored into a second database; `None` where there was none.
    pub(crate) restored: Option<Restored>,
    /// The first few of what is wrong, in words.
    pub(crate) examples: Vec<String>,
}

/// How old an answer may be, counted from the acknowledgement of the write that it does not show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staleness {
    /// Of answers that are not marked as stale.
    pub(crate) fresh: Duration,
    /// Of answers that say that the cache knew that they are stale.
    pub(crate) marked: Duration,
}

/// Compares what was written and read with what `database` and `backup` hold. The database's process must have ended.
/// The backup is restored into `folder`, where a second database serves it.
///
/// # Errors
///
/// The journal contradicts itself, or `database` cannot be read. A backup that cannot be restored is no error but a
/// finding.
pub(crate) fn audit(
    journal: &[Written],
    reads: &[Sample],
    database: &Path,
    backup: Option<&Backup>,
    staleness: &Staleness,
    folder: &Path,
) -> anyhow::Result<Audit> {
    let history = History::of(journal)?;
    let content = Content::of(&content::open(database)?)?;
    let mut lost = rules::missing(&history, &content, NEVER);
    lost.extend(rules::unwritten(&history, &content, NEVER));
    let duplicated = rules::duplicated(&history, &content);
    let stale = rules::stale(&history, reads, staleness);
    let (restored, in_backup) = backup.map(|backup| backup::check(backup, &history, folder)).unzip();
    Ok(Audit {
        acknowledged: history.acknowledged(NEVER),
        lost: lost.len() as u64,
        duplicated: duplicated.len() as u64,
        stale: stale.len() as u64,
        restored,
        examples: [lost, duplicated, stale, in_backup.unwrap_or_default()]
            .into_iter()
            .flatten()
            .take(EXAMPLES)
            .collect(),
    })
}
