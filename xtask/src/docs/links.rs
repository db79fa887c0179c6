//! Every reference of the built book leads somewhere.
//!
//! Links between pages, anchors, pictures, scripts and styles are looked up in the built
//! files. Of an address elsewhere only the shape is checked: whether another host answers is
//! not a property of this repository.

use super::site::{Page, Site};

/// What is wrong, one line each.
pub(super) fn check(site: &Site) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, page) in &site.pages {
        if page.text.contains("{{#") {
            problems.push(format!("{path}: an include was not resolved"));
        }
        for image in &page.without_text {
            problems.push(format!("{path}: the picture {image} has no alternative text"));
        }
        for reference in &page.references {
            if let Err(problem) = follow(site, path, page, reference) {
                problems.push(format!("{path}: `{reference}` {problem}"));
            }
        }
    }
    problems
}

fn follow(site: &Site, from: &str, page: &Page, reference: &str) -> Result<(), &'static str> {
    if let Some((scheme, rest)) = reference.split_once(':') {
        return elsewhere(scheme, rest);
    }
    let (target, anchor) = match reference.split_once('#') {
        Some((target, anchor)) => (target, Some(anchor)),
        None => (reference, None),
    };
    let target = target.split_once('?').map_or(target, |(path, _)| path);
    let path = if target.is_empty() { from.to_owned() } else { joined(from, target)? };
    let there = match site.pages.get(&path) {
        Some(there) => there,
        None if site.files.contains(&path) => return Ok(()),
        None => return Err("leads nowhere"),
    };
    match anchor {
        // The top of a page is always there.
        None | Some("") => Ok(()),
        Some(anchor) if there.anchors.contains(&decoded(anchor)) => Ok(()),
        Some(_) if std::ptr::eq(there, page) => Err("is an anchor that this page does not have"),
        Some(_) => Err("is an anchor that the other page does not have"),
    }
}

fn elsewhere(scheme: &str, rest: &str) -> Result<(), &'static str> {
    let host = rest.strip_prefix("//").and_then(|rest| rest.split(['/', '#', '?']).next());
    match (scheme, host) {
        ("data" | "mailto", _) => Ok(()),
        ("https", Some(host)) if host.contains('.') && !host.contains(char::is_whitespace) => {
            Ok(())
        }
        ("http", Some(host)) if host.starts_with("localhost") => Ok(()),
        ("http", _) => Err("is not https"),
        _ => Err("is not an address"),
    }
}

/// The path of a reference that stands on another page, from the top of the book.
fn joined(from: &str, target: &str) -> Result<String, &'static str> {
    if target.starts_with('/') {
        return Err("begins at the root of the host, where the book need not lie");
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." => {}
            ".." if parts.pop().is_none() => return Err("leads out of the book"),
            ".." => {}
            part => parts.push(part),
        }
    }
    let path = parts.join("/");
    Ok(if path.is_empty() || path.ends_with('/') { path + "index.html" } else { path })
}

/// Percent escapes resolved; mdBook writes some anchors with them.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(pages: &[(&str, &str)], files: &[&str]) -> Site {
        let mut site = Site::default();
        for (path, text) in pages {
            site.pages.insert((*path).to_owned(), Page::of(text));
        }
        site.files.extend(files.iter().map(|file| (*file).to_owned()));
        site
    }

    #[test]
    fn a_whole_book_has_no_problem() {
        let site = site(
            &[
                (
                    "index.html",
                    r##"<h1 id="top">x</h1><a href="guide/a.html#b%20c">a</a><a href="#top">t</a>"##,
                ),
                (
                    "guide/a.html",
                    r#"<h2 id="b c">b</h2><a href="../index.html">i</a><img src="p.svg" alt="p">"#,
                ),
            ],
            &["guide/p.svg"],
        );
        assert_eq!(check(&site), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_problem_is_found() {
        let cases = [
            (r#"<a href="gone.html">x</a>"#, "leads nowhere"),
            (r##"<a href="#gone">x</a>"##, "this page does not have"),
            (r#"<a href="b.html#gone">x</a>"#, "other page does not have"),
            (r#"<img src="gone.png" alt="x">"#, "leads nowhere"),
            (r#"<img src="p.svg">"#, "no alternative text"),
            (r#"<a href="../../x.html">x</a>"#, "leads out"),
            (r#"<a href="/x.html">x</a>"#, "root of the host"),
            (r#"<a href="http://example.org">x</a>"#, "not https"),
            (r#"<a href="https://nowhere">x</a>"#, "not an address"),
            (r#"<a href="file:///etc">x</a>"#, "not an address"),
            ("{{#include gone.rs}}", "include"),
        ];
        for (text, expected) in cases {
            let site = site(&[("a.html", text), ("b.html", "")], &["p.svg"]);
            let problems = check(&site);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(
                problems[0].starts_with("a.html: ") && problems[0].contains(expected),
                "{problems:?}"
            );
        }
    }
}
