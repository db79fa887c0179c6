//! A server in a process of its own: started, asked for its CPU time, ended.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use crate::Outcome;

/// A candidate that serves until it is dropped.
pub(crate) struct Server {
    child: Child,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Server {
    /// Starts a candidate; `before` is what runs it, such as `taskset -c 0`. Waits until it
    /// says that it listens for this protocol.
    pub(crate) fn start(name: &str, before: &[&str], protocol: &str) -> Outcome<Server> {
        Server::exporting(name, before, protocol, None)
    }

    /// As [`start`](Server::start), with a collector that spans are sent to.
    pub(crate) fn exporting(
        name: &str,
        before: &[&str],
        protocol: &str,
        collector: Option<SocketAddr>,
    ) -> Outcome<Server> {
        let program = std::env::current_exe()?;
        let mut words = before.iter().map(|word| (*word).into()).collect::<Vec<_>>();
        words.push(program.into_os_string());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["serve", name])
            .args(collector.map(|address| format!("http://{address}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
        let mut addresses = BTreeMap::new();
        while !addresses.contains_key(protocol) {
            let line = lines.next().ok_or(format!("{name} ended before it listened"))??;
            if let Some((protocol, address)) = line.split_once(' ')
                && let Ok(address) = address.parse()
            {
                addresses.insert(protocol.to_owned(), address);
            }
        }
        // Whatever else it says must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Server { child, addresses })
    }

    pub(crate) fn address(&self, protocol: &str) -> Outcome<SocketAddr> {
        Ok(*self.addresses.get(protocol).ok_or("it does not listen for this protocol")?)
    }

    /// CPU time of all its threads so far, in nanoseconds, by the scheduler's own account:
    /// clock ticks are too coarse for a slice.
    pub(crate) fn cpu_nanos(&self) -> Outcome<u64> {
        let mut total = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end while they are counted.
            if let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) {
                total += stat.split(' ').next().ok_or("empty schedstat")?.parse::<u64>()?;
            }
        }
        Ok(total)
    }

    /// Ends it and waits for that.
    pub(crate) fn end(mut self) -> Outcome<()> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process now, in MiB.
pub(crate) fn resident_mib(process: u32) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|l| l.split_whitespace().next()).ok_or("no VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}
