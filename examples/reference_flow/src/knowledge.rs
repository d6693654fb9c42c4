//! Which reads need no database: told from outside, by who answered what since it was last written.
//!
//! The servers' own word (`x-cache: hit`) would make every demand on cached reads true by definition.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::clock::Moment;

/// An answer that is older may have been dropped; well below the time for which the caches keep old answers.
const KEPT: Duration = Duration::from_secs(30);

/// What the load generator knows of the servers' caches.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    /// The servers that answer.
    servers: Vec<String>,
    paths: HashMap<String, Known>,
}

#[derive(Debug, Default)]
struct Known {
    writes_under_way: usize,
    /// The end of the last write.
    written: Moment,
    /// Who answered a read that was sent after the last write, and when.
    answered: BTreeMap<String, Moment>,
}

// === impl Knowledge ===

impl Knowledge {
    /// These servers answer from now on; what others had cached is gone.
    pub(crate) fn caches(&mut self, servers: Vec<String>) {
        for known in self.paths.values_mut() {
            known.answered.retain(|server, _| servers.contains(server));
        }
        self.servers = servers;
    }

    /// Whether every server has this in its cache, as far as a client can know.
    pub(crate) fn is_cached(&self, path: &str, now: Moment) -> bool {
        let known = self.paths.get(path).filter(|known| known.writes_under_way == 0);
        known.is_some_and(|known| {
            let has = |server| known.answered.get(server).is_some_and(|at: &Moment| now.since(*at) < KEPT);
            !self.servers.is_empty() && self.servers.iter().all(has)
        })
    }

    pub(crate) fn write_begins(&mut self, path: &str) {
        let known = self.paths.entry(path.to_owned()).or_default();
        known.writes_under_way += 1;
        known.answered.clear();
    }

    pub(crate) fn write_ends(&mut self, path: &str, now: Moment) {
        let known = self.paths.entry(path.to_owned()).or_default();
        known.writes_under_way = known.writes_under_way.saturating_sub(1);
        known.written = now;
        known.answered.clear();
    }

    /// A read that was sent at `sent` got its right answer from `server`.
    pub(crate) fn read(&mut self, path: &str, server: &str, sent: Moment, now: Moment) {
        let known = self.paths.entry(path.to_owned()).or_default();
        if known.writes_under_way == 0 && sent > known.written {
            known.answered.insert(server.to_owned(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Knowledge {
        let mut knowledge = Knowledge::default();
        knowledge.caches(vec!["a".into(), "b".into()]);
        knowledge
    }

    #[test]
    fn cached_is_what_every_server_has_answered() {
        let mut knowledge = two();
        knowledge.read("/x", "a", Moment(1), Moment(2));
        assert!(!knowledge.is_cached("/x", Moment(3)));
        knowledge.read("/x", "b", Moment(1), Moment(2));
        assert!(knowledge.is_cached("/x", Moment(3)));
        assert!(!knowledge.is_cached("/y", Moment(3)));
        assert!(!knowledge.is_cached("/x", Moment(2).after(KEPT)));
    }

    #[test]
    fn a_write_ends_it_and_a_read_that_was_sent_before_does_not_bring_it_back() {
        let mut knowledge = two();
        let answer = |knowledge: &mut Knowledge, sent| {
            for server in ["a", "b"] {
                knowledge.read("/x", server, Moment(sent), Moment(sent + 1));
            }
        };
        answer(&mut knowledge, 1);
        knowledge.write_begins("/x");
        assert!(!knowledge.is_cached("/x", Moment(5)));
        answer(&mut knowledge, 6);
        knowledge.write_ends("/x", Moment(10));
        answer(&mut knowledge, 9);
        assert!(!knowledge.is_cached("/x", Moment(12)));
        answer(&mut knowledge, 12);
        assert!(knowledge.is_cached("/x", Moment(14)));
    }

    #[test]
    fn a_server_that_was_restarted_has_nothing() {
        let mut knowledge = two();
        for server in ["a", "b"] {
            knowledge.read("/x", server, Moment(1), Moment(2));
        }
        knowledge.caches(vec!["a".into()]);
        assert!(knowledge.is_cached("/x", Moment(3)));
        knowledge.caches(vec!["a".into(), "b".into()]);
        assert!(!knowledge.is_cached("/x", Moment(3)));
    }
}
