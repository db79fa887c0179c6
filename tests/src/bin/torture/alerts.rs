//! Whether somebody was told of a loss: the copies' logs, read as an operator reads them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// What the log says.
const ALERT: &[u8] = b"the broker lost messages of a stream";

/// A loss, and where the logs ended when it happened.
struct Loss {
    what: &'static str,
    ends: Vec<u64>,
}

/// What was lost, and what the logs say of it.
pub(crate) struct Alerts {
    logs: Vec<PathBuf>,
    losses: Vec<Loss>,
}

impl Alerts {
    pub(crate) fn new(logs: Vec<PathBuf>) -> Alerts {
        Alerts { logs, losses: Vec::new() }
    }

    /// Where the logs end now: to be asked for before something is lost.
    pub(crate) fn ends(&self) -> Vec<u64> {
        let end = |log| std::fs::metadata(log).map_or(0, |file| file.len());
        self.logs.iter().map(end).collect()
    }

    /// Something was lost that must be noticed.
    pub(crate) fn lost(&mut self, what: &'static str, ends: Vec<u64>) {
        self.losses.push(Loss { what, ends });
    }

    /// Losses of which no log says anything.
    pub(crate) fn unnoticed(&self) -> Vec<&'static str> {
        let told = |loss: &Loss| {
            let mut logs = self.logs.iter().zip(&loss.ends);
            logs.any(|(log, end)| {
                let text = read(log, *end).unwrap_or_default();
                text.windows(ALERT.len()).any(|words| words == ALERT)
            })
        };
        self.losses.iter().filter(|loss| !told(loss)).map(|loss| loss.what).collect()
    }
}

fn read(log: &PathBuf, from: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}
