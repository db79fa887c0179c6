//! As much of HTML as a link check needs: tags and their attributes.
//!
//! It reads what mdBook writes, which is well-formed. Comments, scripts and styles are passed
//! over, so that a `<a>` in a program text is not a link.

/// An opening tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    /// The value of an attribute, entities resolved.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// All opening tags of a document, in their sequence.
pub(super) fn tags(text: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix("!--") {
            rest = after.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            continue;
        }
        let (tag, after) = read(rest);
        rest = after;
        if matches!(&*tag.name, "script" | "style") {
            let end = format!("</{}", tag.name);
            rest = rest.find(&end).map_or("", |at| &rest[at..]);
        }
        tags.push(tag);
    }
    tags
}

/// Reads a tag behind its `<`, and gives what follows its `>`.
fn read(text: &str) -> (Tag, &str) {
    let ends = |c: char| c.is_ascii_whitespace() || c == '>' || c == '/';
    let (name, mut rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
    let mut tag = Tag { name: name.to_ascii_lowercase(), attributes: Vec::new() };
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if rest.is_empty() {
            return (tag, rest);
        }
        if let Some(after) = rest.strip_prefix('>') {
            return (tag, after);
        }
        let ends = |c: char| c.is_ascii_whitespace() || matches!(c, '=' | '>' | '/');
        let (key, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        rest = after.trim_start();
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            let after = after.trim_start();
            (value, rest) = match after.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    after[1..].split_once(quote).unwrap_or((&after[1..], ""))
                }
                _ => {
                    let ends = |c: char| c.is_ascii_whitespace() || c == '>';
                    after.split_at(after.find(ends).unwrap_or(after.len()))
                }
            };
        } else if key.is_empty() {
            // A stray character: one step further, or it would be read for ever.
            rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
            continue;
        }
        tag.attributes.push((key.to_ascii_lowercase(), unescape(value)));
    }
}

fn unescape(value: &str) -> String {
    [
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(value.to_owned(), |text, (entity, meant)| text.replace(entity, meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_with_attributes_are_found() {
        let text = r#"<!doctype html><p>a < b</p><a class=x href="p.html?a=1&amp;b#c">t</a><IMG src='i.png'/>"#;
        let tags = tags(text);
        let names: Vec<_> = tags.iter().map(|tag| tag.name.as_str()).collect();
        assert_eq!(names, ["p", "a", "img"]);
        assert_eq!(tags[1].get("href"), Some("p.html?a=1&b#c"));
        assert_eq!(tags[1].get("class"), Some("x"));
        assert_eq!(tags[2].get("src"), Some("i.png"));
        assert_eq!(tags[2].get("alt"), None);
    }

    #[test]
    fn comments_and_scripts_hold_no_tags() {
        let text = r#"<!-- <a href="x"> --><script>"<a href='y'>"</script><b id=k hidden></b>"#;
        let tags = tags(text);
        let names: Vec<_> = tags.iter().map(|tag| tag.name.as_str()).collect();
        assert_eq!(names, ["script", "b"]);
        assert_eq!(tags[1].get("hidden"), Some(""));
    }

    #[test]
    fn what_is_cut_off_ends() {
        for text in ["<", "<a", "<a href", "<a href=", "<a href=\"x", "<script>", "<!--", "<a =>"] {
            tags(text);
        }
    }
}
