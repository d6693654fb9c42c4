//! The journal in order: what was written to each record and as each session, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::sample::{WriteOf, Written};
use crate::storage::APPLIED_KEPT;

/// All writes of a run.
#[derive(Debug, Default)]
pub(super) struct History<'a> {
    pub(super) records: BTreeMap<usize, Record<'a>>,
    /// By their device, with their user.
    pub(super) sessions: BTreeMap<&'a str, (i64, &'a Written)>,
    /// The database kept the idempotency keys of all of these writes.
    pub(super) all_keys_kept: bool,
}

/// The writes of one record.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) user: i64,
    pub(super) name: &'a str,
    pub(super) versions: BTreeMap<u64, &'a Written>,
    /// The acknowledged ones, in the order of their acknowledgements.
    acknowledged: Vec<Latest>,
}

/// An acknowledgement, and of all writes that were acknowledged by then the one that was sent last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latest {
    acknowledged: Moment,
    pub(super) version: u64,
    pub(super) sent: Moment,
}

/// Whether a correct database that has applied `newer` cannot hold `older` any more.
pub(super) fn definitely_older(older: &Written, newer: &Written) -> bool {
    older.acknowledged.is_some_and(|acknowledged| acknowledged < newer.sent)
}

pub(super) fn acknowledged_before(written: &Written, moment: Moment) -> bool {
    written.acknowledged.is_some_and(|acknowledged| acknowledged < moment)
}

// === impl History ===

impl<'a> History<'a> {
    pub(super) fn of(journal: &'a [Written]) -> anyhow::Result<Self> {
        let mut history = Self::default();
        for written in journal {
            match &written.what {
                WriteOf::Record { record: index, user, name, version } => {
                    let record = history.records.entry(*index).or_insert_with(|| Record::new(*user, name));
                    anyhow::ensure!(
                        (record.user, record.name) == (*user, name.as_str()),
                        "the journal keeps record {index} in two places"
                    );
                    let twice = record.versions.insert(*version, written);
                    anyhow::ensure!(twice.is_none(), "the journal has version {version} of record {index} twice");
                }
                WriteOf::Session { user, device } => {
                    let twice = history.sessions.insert(device, (*user, written));
                    anyhow::ensure!(twice.is_none(), "the journal has the session of {device} twice");
                }
            }
        }
        history.records.values_mut().for_each(Record::order);
        let begins = journal.iter().map(|written| written.sent).min().unwrap_or_default();
        let ends = journal.iter().map(|written| written.acknowledged.unwrap_or(written.sent)).max();
        history.all_keys_kept = ends.unwrap_or_default().since(begins) < Duration::from_secs(APPLIED_KEPT.into());
        Ok(history)
    }

    pub(super) fn acknowledged(&self, before: Moment) -> u64 {
        let records = self.records.values().flat_map(|record| record.versions.values().copied());
        let sessions = self.sessions.values().map(|(_, written)| *written);
        records.chain(sessions).filter(|written| acknowledged_before(written, before)).count() as u64
    }
}

// === impl Record ===

impl<'a> Record<'a> {
    fn new(user: i64, name: &'a str) -> Self {
        Self { user, name, versions: BTreeMap::new(), acknowledged: Vec::new() }
    }

    fn order(&mut self) {
        let acknowledged = self.versions.iter().filter_map(|(version, written)| {
            Some(Latest { acknowledged: written.acknowledged?, version: *version, sent: written.sent })
        });
        let mut acknowledged: Vec<Latest> = acknowledged.collect();
        acknowledged.sort_by_key(|latest| latest.acknowledged);
        for index in 1..acknowledged.len() {
            let before = acknowledged[index - 1];
            if before.sent > acknowledged[index].sent {
                (acknowledged[index].version, acknowledged[index].sent) = (before.version, before.sent);
            }
        }
        self.acknowledged = acknowledged;
    }

    /// Of the writes whose acknowledgement was `staleness` ago at `moment`, the one that was sent last: if a version is
    /// definitely older than any of them, it is definitely older than this one.
    pub(super) fn latest(&self, moment: Moment, staleness: Duration) -> Option<Latest> {
        let until = self.acknowledged.partition_point(|latest| latest.acknowledged.after(staleness) <= moment);
        until.checked_sub(1).map(|last| self.acknowledged[last])
    }
}
