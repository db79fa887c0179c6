//! Rust source as the rules see it: code without comments and literals.
//!
//! A full parser would tie the check to a syntax version and slow it down. The
//! rules need identifiers and their lines only, so a small scanner that knows
//! where comments, strings and characters begin and end is enough. It follows
//! the Rust Reference, chapter "Tokens".

use std::fs;
use std::path::{Path, PathBuf};

use super::{Finding, unreadable};

/// One Rust file.
pub(crate) struct SourceFile {
    /// Relative to the repository.
    pub(crate) path: PathBuf,
    /// The text as it stands in the file.
    pub(crate) text: String,
    /// The text with comments and literals blanked out, line for line.
    pub(crate) code: String,
}

impl SourceFile {
    /// Reads the Rust files among `files`.
    pub(crate) fn load(root: &Path, files: &[PathBuf]) -> (Vec<Self>, Vec<Finding>) {
        let mut sources = Vec::new();
        let mut findings = Vec::new();
        for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
            match fs::read_to_string(root.join(path)) {
                Ok(text) => sources.push(Self { path: path.clone(), code: code_only(&text), text }),
                Err(error) => findings.push(unreadable(path, 1, &error)),
            }
        }
        (sources, findings)
    }

    /// Each identifier or keyword of the code with its line, from 1.
    pub(crate) fn identifiers(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().flat_map(|(index, line)| {
            line.split(|c: char| !is_word(c))
                .filter(|word| word.starts_with(|c: char| !c.is_ascii_digit()))
                .map(move |word| (index + 1, word))
        })
    }
}

/// Replaces comments, strings and characters by spaces and keeps every line
/// break, so that a line number in the result is one in the file.
pub(crate) fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (blank, length) = if rest.starts_with("//") {
            (true, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (true, block_comment(rest))
        } else if first == '"' {
            (true, string(rest))
        } else if first == '\'' {
            match character(rest) {
                Some(length) => (true, length),
                None => (false, 1),
            }
        } else if is_word(first) {
            let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            match raw_string(rest, word) {
                Some(length) => (true, length),
                None => (false, word),
            }
        } else {
            (false, first.len_utf8())
        };
        let (token, after) = rest.split_at(length);
        if blank {
            out.extend(token.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(token);
        }
        rest = after;
    }
    out
}

/// The lower-case words of an identifier: `OrderId`, `order_id` and `ORDER_ID`
/// are all `order`, `id`.
pub(crate) fn words(identifier: &str) -> Vec<String> {
    let chars: Vec<char> = identifier.chars().collect();
    let mut words = vec![String::new()];
    for (i, &c) in chars.iter().enumerate() {
        let after_lower = i > 0 && (chars[i - 1].is_lowercase() || chars[i - 1].is_numeric());
        let before_lower = chars.get(i + 1).is_some_and(|next| next.is_lowercase());
        let hump = c.is_uppercase() && i > 0 && (after_lower || before_lower);
        if c == '_' || hump {
            words.push(String::new());
        }
        if c != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Length of the block comment that `text` begins with; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string literal that `text` begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string that `text` begins with, if its first word (of
/// `word` bytes) is the prefix of one: `r"…"`, `br#"…"#`, `cr"…"`.
fn raw_string(text: &str, word: usize) -> Option<usize> {
    if !matches!(&text[..word], "r" | "br" | "cr") {
        return None;
    }
    let hashes = text[word..].bytes().take_while(|&b| b == b'#').count();
    let open = word + hashes;
    if !text[open..].starts_with('"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let body = open + 1;
    Some(text[body..].find(&close).map_or(text.len(), |at| body + at + close.len()))
}

/// Length of the character literal that `text` begins with, or `None` if the
/// quote begins a lifetime or a label.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return chars.find(|&(_, c)| c == '\'').map(|(at, _)| at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        let cases = [
            ("a // order\nb", "a b"),
            ("a /* x /* order */ y\n */ b", "a b"),
            ("f(\"order \\\" order\") g", "f( ) g"),
            ("r#\"an \" order\"# x", "x"),
            ("br\"order\" x", "x"),
            ("r#order x", "r#order x"),
            ("'\"' order '\\'' x", "order x"),
            ("'\\u{1F600}' 'é' x", "x"),
            ("fn f<'order>() {}", "fn f<'order>() {}"),
            ("/// order\nfn f() {}", "fn f() {}"),
        ];
        for (text, expected) in cases {
            let code = code_only(text);
            assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{text}");
            assert_eq!(code.chars().count(), text.chars().count(), "{text}");
            assert_eq!(code.lines().count(), text.lines().count(), "{text}");
        }
    }

    #[test]
    fn unfinished_literals_end_with_the_file() {
        for text in ["\"order", "/* order", "r#\"order\"", "'\\", "'"] {
            assert_eq!(code_only(text).chars().count(), text.chars().count(), "{text}");
        }
    }

    #[test]
    fn words_of_an_identifier() {
        let cases: [(&str, &[&str]); 7] = [
            ("order_id", &["order", "id"]),
            ("OrderId", &["order", "id"]),
            ("ORDER_ID", &["order", "id"]),
            ("HTTPOrder", &["http", "order"]),
            ("Ordering", &["ordering"]),
            ("reorder", &["reorder"]),
            ("v2Order", &["v2", "order"]),
        ];
        for (identifier, expected) in cases {
            assert_eq!(words(identifier), expected, "{identifier}");
        }
    }
}
