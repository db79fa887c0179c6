//! PostgreSQL stands still: all its processes are stopped, its sockets stay open.
//!
//! To a client this is worse than a crash: nothing is refused, nothing answers.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};

use crate::Failure;

/// Processes that stand still.
#[derive(Default)]
pub(crate) struct Frozen(Vec<Pid>);

impl Frozen {
    /// Stops the server behind this URL, its first process first, so that it makes no more.
    pub(crate) async fn postgres(url: &str) -> Result<Frozen, Failure> {
        let mut connection = PgConnection::connect(url).await?;
        let pid: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        let server = parent(pid).ok_or("the server's process is not found")?;
        let mut frozen = Frozen::default();
        frozen.stop(server)?;
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.filter(|&pid| parent(pid) == Some(server)) {
                // One that has just ended is no loss.
                let _ = frozen.stop(pid);
            }
        }
        Ok(frozen)
    }

    fn stop(&mut self, pid: i32) -> Result<(), Failure> {
        let pid = Pid::from_raw(pid).ok_or("not a process")?;
        kill_process(pid, Signal::STOP)?;
        self.0.push(pid);
        Ok(())
    }

    /// Lets them go on.
    pub(crate) fn thaw(&mut self) {
        for pid in self.0.drain(..).rev() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }
}

/// The server must be able to end.
impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
    }
}

/// The fourth field of `/proc/<pid>/stat`, counted from the end of the name.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
