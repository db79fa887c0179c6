//! Every reason that an error of the crates may carry, with its code and public message.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chassis::Code;

use crate::source::{Source, literal, literals};
use crate::{FOOTER, cell};

/// How far back the code of a reason may stand.
const NEAR: usize = 160;

#[derive(Default)]
struct Reason {
    code: Option<Code>,
    crates: Vec<String>,
    message: String,
}

/// The page.
pub(crate) fn page(sources: &[Source]) -> String {
    let mut reasons: BTreeMap<String, Reason> = BTreeMap::new();
    for source in sources {
        for (at, name, rest) in literals(&source.code) {
            if !is_reason(&name) {
                continue;
            }
            let Some(code) = code(&source.code[..at]) else { continue };
            let reason = reasons.entry(name).or_default();
            reason.code = reason.code.or(code);
            if !reason.crates.contains(&source.krate) {
                reason.crates.push(source.krate.clone());
            }
            let after = rest.trim_start().trim_start_matches(',').trim_start();
            let after = after.strip_prefix("format!(").unwrap_or(after).trim_start();
            if reason.message.is_empty() {
                reason.message = literal(after).map(|(text, _)| text).unwrap_or_default();
            }
        }
    }
    let mut text = String::from(HEAD);
    for number in 1..=16 {
        let code = Code::from_grpc(number);
        let again = if code.is_retryable() { "yes" } else { "" };
        let _ =
            writeln!(text, "| `{}` | {} | {number} | {again} |", code.as_str(), code.http_status());
    }
    text.push_str(REASONS);
    for (name, reason) in &reasons {
        let code = reason.code.map_or("-".to_owned(), |code| format!("`{}`", code.as_str()));
        let _ = writeln!(
            text,
            "| `{name}` | {code} | {} | {} |",
            cell(&reason.message),
            reason.crates.join(", ")
        );
    }
    text.push_str(FOOTER);
    text
}

const HEAD: &str = "\
# Errors

An error has a code, a reason, a public message and a private source. A program reads code and
reason; a person reads the message; the source goes to the log only. Over HTTP it is
problem+json with the members `code` and `reason`; over gRPC a status with `ErrorInfo`; beside a
dead letter it is a header.

## Codes

| code | HTTP | gRPC | may work later |
|---|---|---|---|
";

const REASONS: &str = "
## Reasons

Those of the chassis. A service adds its own. `HTTP_<status>` is the reason of an answer of another
server that was no problem document. Where the message is empty it is put together at run time.

| reason | code | message | from |
|---|---|---|---|
";

fn is_reason(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.contains('_')
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(letters)
}

/// The code that is given with a reason: `None` where this is no reason, `Some(None)` where
/// it is a constant and its code stands elsewhere.
fn code(before: &str) -> Option<Option<Code>> {
    let before = before.trim_end();
    if before.ends_with("&str =") {
        return Some(None);
    }
    let start = before.len().saturating_sub(NEAR);
    let start = (start..=before.len()).find(|at| before.is_char_boundary(*at))?;
    let near = &before[start..];
    if let Some(call) = near.strip_suffix('(') {
        let name = call.rsplit("Error::").next().filter(|_| call.contains("Error::"))?;
        return Some(Some(Code::parse(&name.to_uppercase())?));
    }
    let name = near.strip_suffix(',')?.trim_end().rsplit("Code::").next()?;
    let snake: String = name
        .chars()
        .flat_map(|c| [c.is_ascii_uppercase().then_some('_'), Some(c.to_ascii_uppercase())])
        .flatten()
        .collect();
    Code::parse(snake.trim_start_matches('_')).map(Some)
}
