//! A backup is worth what can be restored from it: a second database serves it here, and it is compared with the journal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::content::{self, Content};
use super::history::History;
use super::rules;
use crate::clock::Moment;
use crate::storage::{BackupReport, Storage};

/// A backup that was made during the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backup {
    pub(crate) path: PathBuf,
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
}

/// A backup, restored and compared with the journal up to its time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Restored {
    /// Acknowledged writes before the backup began: all of them must be in it.
    pub(crate) acknowledged: u64,
    pub(crate) missing: u64,
    /// Content that was first sent after the backup had ended, or that nobody wrote.
    pub(crate) foreign: u64,
    /// What SQLite's own check says, "ok"; or why the backup cannot be restored.
    pub(crate) integrity: String,
}

/// Restores `backup` and compares it; the verdict, and the findings in words.
pub(super) fn check(backup: &Backup, history: &History<'_>, folder: &Path) -> (Restored, Vec<String>) {
    let acknowledged = history.acknowledged(backup.began);
    let (integrity, content) = match restore(&backup.path, &folder.join("restored")) {
        Ok(restored) => restored,
        Err(error) => {
            let integrity = format!("{error:#}");
            let finding = format!("the backup cannot be restored: {integrity}");
            return (Restored { acknowledged, missing: acknowledged, foreign: 0, integrity }, vec![finding]);
        }
    };
    let mut missing = rules::missing(history, &content, backup.began);
    let foreign = rules::unwritten(history, &content, backup.ended);
    let restored = Restored { acknowledged, missing: missing.len() as u64, foreign: foreign.len() as u64, integrity };
    missing.extend(foreign);
    (restored, missing.into_iter().map(|finding| format!("backup: {finding}")).collect())
}

/// Copies the backup to where a database expects its file, and has a database serve it.
fn restore(backup: &Path, folder: &Path) -> anyhow::Result<(String, Content)> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    let mut restored = Connection::open(folder.join("database.sqlite"))?;
    let backup = content::open(backup)?;
    rusqlite::backup::Backup::new(&backup, &mut restored)?.run_to_completion(i32::MAX, Duration::ZERO, None)?;
    let integrity = restored.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let content = Content::of(&restored)?;
    drop(restored);
    // A runtime cannot be started within another one, where the caller may be; it can on another thread.
    let serve = || -> anyhow::Result<()> {
        tokio::runtime::Builder::new_current_thread().build()?.block_on(serve(folder, &content))
    };
    let served = std::thread::scope(|scope| scope.spawn(serve).join());
    served.map_err(|_| anyhow::anyhow!("the restored database panicked"))??;
    Ok((integrity, content))
}

/// Asks a second database for one of the records that are in its file.
async fn serve(folder: &Path, content: &Content) -> anyhow::Result<()> {
    let storage = Storage::open(folder)?;
    storage.check()?;
    let Some(((user, name), kept)) = content.records.iter().next() else {
        // Nothing had been written yet: that it answers at all is what can be seen.
        storage.sessions(1).await?;
        return Ok(());
    };
    let answer = storage.record(*user, name.clone()).await?;
    anyhow::ensure!(answer.as_ref() == Some(&kept.value), "it answers {answer:?} for {user}/{name}");
    Ok(())
}

// === impl Backup ===

impl From<BackupReport> for Backup {
    fn from(report: BackupReport) -> Self {
        let BackupReport { path, began, ended, .. } = report;
        Self { path, began, ended }
    }
}
