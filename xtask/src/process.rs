//! Child processes that do not outlive the command that started them.
//!
//! Each child leads a process group of its own. Ctrl-C in a terminal reaches the
//! foreground group only, so it reaches this program and not the children, and
//! this program decides in which sequence they end: first the part that is
//! running, then the servers that it used. A whole group is signalled, so that
//! a test binary under cargo ends with cargo.
//!
//! Every wait is on one channel that carries both "the child ended" and
//! "interrupted". There is no polling and no wait that Ctrl-C cannot end.
//!
//! What this cannot do: a `kill -9` of this program leaves its children behind.

use std::env;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How long a child may take to end after it was asked to, before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

enum Event {
    Interrupted,
    Exited(io::Result<ExitStatus>),
}

/// Why a child's run ended.
#[derive(Debug)]
pub enum End {
    /// The child ended by itself.
    Exited(ExitStatus),
    /// Ctrl-C, SIGTERM or SIGHUP; the child and its group are gone.
    Interrupted,
}

/// Runs children one at a time and hears the interrupt. One per process.
pub struct Runner {
    sender: Sender<Event>,
    events: Receiver<Event>,
    interrupted: bool,
}

impl Runner {
    /// A runner that hears Ctrl-C, SIGTERM and SIGHUP of this process.
    ///
    /// # Errors
    /// If a handler is set already, as by a second runner.
    pub fn install() -> Result<Self, ctrlc::Error> {
        let (runner, interrupt) = Self::new();
        ctrlc::set_handler(move || interrupt.send())?;
        Ok(runner)
    }

    /// A runner that is interrupted by the returned handle only.
    pub fn new() -> (Self, Interrupt) {
        let (sender, events) = channel();
        let interrupt = Interrupt(sender.clone());
        let runner = Self { sender, events, interrupted: false };
        (runner, interrupt)
    }

    /// What interrupts this runner, as Ctrl-C does.
    #[must_use]
    pub fn interrupt(&self) -> Interrupt {
        Interrupt(self.sender.clone())
    }

    /// Whether an interrupt was heard.
    pub fn interrupted(&mut self) -> bool {
        while let Ok(Event::Interrupted) = self.events.try_recv() {
            self.interrupted = true;
        }
        self.interrupted
    }

    /// Waits for `pause` or until interrupted; true if interrupted.
    pub fn pause(&mut self, pause: Duration) -> bool {
        if !self.interrupted
            && let Ok(Event::Interrupted) = self.events.recv_timeout(pause)
        {
            self.interrupted = true;
        }
        self.interrupted
    }

    /// Runs the command to its end, its output where ours goes. When this
    /// returns, no process of its group is left.
    ///
    /// # Errors
    /// If the program cannot be started or waited for.
    pub fn run(&mut self, command: &mut Command) -> io::Result<End> {
        if self.interrupted() {
            return Ok(End::Interrupted);
        }
        let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        let group = group(&child);
        let sender = self.sender.clone();
        thread::spawn(move || {
            // The leader is reaped only after its group was swept: until then
            // nobody else can get its number.
            await_exit(group);
            signal(group, Signal::KILL);
            // The receiver is gone only if the whole command is ending.
            let _ = sender.send(Event::Exited(child.wait()));
        });
        loop {
            let event = if self.interrupted {
                self.events.recv_timeout(PATIENCE)
            } else {
                self.events.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match event {
                Ok(Event::Exited(_)) if self.interrupted => return Ok(End::Interrupted),
                Ok(Event::Exited(status)) => return status.map(End::Exited),
                // A second Ctrl-C does not wait.
                Ok(Event::Interrupted) if self.interrupted => signal(group, Signal::KILL),
                Ok(Event::Interrupted) => {
                    self.interrupted = true;
                    signal(group, Signal::TERM);
                }
                Err(_) => signal(group, Signal::KILL),
            }
        }
    }
}

/// Interrupts a [`Runner`], as Ctrl-C does.
#[derive(Clone)]
pub struct Interrupt(Sender<Event>);

impl Interrupt {
    /// Asks the runner to end what it runs.
    pub fn send(&self) {
        // Nobody listens any more: the command is ending.
        let _ = self.0.send(Event::Interrupted);
    }
}

/// A server in the background that is stopped when this is dropped, also by a panic.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    stop: Stop,
}

/// How a server is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM.
    Terminate,
    /// SIGINT: PostgreSQL's fast shutdown, which does not wait for clients.
    Interrupt,
}

impl Daemon {
    /// Starts the command in a group of its own.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(command: &mut Command, stop: Stop) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        Ok(Self { child, stop })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if the server has ended.
    ///
    /// # Errors
    /// If its state cannot be read.
    pub fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let group = group(&self.child);
        let (sender, ended) = channel();
        thread::spawn(move || {
            await_exit(group);
            // Received or given up on; either way there is nothing to do.
            let _ = sender.send(());
        });
        let ask = match self.stop {
            Stop::Terminate => Signal::TERM,
            Stop::Interrupt => Signal::INT,
        };
        // The leader alone is asked: PostgreSQL tells its own children.
        if let Some(leader) = group {
            let _ = rustix::process::kill_process(leader, ask);
        }
        let _ = ended.recv_timeout(PATIENCE);
        signal(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Runs a command to its end and gives what it printed. It does not hear an interrupt, so that
/// it can clean up after one; after `limit` its group is killed.
///
/// # Errors
/// If the program cannot be started, or is not done in time.
pub fn output(command: &mut Command, limit: Duration) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.process_group(0).spawn()?;
    let group = group(&child);
    let (sender, ended) = channel();
    thread::spawn(move || {
        // Received or given up on; either way there is nothing to do.
        let _ = sender.send(child.wait_with_output());
    });
    ended.recv_timeout(limit).unwrap_or_else(|_| {
        signal(group, Signal::KILL);
        let line = format!("not done within {} s", limit.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, line))
    })
}

/// `cargo`, as if a person had called it: without what the cargo that runs this program says
/// of this package. A build script that looks at it is run anew, with all that is built on it.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if name.to_str().is_some_and(|name| of_package.iter().any(|of| name.starts_with(of))) {
            command.env_remove(name);
        }
    }
    command
}

/// The child's group, whose number is the child's own.
fn group(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Blocks until the leader has ended, and leaves it to be reaped.
fn await_exit(leader: Option<Pid>) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    if let Some(leader) = leader {
        while matches!(waitid(WaitId::Pid(leader), options), Err(Errno::INTR)) {}
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // The only failure is that the group has ended, which is the aim.
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// A command that holds a pipe open; the reader sees its end when the last
    /// process that inherited it is gone.
    fn holding_pipe(script: &str) -> (Command, BufReader<io::PipeReader>) {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = sh(script);
        command.stdout(writer);
        (command, BufReader::new(reader))
    }

    fn line(reader: &mut impl BufRead) -> String {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn gives_the_exit_code() {
        let (mut runner, _interrupt) = Runner::new();
        let end = runner.run(&mut sh("exit 3")).unwrap();
        assert!(matches!(end, End::Exited(status) if status.code() == Some(3)));
    }

    #[test]
    fn grandchildren_end_with_the_child() {
        let (mut runner, _interrupt) = Runner::new();
        let (mut command, mut reader) = holding_pipe("sleep 600 & echo started");
        let end = runner.run(&mut command).unwrap();
        assert!(matches!(end, End::Exited(status) if status.success()));
        drop(command);
        assert_eq!(line(&mut reader), "started\n");
        assert_eq!(line(&mut reader), "", "the pipe is closed: nobody is left");
    }

    #[test]
    fn an_interrupt_ends_the_whole_group() {
        let (mut runner, interrupt) = Runner::new();
        let (mut command, mut reader) = holding_pipe("sleep 600 & echo started; sleep 600");
        let watcher = thread::spawn(move || {
            assert_eq!(line(&mut reader), "started\n");
            interrupt.send();
            reader
        });
        assert!(matches!(runner.run(&mut command).unwrap(), End::Interrupted));
        drop(command);
        assert_eq!(line(&mut watcher.join().unwrap()), "");
        assert!(matches!(runner.run(&mut sh("exit 0")).unwrap(), End::Interrupted));
    }

    #[test]
    fn a_second_interrupt_kills_what_ignores_the_first() {
        let (mut runner, interrupt) = Runner::new();
        let (mut command, mut reader) = holding_pipe(&server("echo asked"));
        thread::spawn(move || {
            assert_eq!(line(&mut reader), "started\n");
            interrupt.send();
            assert_eq!(line(&mut reader), "asked\n");
            interrupt.send();
        });
        assert!(matches!(runner.run(&mut command).unwrap(), End::Interrupted));
    }

    #[test]
    fn a_dropped_daemon_is_asked_and_then_gone() {
        for stop in [Stop::Terminate, Stop::Interrupt] {
            let (mut command, mut reader) = holding_pipe(&server("echo asked; exit"));
            let mut daemon = Daemon::start(&mut command, stop).unwrap();
            drop(command);
            assert_eq!(line(&mut reader), "started\n");
            assert!(daemon.exited().unwrap().is_none());
            drop(daemon);
            assert_eq!(line(&mut reader), "asked\n");
            assert_eq!(line(&mut reader), "", "the pipe is closed: nobody is left");
        }
    }

    #[test]
    fn output_is_not_waited_for_beyond_its_limit() {
        let quick = output(&mut sh("echo out; echo err >&2; exit 3"), PATIENCE).unwrap();
        assert_eq!((&*quick.stdout, &*quick.stderr), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(quick.status.code(), Some(3));
        let late = output(&mut sh("sleep 600 & sleep 600"), Duration::from_millis(1)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn cargo_is_told_nothing_of_this_package() {
        let removed: Vec<_> = cargo()
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        assert!(removed.iter().any(|name| name == "CARGO_PKG_NAME"), "{removed:?}");
        assert!(removed.iter().all(|name| name != "CARGO_HOME"), "{removed:?}");
    }

    /// A script that runs until it is asked to end, and then does as told. The
    /// trap matters: without one, a shell may lose a signal while it starts a child.
    fn server(when_asked: &str) -> String {
        format!("trap '{when_asked}' INT TERM; echo started; while :; do sleep 600 & wait $!; done")
    }
}
