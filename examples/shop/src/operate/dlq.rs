//! `shop dlq`: messages that a service could not handle, and what to do about them.

use chassis::{Error, Result};
use serde_json::Value;

use super::{Wish, columns, scope_of, shortened, since};

/// Reads what follows `dlq VERB`.
pub(super) fn wish(
    verb: String,
    word: Option<String>,
    mut args: Vec<(String, String)>,
) -> Result<Wish, String> {
    let has = |names: &[&str]| args.iter().any(|(name, _)| names.contains(&name.as_str()));
    let named = word.is_some() || has(&["position", "id"]);
    let chosen = named || has(&["topic", "reason", "all"]);
    match verb.as_str() {
        "list" => args.extend(word.map(|topic| ("topic".to_owned(), topic))),
        "show" | "edit" if !named => {
            return Err(format!("dlq {verb} needs the number of a dead letter or an id"));
        }
        "edit" if !has(&["payload"]) => {
            return Err("dlq edit needs payload=TEXT, all that the message is to say".to_owned());
        }
        "redrive" | "discard" if !chosen => {
            return Err(format!(
                "dlq {verb} needs a number, an id, topic=NAME, reason=REASON or all=true"
            ));
        }
        "show" | "edit" | "redrive" | "discard" => args.extend(word.map(|word| {
            let number = word.bytes().all(|byte| byte.is_ascii_digit());
            (if number { "position" } else { "id" }.to_owned(), word)
        })),
        _ => {
            return Err(format!("`{verb}` is not one of list, show, edit, redrive and discard"));
        }
    }
    let group = args.iter().position(|(name, _)| name == "group");
    let group = group.map(|index| args.remove(index).1);
    Ok(Wish::DeadLetters { verb, group, args })
}

/// The operation `verb` of the group that is meant.
pub(super) fn operation(
    offer: impl Iterator<Item = String>,
    verb: &str,
    group: Option<&str>,
) -> Result<String> {
    scope_of(offer, "dlq", verb, group).map_err(|known| {
        if known.is_empty() {
            let message = "this service takes no messages; give the admin port of one that does \
                           with --admin URL";
            return Error::not_found("NO_DEAD_LETTERS", message);
        }
        let message =
            format!("say whose dead letters you mean: group={}", known.join(" or group="));
        Error::invalid_argument("WHICH_DEAD_LETTERS", message)
    })
}

/// One line a dead letter.
pub(super) fn table(answer: &Value, now: i64) -> String {
    let letters: Vec<&Value> = answer["letters"].as_array().into_iter().flatten().collect();
    let next = answer["next"].as_u64();
    if letters.is_empty() && next.is_none() {
        return "No dead letters.".to_owned();
    }
    let rows = letters.iter().map(|letter| {
        let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| letter[name].as_u64().unwrap_or_default().to_string();
        let died = now.saturating_sub(letter["died_at"].as_i64().unwrap_or(now));
        vec![
            number("position"),
            text("id"),
            text("topic"),
            text("reason"),
            number("attempts"),
            number("redrives"),
            since(died),
            shortened(&text("message")),
        ]
    });
    let head = ["number", "id", "topic", "reason", "tried", "redriven", "died", "why"];
    let mut table = columns(&head, rows);
    if let Some(next) = next {
        table += &format!("There may be more: from={next}\n");
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(line: &str) -> Result<Wish, String> {
        let words = line.split_whitespace().map(str::to_owned);
        super::super::parse("dlq", words).map(|request| request.unwrap().wish)
    }

    #[test]
    fn the_arguments_are_read() {
        for (line, verb, group, args) in [
            ("list", "list", None, &[][..]),
            ("list a.b limit=3", "list", None, &[("limit", "3"), ("topic", "a.b")]),
            ("show 7 group=g", "show", Some("g"), &[("position", "7")]),
            ("show 01a2-b", "show", None, &[("id", "01a2-b")]),
            (
                "edit 7 payload={\"a\":\"=\"}",
                "edit",
                None,
                &[("payload", "{\"a\":\"=\"}"), ("position", "7")],
            ),
            ("redrive reason=BAD rate=5", "redrive", None, &[("reason", "BAD"), ("rate", "5")]),
            ("discard all=true", "discard", None, &[("all", "true")]),
        ] {
            let args = args.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
            let (verb, group) = (verb.to_owned(), group.map(str::to_owned));
            assert_eq!(read(line), Ok(Wish::DeadLetters { verb, group, args }), "{line}");
        }
        for (line, says) in [
            ("bury 7", "`bury`"),
            ("show", "needs the number"),
            ("edit 7", "payload="),
            ("redrive limit=3", "all=true"),
            ("discard", "all=true"),
            ("show 7 8", "`8`"),
        ] {
            let problem = read(line).unwrap_err();
            assert!(problem.contains(says), "{line}: {problem}");
        }
    }

    #[test]
    fn the_group_may_be_left_out_where_there_is_one() {
        let offer = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            names.into_iter()
        };
        let (one, two) = (["dlq/a/list", "sagas/b/list"], ["dlq/a/list", "dlq/b/list"]);
        assert_eq!(operation(offer(&one), "list", None).unwrap(), "dlq/a/list");
        assert_eq!(operation(offer(&two), "list", Some("b")).unwrap(), "dlq/b/list");
        for (names, group, reason) in [
            (&two[..], None, "WHICH_DEAD_LETTERS"),
            (&two, Some("c"), "WHICH_DEAD_LETTERS"),
            (&["sagas/a/list"], None, "NO_DEAD_LETTERS"),
        ] {
            assert_eq!(operation(offer(names), "list", group).unwrap_err().reason(), reason);
        }
    }

    #[test]
    fn a_list_is_a_table() {
        let letter = json!({
            "position": 12, "id": "01a2", "topic": "a.b", "reason": "BAD", "attempts": 6,
            "redrives": 0, "died_at": 0, "message": "x".repeat(200),
        });
        let text = table(&json!({ "letters": [letter], "next": 13 }), 3_600_000);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("12      01a2  a.b    BAD     6      0         60m ago"));
        assert!(lines[1].ends_with("xxx…"), "{text}");
        assert_eq!(lines[2], "There may be more: from=13");
        assert_eq!(table(&json!({ "letters": [], "next": null }), 0), "No dead letters.");
    }
}
