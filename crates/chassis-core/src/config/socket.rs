//! The settings of a socket that is not, or not only, a host and a port.
//!
//! They stand here and not beside the code that listens, since the admin port has them too.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A socket in place of host and port, or a port that several processes share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SocketConfig {
    /// Path of a Unix socket to listen on in place of host and port, up to 107 bytes long. Empty:
    /// none.
    pub unix: PathBuf,
    /// Who may connect to the Unix socket: its permissions in octal, `600` for this user alone,
    /// `660` for the group too, up to `777`.
    pub mode: String,
    /// A socket that systemd hands over, in place of host and port: its name
    /// (`FileDescriptorName=`, else that of the unit), or its number, from 0. Empty: none.
    pub systemd: String,
    /// Whether several processes may listen on the port at a time (`SO_REUSEPORT`); the system
    /// spreads new connections over them.
    pub reuse_port: bool,
}

impl Default for SocketConfig {
    fn default() -> SocketConfig {
        SocketConfig {
            unix: PathBuf::new(),
            mode: "660".to_owned(),
            systemd: String::new(),
            reuse_port: false,
        }
    }
}

impl SocketConfig {
    /// The path of the Unix socket, if there is to be one.
    #[must_use]
    pub fn unix(&self) -> Option<&std::path::Path> {
        Some(self.unix.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// The name or number of the socket that systemd hands over, if there is to be one.
    #[must_use]
    pub fn systemd(&self) -> Option<&str> {
        Some(self.systemd.as_str()).filter(|name| !name.is_empty())
    }

    /// The permissions of the Unix socket.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as `http.socket`.
    pub fn permissions(&self, path: &str) -> Result<u32> {
        let mode = u32::from_str_radix(&self.mode, 8).ok().filter(|mode| *mode <= 0o777);
        mode.ok_or_else(|| {
            let allowed = "octal permissions from 000 to 777 are allowed";
            wrong(path, &format!("mode is {:?}, {allowed}", self.mode))
        })
    }

    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// `INVALID_CONFIG`; the message names the key behind `path`, such as `http.socket`.
    pub fn validate(&self, path: &str) -> Result<()> {
        let other = self.unix().is_some() || self.systemd().is_some();
        // What the system has room for, with the zero at the end.
        if self.unix.as_os_str().len() > 107 {
            return Err(wrong(path, "unix is longer than the 107 bytes that the system allows"));
        }
        if self.unix().is_some() && self.systemd().is_some() {
            return Err(wrong(path, "set unix or systemd, not both"));
        }
        if other && self.reuse_port {
            return Err(wrong(path, "reuse_port is for host and port, not for unix or systemd"));
        }
        self.permissions(path).map(drop)
    }

    /// Where a server with this address and these settings listens, in words.
    #[must_use]
    pub fn describe(&self, address: std::net::SocketAddr) -> String {
        match (self.unix(), self.systemd()) {
            (Some(path), _) => format!("unix:{}", path.display()),
            (None, Some(name)) => format!("systemd:{name}"),
            (None, None) if self.reuse_port => format!("{address}, shared"),
            (None, None) => address.to_string(),
        }
    }
}

fn wrong(path: &str, wrong: &str) -> Error {
    Error::invalid_argument("INVALID_CONFIG", format!("{path}: {wrong}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_together_is_refused() {
        let unix = || SocketConfig { unix: "/run/a.sock".into(), ..SocketConfig::default() };
        let mode = |mode: &str| SocketConfig { mode: mode.to_owned(), ..unix() };
        for good in [SocketConfig::default(), unix(), mode("000"), mode("0777")] {
            assert!(good.validate("http.socket").is_ok(), "{good:?}");
        }
        let long = |length| SocketConfig { unix: "x".repeat(length).into(), ..unix() };
        assert!(long(107).validate("http.socket").is_ok());
        let cases = [
            (long(108), "107 bytes"),
            (SocketConfig { systemd: "http".to_owned(), ..unix() }, "not both"),
            (SocketConfig { reuse_port: true, ..unix() }, "reuse_port"),
            (mode("1000"), "from 000 to 777"),
            (mode("rw"), "from 000 to 777"),
            (mode(""), "from 000 to 777"),
        ];
        for (config, said) in cases {
            let error = config.validate("http.socket").unwrap_err();
            assert!(error.message().contains(said), "{error}");
            assert!(error.message().starts_with("http.socket: "), "{error}");
        }
    }
}
