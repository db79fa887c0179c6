//! The built book: read into memory for the checks, served to a browser.
//!
//! The server is for a person at this machine and for the browser check: loopback only, GET
//! only, one request a connection, a fixed number of threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, mpsc::Sender};
use std::thread;
use std::time::Duration;

use super::html;

/// Everything below the folder of a built book.
#[derive(Debug, Default)]
pub(super) struct Site {
    /// Pages by path from the top, such as `guide/http.html`.
    pub(super) pages: BTreeMap<String, Page>,
    /// All other files.
    pub(super) files: BTreeSet<String>,
}

/// One page, taken apart.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) text: String,
    pub(super) anchors: BTreeSet<String>,
    /// Whatever the page points to.
    pub(super) references: Vec<String>,
    /// Pictures that say nothing to who cannot see them.
    pub(super) without_text: Vec<String>,
}

impl Page {
    pub(super) fn of(text: &str) -> Page {
        let mut page = Page { text: text.to_owned(), ..Page::default() };
        for tag in html::tags(text) {
            page.anchors.extend(tag.get("id").map(str::to_owned));
            let points = if matches!(&*tag.name, "a" | "link") { "href" } else { "src" };
            page.references.extend(tag.get(points).map(str::to_owned));
            if tag.name == "img" && tag.get("alt").is_none_or(str::is_empty) {
                page.without_text.push(tag.get("src").unwrap_or_default().to_owned());
            }
        }
        page
    }
}

impl Site {
    /// Reads a built book.
    pub(super) fn read(folder: &Path) -> io::Result<Site> {
        let mut site = Site::default();
        let mut folders = vec![PathBuf::new()];
        while let Some(inner) = folders.pop() {
            for entry in fs::read_dir(folder.join(&inner))? {
                let entry = entry?;
                let path = inner.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.to_string_lossy().into_owned();
                // The page for wrong addresses points from the root of its host.
                if name.ends_with(".html") && name != "404.html" {
                    let text = fs::read_to_string(folder.join(&path))?;
                    site.pages.insert(name, Page::of(&text));
                } else {
                    site.files.insert(name);
                }
            }
        }
        Ok(site)
    }

    /// How many references and anchors there are.
    pub(super) fn references(&self) -> usize {
        self.pages.values().map(|page| page.references.len() + page.anchors.len()).sum()
    }
}

/// How many requests are answered at a time. A browser opens more connections than it uses.
const THREADS: usize = 16;
/// How long a connection may say nothing.
const SILENCE: Duration = Duration::from_secs(5);
/// The largest request head, and the largest report of the browser, in bytes.
const MAX_REQUEST: u64 = 1024 * 1024;

/// A running server; it ends with the process.
pub(super) struct Server {
    pub(super) address: SocketAddr,
}

/// What the browser check adds to the pages.
pub(super) struct Probe {
    /// Put at the head of every page.
    pub(super) head: String,
    /// The page at `/__check`.
    pub(super) page: String,
    /// Gets what that page posts to `/__report`.
    pub(super) report: Sender<String>,
}

/// Serves a folder on loopback; port 0 takes a free one.
pub(super) fn serve(folder: &Path, port: u16, probe: Option<Probe>) -> io::Result<Server> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let address = listener.local_addr()?;
    let shared = Arc::new((listener, folder.to_path_buf(), probe));
    for _ in 0..THREADS {
        let shared = shared.clone();
        thread::spawn(move || {
            let (listener, folder, probe) = &*shared;
            for stream in listener.incoming().flatten() {
                // A visitor who hangs up is no failure of ours.
                let _ = answer(stream, folder, probe.as_ref());
            }
        });
    }
    Ok(Server { address })
}

fn answer(stream: TcpStream, folder: &Path, probe: Option<&Probe>) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new((&stream).take(MAX_REQUEST));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let (status, kind, body) = match (&*method, path, probe) {
        ("POST", "/__report", Some(probe)) => {
            let mut body = String::new();
            reader.by_ref().take(length).read_to_string(&mut body)?;
            // The check may have given up by now.
            let _ = probe.report.send(body);
            ("200 OK", "text/plain", Vec::new())
        }
        ("GET", "/__check", Some(probe)) => {
            ("200 OK", "text/html; charset=utf-8", probe.page.clone().into_bytes())
        }
        ("GET" | "HEAD", path, probe) => file(folder, path, probe),
        _ => ("405 Method Not Allowed", "text/plain", Vec::new()),
    };
    let mut stream = &stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nconnection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    stream.flush()
}

fn file(folder: &Path, path: &str, probe: Option<&Probe>) -> (&'static str, &'static str, Vec<u8>) {
    let missing = ("404 Not Found", "text/plain", b"there is no such page\n".to_vec());
    let mut inner = PathBuf::from(path.trim_start_matches('/'));
    if !inner.components().all(|part| matches!(part, Component::Normal(_))) {
        return missing;
    }
    if path.ends_with('/') {
        inner.push("index.html");
    }
    let Ok(mut body) = fs::read(folder.join(&inner)) else { return missing };
    let extension = inner.extension().map(|e| e.to_string_lossy().into_owned());
    let kind = match extension.as_deref() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    };
    if let (Some(probe), Some("html")) = (probe, extension.as_deref()) {
        let text = String::from_utf8_lossy(&body);
        body = text.replacen("<head>", &format!("<head>{}", probe.head), 1).into_bytes();
    }
    ("200 OK", kind, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn pages_are_served_and_nothing_outside_the_book() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("book");
        fs::create_dir(&book).unwrap();
        fs::write(book.join("index.html"), "<head></head>hello").unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        let server = serve(&book, 0, None).unwrap();
        assert!(get(server.address, "/").ends_with("hello"));
        assert!(get(server.address, "/index.html?x#y").contains("text/html"));
        for path in ["/gone.html", "/../secret", "//etc/passwd/../passwd", "/__check"] {
            assert!(get(server.address, path).starts_with("HTTP/1.1 404"), "{path}");
        }
    }

    #[test]
    fn a_book_is_read_with_folders() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b.html"), r#"<h1 id="x"></h1><img src="c.svg">"#).unwrap();
        fs::write(folder.path().join("a/c.svg"), "").unwrap();
        let site = Site::read(folder.path()).unwrap();
        let page = &site.pages["a/b.html"];
        assert!(page.anchors.contains("x") && site.files.contains("a/c.svg"));
        assert_eq!(
            (&*page.references, &*page.without_text),
            (&["c.svg".to_owned()][..], &["c.svg".to_owned()][..])
        );
    }
}
