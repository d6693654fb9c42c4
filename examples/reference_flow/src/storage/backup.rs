//! Backups of the database, made while it serves.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::Backup;
use serde::{Deserialize, Serialize};

use super::{Storage, StorageError, run};
use crate::clock::Moment;

/// What a backup holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BackupReport {
    pub(crate) path: PathBuf,
    /// What was acknowledged before this is in it.
    pub(crate) began: Moment,
    /// What was sent after this is not in it.
    pub(crate) ended: Moment,
    pub(crate) bytes: u64,
    pub(crate) integrity: String,
    pub(crate) users: i64,
    pub(crate) sessions: i64,
    pub(crate) records: i64,
}

// === impl Storage ===

impl Storage {
    /// Copies the database to the next `backup-<n>.sqlite` while it serves, then opens the copy and checks it. A file of
    /// that name is always complete: until then it is called `.partial`.
    pub(crate) async fn backup(&self) -> Result<BackupReport, StorageError> {
        let number = self.next_backup.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("backup-{number}.sqlite"));
        run(&self.backups, move |connection| {
            let partial = path.with_added_extension("partial");
            let mut copy = Connection::open(&partial)?;
            copy.pragma_update(None, "synchronous", "OFF")?;
            let began = Moment::now();
            // All pages in one step, which is one snapshot. Between two steps every write of another connection makes
            // SQLite start again at the first page, so that a backup under load might never end.
            Backup::new(connection, &mut copy)?.run_to_completion(i32::MAX, Duration::from_millis(1), None)?;
            let ended = Moment::now();
            let count = |table: &str| copy.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
            let integrity = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            let (users, sessions, records) = (count("users")?, count("sessions")?, count("records")?);
            drop(copy);
            std::fs::rename(&partial, &path)?;
            let bytes = std::fs::metadata(&path)?.len();
            Ok(BackupReport { path, began, ended, bytes, integrity, users, sessions, records })
        })
        .await
    }
}

/// One more than the highest that `folder` has: a process that was started again overwrites no backup.
pub(super) fn next_number(folder: &Path) -> std::io::Result<u64> {
    let mut next = 1;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("backup-")?.strip_suffix(".sqlite"));
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            next = next.max(number + 1);
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Write;

    #[tokio::test]
    async fn a_backup_holds_what_was_acknowledged_and_overwrites_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(folder.path()).unwrap();
        storage.write(None, Write::User { name: "Ada".into() }).await.unwrap();
        let first = storage.backup().await.unwrap();
        assert_eq!((first.integrity.as_str(), first.users, first.sessions, first.records), ("ok", 1, 0, 0));
        assert!(first.path.ends_with("backup-1.sqlite") && first.began <= first.ended);

        // A process that was killed while it wrote its backup has left this behind.
        std::fs::write(folder.path().join("backup-2.sqlite.partial"), "").unwrap();
        let reopened = Storage::open(folder.path()).unwrap();
        let record = Write::Record { user: 1, name: "greeting".into(), value: "hello".into() };
        reopened.write(None, record).await.unwrap();
        let second = reopened.backup().await.unwrap();
        assert_eq!((second.users, second.records), (1, 1));
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name.to_str().unwrap().starts_with("backup"));
        names.sort();
        assert_eq!(names, ["backup-1.sqlite", "backup-2.sqlite"]);
    }
}
