//! Keeps a server process no longer than the test process.
//!
//! A destructor does not run when the test process is killed, and does not run for statics
//! at all, so a server would outlive its test. `PR_SET_PDEATHSIG` needs unsafe code, and
//! fires when the *thread* that started the child ends, which in a test is too early. So the
//! server runs under a small shell script that holds the read end of a pipe. The write end
//! is in the test process; however that process ends, the kernel closes it, the script reads
//! the end of the file, ends the server and removes its folder. Dropping [`Supervised`]
//! closes the pipe as well, so there is one way to end and it is always exercised.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// `$1` folder, `$2` signal; the rest is the server's command line.
///
/// A line on standard input stops the server and keeps the folder; the end of standard input
/// stops it and removes the folder. The marker file carries that word from the watcher to
/// the main shell, which is the only one that knows when the server is gone.
const SCRIPT: &str = r#"
folder=$1 signal=$2
shift 2
exec 3<&0
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
( read -r word <&3 || echo >"$folder/orphan"; kill -s "$signal" "$server" ) 2>/dev/null &
watcher=$!
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
if [ -e "$folder/orphan" ]; then rm -rf "$folder"; fi
exit "$status"
"#;

/// Who a server runs as, where it is not the user of the test.
#[derive(Clone, Copy)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// This user, if the test runs as root: PostgreSQL refuses to run as root.
    pub(super) fn instead_of_root(name: &str, folder: &Path) -> Option<User> {
        let owner = fs::metadata(folder)
            .unwrap_or_else(|error| panic!("cannot look at {}: {error}", folder.display()))
            .uid();
        if owner != 0 {
            return None;
        }
        let table = fs::read_to_string("/etc/passwd")
            .unwrap_or_else(|error| panic!("cannot read /etc/passwd: {error}"));
        let user = lookup(&table, name).unwrap_or_else(|| {
            panic!("running as root needs a user `{name}` for the server: useradd --system {name}")
        });
        Some(user)
    }

    /// Gives the folder to the user.
    pub(super) fn own(self, folder: &Path) {
        chown(folder, Some(self.uid), Some(self.gid))
            .unwrap_or_else(|error| panic!("cannot give away {}: {error}", folder.display()));
    }

    /// Runs the command as the user.
    pub(super) fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

fn lookup(table: &str, name: &str) -> Option<User> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        found.then_some(User { uid, gid })
    })
}

/// How to run a server: everything that stays the same over a restart, but for the port.
pub(super) struct Plan {
    /// Its folder, removed at the end.
    pub(super) folder: TempDir,
    /// The program.
    pub(super) program: PathBuf,
    /// Ends it at once, as a crash would: a signal name without `SIG`.
    pub(super) signal: &'static str,
    /// Who it runs as.
    pub(super) user: Option<User>,
}

impl Plan {
    /// Starts the server with these arguments.
    pub(super) fn start(&self, arguments: &[OsString]) -> Supervised {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "supervisor"])
            .arg(self.folder.path())
            .arg(self.signal)
            .arg(&self.program)
            .args(arguments)
            // Its own process group: an interrupt from the terminal goes to the test alone,
            // and the pipe ends the rest.
            .process_group(0)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(self.log().map_or_else(Stdio::null, Stdio::from));
        if let Some(user) = self.user {
            user.run(&mut command);
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        Supervised { child }
    }

    fn log(&self) -> Option<File> {
        let path = self.folder.path().join("log");
        let file = File::options().create(true).append(true).open(&path).ok()?;
        if let Some(user) = self.user {
            user.own(&path);
        }
        Some(file)
    }

    /// The last lines that the server wrote.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// A running server. Dropping it ends the server at once and removes its folder.
pub(super) struct Supervised {
    child: Child,
}

impl Supervised {
    /// Whether the server ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Ends the server at once and keeps its folder.
    pub(super) fn stop(mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            // Fails only if the supervisor is gone already, and with it the server.
            let _ = stdin.write_all(b"stop\n");
        }
        let _ = self.child.wait();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let table = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:\npostgres:x:101:104::/:\n";
        let user = lookup(table, "postgres").unwrap();
        assert_eq!((user.uid, user.gid), (101, 104));
        assert!(lookup(table, "post").is_none());
    }

    /// The plan of a server that only sleeps.
    fn sleeper() -> Plan {
        Plan {
            folder: tempfile::tempdir().unwrap(),
            program: "/bin/sleep".into(),
            signal: "KILL",
            user: None,
        }
    }

    #[test]
    fn stopping_keeps_the_folder_and_dropping_removes_it() {
        let plan = sleeper();
        let folder = plan.folder.path().to_owned();
        plan.start(&["1000".into()]).stop();
        assert!(folder.exists());
        drop(plan.start(&["1000".into()]));
        assert!(!folder.exists());
    }

    #[test]
    fn a_server_that_ends_by_itself_is_noticed() {
        let plan = sleeper();
        let mut server = plan.start(&["0".into()]);
        let _ = server.child.wait();
        assert!(server.has_ended());
    }
}
