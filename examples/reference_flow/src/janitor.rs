//! The janitor deletes the run's folder when its parent is gone, however it went: also after a crash or SIGKILL.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::part::Notice;

/// For how long the other parts may still be writing after the parent's end.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(folder: &Path) -> anyhow::Result<()> {
    // Whoever ends everybody politely must not end the one that cleans up after them.
    let _terminate = signal(SignalKind::terminate())?;
    let _interrupt = signal(SignalKind::interrupt())?;
    let _hang_up = signal(SignalKind::hangup())?;
    Notice::Ready(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).send();
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    let all_gone = async {
        loop {
            match std::fs::remove_dir_all(folder) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound && !folder.exists() => break,
                // A part that is about to end wrote a file in between.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, all_gone).await?;
    Ok(())
}
