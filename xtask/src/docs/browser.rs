//! A real browser opens every page and must not complain.
//!
//! The link check sees what is written; only a browser sees what happens: a script that
//! fails, a picture that does not load. One headless Chromium opens all pages one after the
//! other in a frame. A few lines at the head of each page report errors to the page around
//! it, which sends the sum back. No driver is needed, and the browser's own log format,
//! which changes, is not read.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::failed;
use super::site::{Probe, Site, serve};
use crate::process::{Daemon, Runner, Stop};
use crate::test::{Failure, install};

const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// How long a page may take until the next is tried, on a busy machine.
const PER_PAGE: Duration = Duration::from_secs(3);
const AT_LEAST: Duration = Duration::from_secs(60);

/// Told before anything else of a page runs.
const HEAD: &str = r#"<script>
addEventListener('error', e => parent.said(e.target && (e.target.src || e.target.href)
    ? 'did not load ' + (e.target.src || e.target.href) : 'error: ' + e.message), true);
addEventListener('unhandledrejection', e => parent.said('rejection: ' + e.reason));
console.error = (...words) => parent.said('console: ' + words.join(' '));
</script>"#;

/// Opens the pages in turn, looks at each and reports what was wrong, a line each.
const PAGE: &str = r#"<!doctype html><title>check</title><script>
const pages = [PAGES], lines = [];
let page = '', opened = 0;
function said(what) { lines.push(page + ': ' + what); }
async function open(path) {
    page = path;
    const frame = document.createElement('iframe');
    frame.width = 1200; frame.height = 900;
    await new Promise(loaded => {
        frame.onload = loaded; frame.src = '/' + path; document.body.append(frame);
    });
    const inner = frame.contentDocument;
    if (!inner || !inner.querySelector('main')) said('is not a page of the book');
    else {
        for (const image of inner.images)
            if (!image.complete || !image.naturalWidth) said('no picture at ' + image.src);
        const main = inner.querySelector('main');
        if (main.scrollWidth > main.clientWidth + 1) said('is wider than the page');
        opened += 1;
    }
    frame.remove();
}
onload = async () => {
    for (const path of pages) await open(path);
    await fetch('/__report', { method: 'POST', body: opened + '\n' + lines.join('\n') });
};
</script><body>"#;

/// What the browser complained of, one line each; none where there is no browser, which is
/// said in a line.
pub(super) fn check(book: &Path, site: &Site, runner: &mut Runner) -> Result<Vec<String>, Failure> {
    let Some(program) = obtain(runner)? else {
        println!(
            "docs: not opened in a browser: no chromium here (Debian: apt-get install chromium)"
        );
        return Ok(Vec::new());
    };
    // One file is the table of contents for readers without scripts, and no page.
    let pages = site.pages.iter().filter(|(_, page)| page.text.contains("<main>"));
    let pages: Vec<String> = pages.map(|(path, _)| format!("'{path}'")).collect();
    let (sender, reports) = channel();
    let page = PAGE.replace("PAGES", &pages.join(","));
    let probe = Probe { head: HEAD.to_owned(), page, report: sender };
    let server =
        serve(book, 0, Some(probe)).map_err(|error| failed(format!("cannot listen: {error}")))?;
    let profile =
        tempfile::tempdir().map_err(|error| failed(format!("no temporary folder: {error}")))?;
    let mut command = Command::new(program);
    command
        .args(["--headless", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"])
        // The pages are our own, and root has no sandbox to give.
        .args(["--no-sandbox", "--disable-background-networking", "--disable-extensions"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("--remote-debugging-port=0")
        .arg(format!("http://{}/__check", server.address))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut browser = Daemon::start(&mut command, Stop::Terminate)
        .map_err(|error| failed(format!("{program} does not start: {error}")))?;

    let tick = Duration::from_millis(200);
    let mut left = AT_LEAST.max(PER_PAGE * u32::try_from(pages.len()).unwrap_or(u32::MAX));
    let report = loop {
        match reports.recv_timeout(Duration::ZERO) {
            Ok(report) => break report,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(failed("the page server ended"));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if runner.pause(tick) {
            return Err(Failure::Interrupted);
        }
        if let Ok(Some(status)) = browser.exited() {
            return Err(failed(format!("{program} ended early: {status}")));
        }
        left = left.saturating_sub(tick);
        if left.is_zero() {
            return Err(failed(format!("{program} did not report in time")));
        }
    };
    drop(browser);
    let mut lines = report.lines();
    let opened = lines.next().unwrap_or_default();
    println!("docs: {program} opened {opened} pages");
    let mut problems: Vec<String> = lines.map(str::to_owned).collect();
    if opened != pages.len().to_string() {
        problems.push(format!("{program} opened {opened} pages of {}", pages.len()));
    }
    Ok(problems)
}

/// The browser that is here. Root on Debian gets one; where that fails, as without a network,
/// there is none.
fn obtain(runner: &mut Runner) -> Result<Option<&'static str>, Failure> {
    let find = || NAMES.iter().copied().find(|name| is_there(name));
    if find().is_none() && install::may_install() {
        match install::install(&["chromium"], runner) {
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(Failure::Failed(line) | Failure::Missing(line)) => println!("docs: {line}"),
            Ok(()) => {}
        }
    }
    Ok(find())
}

fn is_there(program: &str) -> bool {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}
