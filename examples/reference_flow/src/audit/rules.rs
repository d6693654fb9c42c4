//! The rules: each gives its findings in words.

use std::iter::repeat_n;

use super::Staleness;
use super::content::Content;
use super::history::{History, acknowledged_before, definitely_older};
use crate::clock::Moment;
use crate::sample::Sample;

/// Writes that were acknowledged before `until`, and that `content` cannot have applied: it holds something that is
/// definitely older, or nothing.
pub(super) fn missing(history: &History<'_>, content: &Content, until: Moment) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, record) in &history.records {
        let kept = content.records.get(&(record.user, record.name.to_owned()));
        let held_version = kept.and_then(|kept| kept.version(record.user, *index));
        let held = held_version.and_then(|version| record.versions.get(&version));
        for (version, written) in &record.versions {
            let gone = match (kept, held) {
                (None, _) => true,
                // What nobody wrote is a finding of its own.
                (Some(_), None) => false,
                (Some(_), Some(held)) => definitely_older(held, written),
            };
            if gone && acknowledged_before(written, until) {
                let instead = match held_version {
                    Some(held) => format!("version {held} is there"),
                    None => "nothing is there".to_owned(),
                };
                findings.push(format!("record {index}: version {version} was acknowledged, but {instead}"));
            }
        }
    }
    for (device, (user, written)) in &history.sessions {
        let there = content.sessions.get(*device).is_some_and(|users| users.contains(user));
        if !there && acknowledged_before(written, until) {
            findings.push(format!("the session of {device} was acknowledged, but user {user} does not have it"));
        }
    }
    findings
}

/// Values that nobody wrote, or that were first sent after `end`. What the journal knows nothing of does not count:
/// others than the load generator write, too.
pub(super) fn unwritten(history: &History<'_>, content: &Content, end: Moment) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, record) in &history.records {
        let Some(kept) = content.records.get(&(record.user, record.name.to_owned())) else { continue };
        match kept.version(record.user, *index).map(|version| (version, record.versions.get(&version))) {
            Some((_, Some(written))) if written.sent <= end => {}
            Some((version, Some(_))) => findings.push(format!("record {index}: version {version} was sent later")),
            Some((version, None)) => findings.push(format!("record {index}: nobody wrote version {version}")),
            None => findings.push(format!("record {index}: nobody wrote {:?}", kept.value)),
        }
    }
    for (device, (user, written)) in &history.sessions {
        let users = content.sessions.get(*device).map(Vec::as_slice).unwrap_or_default();
        if let Some(other) = users.iter().find(|other| *other != user) {
            findings.push(format!("the session of {device} is with user {other}, not {user}"));
        } else if !users.is_empty() && written.sent > end {
            findings.push(format!("the session of {device} was sent later"));
        }
    }
    findings
}

/// Writes that were applied more than once, acknowledged or not: a session that is there twice, or a record that was
/// written more often than with different keys.
pub(super) fn duplicated(history: &History<'_>, content: &Content) -> Vec<String> {
    let mut findings = Vec::new();
    for (index, record) in &history.records {
        let Some(kept) = content.records.get(&(record.user, record.name.to_owned())) else { continue };
        // Where old keys have been deleted, this much is still certain: a write that was sent counts at most once.
        let most = if history.all_keys_kept { kept.keys } else { record.versions.len() };
        let (writes, extra) = (kept.writes, kept.writes.saturating_sub(most));
        findings.extend(repeat_n(format!("record {index} was written {writes} times by {most} writes"), extra));
    }
    for device in history.sessions.keys() {
        let rows = content.sessions.get(*device).map_or(0, Vec::len);
        findings.extend(repeat_n(format!("the session of {device} is there {rows} times"), rows.saturating_sub(1)));
    }
    findings
}

/// Reads whose answer was definitely older than a write that had been acknowledged for as long as `staleness` says when
/// the read was sent, and reads of what nobody wrote.
pub(super) fn stale(history: &History<'_>, reads: &[Sample], staleness: &Staleness) -> Vec<String> {
    let finding = |sample: &Sample| {
        let ((index, version), sent) = (sample.read?, sample.sent?);
        let record = history.records.get(&index);
        let Some(read) = record.and_then(|record| record.versions.get(&version)) else {
            return Some(format!("a read of record {index} got version {version}, which nobody wrote"));
        };
        let allowed = if sample.cache == "stale" { staleness.marked } else { staleness.fresh };
        let latest = record?.latest(sent, allowed)?;
        (read.acknowledged? < latest.sent).then(|| {
            let newer = latest.version;
            format!("a read of record {index} got version {version} more than {allowed:?} after version {newer}")
        })
    };
    reads.iter().filter(|sample| sample.succeeded()).filter_map(finding).collect()
}
