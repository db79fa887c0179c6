//! The crates' sources, without tests and comments, and a few ways to find things in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One file below `crates/*/src`.
pub(crate) struct Source {
    /// The crate, such as `chassis-http`.
    pub(crate) krate: String,
    /// The file as it is.
    pub(crate) text: String,
    /// The same without comments and without its tests.
    pub(crate) code: String,
}

impl Source {
    /// All files of all crates that a service uses, in the sequence of their paths.
    pub(crate) fn all(root: &Path) -> io::Result<Vec<Source>> {
        let mut sources = Vec::new();
        for krate in entries(&root.join("crates"))? {
            let name = krate.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut files = Vec::new();
            walk(&krate.join("src"), &mut files)?;
            for file in files.into_iter().filter(|file| !is_test(file)) {
                let text = fs::read_to_string(&file)?;
                let code = code(&text);
                sources.push(Source { krate: name.clone(), text, code });
            }
        }
        Ok(sources)
    }
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    Ok(entries)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for path in entries(folder)? {
        if path.is_dir() {
            walk(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|part| {
        let part = part.to_string_lossy();
        part == "conformance"
            || part == "chassis-test"
            || part == "tests.rs"
            || part.ends_with("_tests.rs")
    })
}

fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The string literal that begins here, with its escapes resolved, and what follows it.
pub(crate) fn literal(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('"')?.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => return Some((value, rest.as_str())),
            '\\' => match rest.next()? {
                // A line that goes on: its indentation does not count.
                '\n' => rest = rest.as_str().trim_start().chars(),
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

/// Every literal in the text: where it begins, what it says, and what follows it.
pub(crate) fn literals(text: &str) -> Vec<(usize, String, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].find(['"', '\'']) {
        at += next;
        if let Some((value, rest)) = literal(&text[at..]) {
            found.push((at, value, rest));
            at = text.len() - rest.len();
        } else {
            // A character such as '"', or a lifetime.
            at += if text[at..].starts_with("'\"'") { 3 } else { 1 };
        }
    }
    found
}

/// The text up to the bracket that closes the one before it.
pub(crate) fn until_closed(text: &str) -> &str {
    let mut depth = 0_i32;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return &text[..at],
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read() {
        let text = r#"f("a\"b", 'x', "c \
            d") 'a "e"#;
        let values: Vec<_> = literals(text).into_iter().map(|(_, value, _)| value).collect();
        assert_eq!(values, ["a\"b", "c d"]);
        assert_eq!(until_closed("a(b[c]), d) e"), "a(b[c]), d");
    }

    #[test]
    fn tests_and_comments_are_not_code() {
        let text = "/// doc\nfn a() {}\n  // why\n#[cfg(test)]\nmod tests {\n}";
        assert_eq!(code(text), "fn a() {}");
    }
}
