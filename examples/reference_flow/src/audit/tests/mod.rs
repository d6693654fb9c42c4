//! For each rule: where it is violated, and a concurrent history that it must accept. Times are in microseconds.

mod backups;
mod reads;
mod writes;

use super::*;
use crate::sample::WriteOf;
use crate::storage::{Storage, Write};

const STALENESS: Staleness = Staleness { fresh: Duration::from_micros(100), marked: Duration::from_micros(1000) };

/// A real database with one user, who has the record 0, and the journal that is to be compared with it.
struct World {
    folder: tempfile::TempDir,
    storage: Storage,
    journal: Vec<Written>,
    reads: Vec<Sample>,
    backup: Option<Backup>,
}

impl World {
    async fn new() -> Self {
        Self::of(Storage::open).await
    }

    async fn of(open: impl Fn(&Path) -> anyhow::Result<Storage>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(folder.path()).unwrap();
        storage.write(None, Write::User { name: "Ada".into() }).await.unwrap();
        Self { folder, storage, journal: Vec::new(), reads: Vec::new(), backup: None }
    }

    /// Journals a write of record 0.
    fn wrote(&mut self, version: u64, sent: u64, acknowledged: Option<u64>) {
        self.journal.push(record(version, sent, acknowledged));
    }

    fn wrote_session(&mut self, device: &str, sent: u64, acknowledged: Option<u64>) {
        let what = WriteOf::Session { user: 1, device: device.into() };
        self.journal.push(Written { sent: Moment(sent), acknowledged: acknowledged.map(Moment), what });
    }

    fn read(&mut self, version: u64, sent: u64, cache: &str) {
        let (sent, cache) = (Some(Moment(sent)), cache.to_owned());
        self.reads.push(Sample { sent, cache, read: Some((0, version)), ..Sample::default() });
    }

    /// The database applies a write of record 0.
    async fn apply(&self, version: u64) {
        self.apply_value(&format!("v{version}"), value(version)).await;
    }

    async fn apply_value(&self, key: &str, value: String) {
        let write = Write::Record { user: 1, name: "r0".into(), value };
        assert_eq!(self.storage.write(Some(key.into()), write).await.unwrap().status, 200);
    }

    async fn apply_session(&self, key: &str, device: &str) {
        let write = Write::Session { user: 1, device: device.into() };
        assert_eq!(self.storage.write(Some(key.into()), write).await.unwrap().status, 201);
    }

    /// The database is backed up, at a time that the test chooses.
    async fn back_up(&mut self, began: u64, ended: u64) {
        let backup = Backup::from(self.storage.backup().await.unwrap());
        self.backup = Some(Backup { began: Moment(began), ended: Moment(ended), ..backup });
    }

    fn audit(&self) -> Audit {
        let (folder, backup) = (self.folder.path(), self.backup.as_ref());
        audit(&self.journal, &self.reads, &folder.join("database.sqlite"), backup, &STALENESS, folder).unwrap()
    }

    /// Lost, duplicated and stale.
    fn counts(&self) -> (u64, u64, u64) {
        let audit = self.audit();
        assert_eq!(audit.examples.is_empty(), audit.lost + audit.duplicated + audit.stale == 0, "{audit:?}");
        (audit.lost, audit.duplicated, audit.stale)
    }
}

fn record(version: u64, sent: u64, acknowledged: Option<u64>) -> Written {
    let what = WriteOf::Record { record: 0, user: 1, name: "r0".into(), version };
    Written { sent: Moment(sent), acknowledged: acknowledged.map(Moment), what }
}

fn value(version: u64) -> String {
    format!(r#"{{"user":1,"record":0,"seed":7,"version":"{version}"}}"#)
}
