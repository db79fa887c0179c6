//! The admin port: its paths, and the operations that the parts of a service offer there.

use std::fmt::Write as _;
use std::io;

use crate::source::{Source, literal, literals};
use crate::{FOOTER, cell, missing};

/// The page.
pub(crate) fn page(sources: &[Source]) -> io::Result<String> {
    let admin = sources
        .iter()
        .find(|source| source.krate == "chassis-http" && source.code.contains("pub struct Admin"))
        .ok_or_else(|| missing("chassis-http has no `Admin`"))?;
    let table: Vec<&str> =
        admin.text.lines().filter_map(|line| line.strip_prefix("/// |")).collect();
    for (at, path, _) in literals(&admin.code) {
        let routed = admin.code[..at].ends_with(".route(");
        let known = path.replace("{*name}", "NAME");
        if routed && !table.iter().any(|line| line.contains(&format!("`{known}`"))) {
            return Err(missing(format!("the doc comment of `Admin` does not name {known}")));
        }
    }
    let mut text = String::from(HEAD);
    for line in table {
        // A link for rustdoc leads nowhere here.
        let line = line.replace("; see [`chassis_core::operations`]", ", listed");
        let _ = writeln!(text, "|{line}");
    }
    text.push_str(OPERATIONS);
    for source in sources {
        operations(source, &mut text);
    }
    text.push_str(FOOTER);
    Ok(text)
}

const HEAD: &str = "\
# Admin port

`ADMIN__HOST` and `ADMIN__PORT`, by default 127.0.0.1:9090. It has no login: do not publish it. It
starts first and stops last.

";

const OPERATIONS: &str = "
## Operations

`GET /ops` lists what this process offers. `GET /ops/NAME?argument=value` asks, `POST /ops/NAME`
with a JSON object changes; a POST must say `content-type: application/json`. GROUP is a
consumer's group, SAGA the name of a definition, SERVER that of an HTTP server.

| operation | method | | from |
|---|---|---|---|
";

fn operations(source: &Source, text: &mut String) {
    let code = &source.code;
    let prefix = literals(code).into_iter().find_map(|(_, value, _)| {
        let (prefix, what) = value.split_once("/{}/")?;
        (what == "{what}").then(|| prefix.to_owned())
    });
    for (at, name, rest) in literals(code) {
        let before = code[..at].trim_end();
        let named = ["name(", "format!("].iter().find_map(|made| before.strip_suffix(made));
        let before = named.unwrap_or(before).trim_end();
        let method = match before {
            b if b.ends_with("operations.read(") => "GET",
            b if b.ends_with("operations.write(") => "POST",
            _ => continue,
        };
        let after = rest.trim_start_matches([')', ',']).trim_start();
        let Some((help, _)) = literal(after) else { continue };
        let whose = if prefix.as_deref() == Some("sagas") { "SAGA" } else { "GROUP" };
        let name = match &prefix {
            Some(prefix) if !name.contains('/') => format!("{prefix}/{whose}/{name}"),
            _ => name.replace("{name}", "SERVER"),
        };
        let _ = writeln!(text, "| `{name}` | {method} | {} | {} |", cell(&help), source.krate);
    }
}
