//! The folder of the embedded broker, and the lock that keeps a second process
//! out of it.
//!
//! The lock is the operating system's, on a file beside the database: it is free
//! the moment its process is dead, however it died.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis_core::{Error, Result};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// A broker of this process may be closing, or a process about to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Files {
    folder: PathBuf,
    temporary: bool,
    _lock: File,
}

impl Files {
    pub(super) async fn lock(folder: PathBuf) -> Result<Files> {
        let path = folder.join("broker.lock");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| unusable(&folder, source))?;
        let patience = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Files { folder, temporary: false, _lock: file }),
                Err(TryLockError::Error(source)) => return Err(unusable(&folder, source)),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let message = format!(
                        "the embedded broker in {} is in use by another process; it serves \
                         one process only: stop the other one, or use a nats:// URL for both",
                        folder.display()
                    );
                    return Err(Error::failed_precondition("BROKER_IN_USE", message));
                }
            }
        }
    }

    pub(super) async fn temporary() -> Result<Files> {
        let name = format!("chassis-broker-{}", Uuid::now_v7());
        let folder = create(&std::env::temp_dir().join(name))?;
        let mut files = Files::lock(folder).await?;
        files.temporary = true;
        Ok(files)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "cannot remove the folder of a temporary broker");
        }
    }
}

/// Creates the folder; gives its one true path.
pub(super) fn create(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)
        .and_then(|()| folder.canonicalize())
        .map_err(|source| unusable(folder, source))
}

fn unusable(folder: &Path, source: std::io::Error) -> Error {
    let message = format!("the broker folder {} cannot be used: {source}", folder.display());
    Error::failed_precondition("BROKER_FOLDER", message)
}
