//! `--probe`: a service asks its running self whether it is well.
//!
//! An image that holds nothing but the service has no curl and no shell for a health check,
//! so the program brings the question itself. It reads the same settings as the service, and
//! with them finds the admin port that the service listens on.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use chassis_core::AdminConfig;

/// The probes of the admin port, and the default one first.
pub(crate) const PROBES: [&str; 3] = ["readyz", "livez", "startupz"];

/// How long each step of the question may take. Orchestrators give a probe a few seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// As much of the answer as is read: the report of a service fits, an endless one does not.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Asks; `Err` says in one line why the service is not well.
///
/// `GET` without a body over a connection that is closed afterwards: the whole of HTTP that
/// this needs fits into two lines, and an asker that runs every few seconds starts fast.
pub(crate) fn ask(admin: &AdminConfig, probe: &str) -> Result<(), String> {
    if admin.socket.systemd().is_some() {
        return Err("--probe does not know a socket of systemd's: set ADMIN__PORT".to_owned());
    }
    if admin.port == 0 && admin.socket.unix().is_none() {
        return Err("--probe needs a fixed admin port: set ADMIN__PORT".to_owned());
    }
    let address = SocketAddr::new(reachable(admin.host), admin.port);
    let asked = match admin.socket.unix() {
        Some(path) => over_path(path, probe),
        None => over_port(address, probe),
    };
    let address = admin.socket.describe(address);
    let answer =
        asked.map_err(|error| format!("the admin port {address} does not answer: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    let mut words = head.split_whitespace();
    match (words.next(), words.next()) {
        (Some(version), Some("200")) if version.starts_with("HTTP/1.") => Ok(()),
        (Some(version), Some(status)) if version.starts_with("HTTP/1.") => {
            Err(format!("/{probe} answers {status}: {}", body.trim()))
        }
        _ => Err(format!("what listens on {address} is not an admin port")),
    }
}

/// The address under which a listener on `host` is reached from its own machine.
fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    }
}

fn over_port(address: SocketAddr, probe: &str) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    exchange(stream, &address.to_string(), probe)
}

fn over_path(path: &Path, probe: &str) -> io::Result<String> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    exchange(stream, "localhost", probe)
}

fn exchange(mut stream: impl Read + Write, host: &str, probe: &str) -> io::Result<String> {
    // In one write: a listener that answers early must not find the rest coming.
    let request = format!("GET /{probe} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A port that answers each caller with this text.
    fn answering(text: &'static str) -> AdminConfig {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut caller, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                caller.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            caller.write_all(text.as_bytes()).unwrap();
        });
        AdminConfig { host: Ipv4Addr::UNSPECIFIED.into(), port, ..AdminConfig::default() }
    }

    #[test]
    fn only_200_is_well() {
        assert_eq!(ask(&answering("HTTP/1.1 200 OK\r\n\r\n{}"), "readyz"), Ok(()));
        let draining = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false}";
        let problem = ask(&answering(draining), "readyz").unwrap_err();
        assert_eq!(problem, "/readyz answers 503: {\"ready\":false}");
        let problem = ask(&answering("SSH-2.0-x\r\n"), "readyz").unwrap_err();
        assert!(problem.contains("not an admin port"), "{problem}");
    }

    #[test]
    fn nobody_there_and_no_port_are_told() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = AdminConfig { host: free.ip(), port: free.port(), ..AdminConfig::default() };
        assert!(ask(&nobody, "livez").unwrap_err().contains("does not answer"));
        let unknown = AdminConfig { port: 0, ..nobody };
        assert!(ask(&unknown, "livez").unwrap_err().contains("ADMIN__PORT"));
    }
}
