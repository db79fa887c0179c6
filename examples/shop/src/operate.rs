//! `shop ops`, `shop saga` and `shop dlq`: what an operator asks of a running service.
//!
//! The admin port of each service offers operations by name, JSON in and JSON out. `ops`
//! reaches all of them on any service; `saga` and `dlq` are the short ways to those that
//! concern sagas and dead letters.
//! It asks the port what it offers first, so it knows which operations change something.

mod dlq;
mod port;

use chassis::{Error, Result, core::unix_ms};
use serde_json::Value;

use self::port::Port;
use crate::terminal::say;

/// Printed by `ops --help`, `saga --help` and `dlq --help`.
pub const HELP: &str = "\
Ask a running service, or step in, over its admin port.

Usage: shop ops                               what it can be asked
       shop ops NAME [ARG=VALUE…]             ask it; the answer is JSON
       shop saga list [STATE] [limit=N]       the newest sagas as a table; before=ID turns
                                              the page
       shop saga show SAGA                    where it is, why it waits, what each step changed
       shop saga diagram [SAGA]               Mermaid of the steps, and where it stands
       shop saga retry SAGA                   go on, if it is parked or between two tries
       shop saga skip SAGA [reason=TEXT]      count the step as done at which it is stuck
       shop saga compensate SAGA [reason=…]   undo it, before its pivot
       shop dlq list [TOPIC] [reason=REASON]  messages that it could not handle, as a table
       shop dlq show LETTER                   payload, headers and what went wrong
       shop dlq edit LETTER payload=TEXT      replace the payload
       shop dlq redrive LETTER                send it to its topic again
       shop dlq discard LETTER                throw it away

SAGA is the id of a saga or its business key, which for a checkout is the order's id.
STATE is running, compensating, parked, queued, completed or cancelled. Where a service has
sagas of several definitions, definition=NAME says which.

LETTER is a number of the table or the id of a message. Instead of it, redrive and discard
take topic=NAME, reason=REASON or all=true, with limit=N (100) and rate=N a second (redrive,
10). Where a service listens for several groups, group=NAME says for which.

  --admin URL      admin port of the service (default: http://127.0.0.1:9094, which is
                   ordering's; the shop prints a table of its ports when it starts)
  --help           print this

A service that cannot do what is asked says why, and the exit code is 1.
";

/// Where ordering has its admin port if nothing else is said.
const ADMIN: &str = "127.0.0.1:9094";
/// The longest explanation in a table, in characters.
const MAX_WHY: usize = 72;

/// What is asked of which service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Host and port of the admin port.
    admin: String,
    wish: Wish,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    /// What can be asked.
    Offer,
    /// An operation by its name.
    Operation { name: String, args: Vec<(String, String)> },
    /// An operation on sagas, of the one definition that there is.
    Saga { verb: String, definition: Option<String>, args: Vec<(String, String)> },
    /// An operation on dead letters, of the one group that there is.
    DeadLetters { verb: String, group: Option<String>, args: Vec<(String, String)> },
}

/// Reads the arguments after `ops`, `saga` or `dlq`; `None` is a wish for [`HELP`].
///
/// # Errors
/// One line that names what is wrong and says what is right.
pub fn parse(
    command: &str,
    args: impl IntoIterator<Item = String>,
) -> Result<Option<Request>, String> {
    let mut args = args.into_iter();
    let mut admin = ADMIN.to_owned();
    let (mut words, mut named) = (Vec::new(), Vec::new());
    while let Some(arg) = args.next() {
        match arg.split_once('=') {
            _ if arg == "--help" || arg == "-h" => return Ok(None),
            _ if arg == "--admin" => {
                admin = address(&args.next().ok_or("--admin needs a URL")?)?;
            }
            Some(("--admin", url)) => admin = address(url)?,
            _ if arg.starts_with('-') => {
                return Err(format!("unknown option `{arg}`; {command} --help lists the options"));
            }
            Some((name, value)) if !name.is_empty() => {
                named.push((name.to_owned(), value.to_owned()));
            }
            _ => words.push(arg),
        }
    }
    let mut words = words.into_iter();
    let wish = match (command, words.next()) {
        ("saga" | "dlq", None) => return Ok(None),
        ("saga", Some(verb)) => saga(verb, words.next(), named)?,
        ("dlq", Some(verb)) => dlq::wish(verb, words.next(), named)?,
        (_, Some(name)) => Wish::Operation { name, args: named },
        (_, None) => Wish::Offer,
    };
    match words.next() {
        Some(word) => Err(format!("`{word}` is one word too many; arguments are ARG=VALUE")),
        None => Ok(Some(Request { admin, wish })),
    }
}

fn saga(
    verb: String,
    word: Option<String>,
    mut args: Vec<(String, String)>,
) -> Result<Wish, String> {
    let given = args.iter().any(|(name, _)| ["id", "key", "saga"].contains(&name.as_str()));
    let name = match verb.as_str() {
        "list" => "state",
        "diagram" => "saga",
        "show" | "retry" | "skip" | "compensate" if word.is_none() && !given => {
            return Err(format!("saga {verb} needs the id of a saga or its business key"));
        }
        "show" | "retry" | "skip" | "compensate" => "saga",
        _ => {
            return Err(format!(
                "`{verb}` is not one of list, show, diagram, retry, skip and compensate"
            ));
        }
    };
    args.extend(word.map(|word| (name.to_owned(), word)));
    let definition = args.iter().position(|(name, _)| name == "definition");
    let definition = definition.map(|index| args.remove(index).1);
    Ok(Wish::Saga { verb, definition, args })
}

/// Host and port of a URL.
fn address(url: &str) -> Result<String, String> {
    let host = match url.split_once("://") {
        Some(("http", host)) => host,
        Some(_) => return Err(format!("`{url}`: an admin port speaks http")),
        None => url,
    };
    let host = host.trim_end_matches('/');
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => {
            Ok(host.to_owned())
        }
        _ => Err(format!("`{url}` is not a URL such as http://{ADMIN}")),
    }
}

/// Asks, and prints the answer.
///
/// # Errors
/// Where nothing listens, and what the service says.
pub fn main(request: &Request) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::internal)?;
    say(runtime.block_on(answer(request))?.trim_end());
    Ok(())
}

/// The answer as it is printed.
async fn answer(request: &Request) -> Result<String> {
    let port = Port::at(&request.admin);
    let offer = port.operations().await?;
    let offer: Vec<&Value> = offer.as_array().into_iter().flatten().collect();
    let of = |operation: &Value| operation["name"].as_str().unwrap_or_default().to_owned();
    let (name, args) = match &request.wish {
        Wish::Offer => return Ok(offered(&offer)),
        Wish::Operation { name, args } => (name.clone(), args),
        Wish::Saga { verb, definition, args } => {
            (definition_of(offer.iter().map(|o| of(o)), verb, definition.as_deref())?, args)
        }
        Wish::DeadLetters { verb, group, args } => {
            (dlq::operation(offer.iter().map(|o| of(o)), verb, group.as_deref())?, args)
        }
    };
    let Some(operation) = offer.iter().find(|operation| of(operation) == name) else {
        let message = format!(
            "the service at {} offers no `{name}`; `ops` lists what it does",
            request.admin
        );
        return Err(Error::not_found("OPERATION_NOT_FOUND", message));
    };
    let answer = if operation["writes"] == true {
        port.change(&name, args).await?
    } else {
        port.ask(&name, args).await?
    };
    match &request.wish {
        Wish::Saga { verb, .. } if verb == "list" => Ok(table(&answer, unix_ms())),
        Wish::DeadLetters { verb, .. } if verb == "list" => Ok(dlq::table(&answer, unix_ms())),
        Wish::Saga { verb, .. } if verb == "diagram" => {
            Ok(answer["mermaid"].as_str().unwrap_or_default().to_owned())
        }
        _ => serde_json::to_string_pretty(&answer).map_err(Error::internal),
    }
}

/// The operation `verb` of the definition that is meant.
fn definition_of(
    offer: impl Iterator<Item = String>,
    verb: &str,
    definition: Option<&str>,
) -> Result<String> {
    scope_of(offer, "sagas", verb, definition).map_err(|known| {
        if known.is_empty() {
            let message = "this service has no sagas; give the admin port of one that has with \
                           --admin URL";
            return Error::not_found("NO_SAGAS", message);
        }
        let which = known.join(" or definition=");
        let message = format!("say which sagas you mean: definition={which}");
        Error::invalid_argument("WHICH_SAGAS", message)
    })
}

/// The one operation `FAMILY/scope/VERB` whose scope is wanted; else the scopes that there
/// are.
fn scope_of(
    offer: impl Iterator<Item = String>,
    family: &str,
    verb: &str,
    wanted: Option<&str>,
) -> Result<String, Vec<String>> {
    let known: Vec<String> = offer
        .filter_map(|name| {
            let name = name.strip_prefix(family)?.strip_prefix('/')?;
            Some(name.strip_suffix(verb)?.strip_suffix('/')?.to_owned())
        })
        .collect();
    let mut meant = known.iter().filter(|name| wanted.is_none_or(|wanted| wanted == **name));
    match (meant.next(), meant.next()) {
        (Some(one), None) => Ok(format!("{family}/{one}/{verb}")),
        _ => Err(known),
    }
}

fn offered(offer: &[&Value]) -> String {
    if offer.is_empty() {
        return "This service offers no operations.".to_owned();
    }
    let rows = offer.iter().map(|operation| {
        let text = |name: &str| operation[name].as_str().unwrap_or_default().to_owned();
        let writes = if operation["writes"] == true { "changes" } else { "looks" };
        vec![text("name"), writes.to_owned(), text("help")]
    });
    columns(&["operation", "", "what it does"], rows)
}

/// One line a saga.
fn table(answer: &Value, now: i64) -> String {
    let sagas: Vec<&Value> = answer["sagas"].as_array().into_iter().flatten().collect();
    if sagas.is_empty() {
        return "No sagas.".to_owned();
    }
    let rows = sagas.iter().map(|saga| {
        let text = |name: &str| saga[name].as_str().unwrap_or_default().to_owned();
        let age = now.saturating_sub(saga["started_at"].as_i64().unwrap_or(now));
        vec![text("key"), text("state"), text("step"), since(age), shortened(&text("why"))]
    });
    let table = columns(&["key", "state", "step", "started", "why"], rows);
    match answer["next"].as_str() {
        Some(next) => format!("{table}\nthe next page: before={next}"),
        None => table,
    }
}

fn shortened(why: &str) -> String {
    let mut short: String = why.chars().take(MAX_WHY).collect();
    if short.len() < why.len() {
        short.push('…');
    }
    short
}

/// Columns as wide as their widest cell.
fn columns(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(n, cell)| format!("{cell:<0$}  ", width(n)));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

fn since(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s ago"),
        120..7200 => format!("{}m ago", seconds / 60),
        7200..172_800 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use chassis::{
        Shutdown,
        core::{AdminConfig, Component, Env, Ready, ShutdownTrigger, operations},
        http::Admin,
    };
    use serde_json::json;

    use super::*;

    fn read(line: &str) -> Result<Option<Request>, String> {
        let mut words = line.split_whitespace().map(str::to_owned);
        parse(&words.next().unwrap(), words)
    }

    fn wish(line: &str) -> Wish {
        read(line).unwrap().unwrap().wish
    }

    fn pairs(args: &[(&str, &str)]) -> Vec<(String, String)> {
        args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_arguments_are_read() {
        assert_eq!(wish("ops"), Wish::Offer);
        let name = "a/b".to_owned();
        assert_eq!(
            wish("ops a/b x=1 y=a=b"),
            Wish::Operation { name, args: pairs(&[("x", "1"), ("y", "a=b")]) }
        );
        for (line, verb, definition, args) in [
            ("saga list", "list", None, pairs(&[])),
            (
                "saga list parked limit=3",
                "list",
                None,
                pairs(&[("limit", "3"), ("state", "parked")]),
            ),
            ("saga diagram", "diagram", None, pairs(&[])),
            ("saga show k definition=d", "show", Some("d"), pairs(&[("saga", "k")])),
            ("saga skip id=7 reason=so", "skip", None, pairs(&[("id", "7"), ("reason", "so")])),
        ] {
            let (verb, definition) = (verb.to_owned(), definition.map(str::to_owned));
            assert_eq!(wish(line), Wish::Saga { verb, definition, args }, "{line}");
        }
        for line in ["saga", "saga --help", "ops -h"] {
            assert_eq!(read(line), Ok(None), "{line}");
        }
        for (line, expected) in [
            ("ops", "127.0.0.1:9094"),
            ("ops --admin localhost:1", "localhost:1"),
            ("saga list --admin=http://h:2/", "h:2"),
        ] {
            assert_eq!(read(line).unwrap().unwrap().admin, expected, "{line}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused_with_what_is_right() {
        for (line, says) in [
            ("ops a b", "`b`"),
            ("ops --prot 1", "`--prot`"),
            ("ops --admin", "needs a URL"),
            ("ops --admin https://h:1", "speaks http"),
            ("ops --admin h", "http://127.0.0.1:9094"),
            ("ops --admin h:99999", "http://127.0.0.1:9094"),
            ("saga stop x", "compensate"),
            ("saga show", "needs the id"),
            ("saga skip reason=x", "needs the id"),
            ("saga show a b", "`b`"),
        ] {
            let problem = read(line).unwrap_err();
            assert!(problem.contains(says), "{line}: {problem}");
        }
    }

    #[test]
    fn the_definition_may_be_left_out_where_there_is_one() {
        let offer =
            |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>().into_iter();
        let one = ["sagas/a/list", "sagas/a/show", "other/list"];
        let two = ["sagas/a/list", "sagas/b/list"];
        assert_eq!(definition_of(offer(&one), "list", None).unwrap(), "sagas/a/list");
        assert_eq!(definition_of(offer(&two), "list", Some("b")).unwrap(), "sagas/b/list");
        for (names, definition, reason) in [
            (&two[..], None, "WHICH_SAGAS"),
            (&two, Some("c"), "WHICH_SAGAS"),
            (&["other/list"], None, "NO_SAGAS"),
        ] {
            assert_eq!(
                definition_of(offer(names), "list", definition).unwrap_err().reason(),
                reason
            );
        }
    }

    /// A service with an admin port and operations that a saga runner would offer.
    async fn service() -> (String, ShutdownTrigger) {
        let env = Env::test("service");
        let offered = env.operations();
        offered.read("sagas/greet/list", "Lists.", |args| async move {
            let state = operations::text(&args, "state").unwrap_or("running".to_owned());
            let saga = json!({
                "key": "k & ü", "state": state, "step": "ask", "started_at": 0,
                "why": "x".repeat(200),
            });
            let sagas = if state == "parked" { json!([]) } else { json!([saga]) };
            match operations::text(&args, "before") {
                Ok(before) => Ok(json!({ "sagas": sagas, "next": format!("{before}-next") })),
                Err(_) => Ok(json!({ "sagas": sagas })),
            }
        });
        offered.read("sagas/greet/diagram", "Draws.", |_| async {
            Ok(json!({ "mermaid": "flowchart TD\n" }))
        });
        offered.read("sagas/greet/show", "Shows.", |args| async move {
            Ok(json!({ "id": operations::text(&args, "saga")? }))
        });
        offered.write("sagas/greet/skip", "Skips.", |args| async move {
            match operations::text(&args, "saga")?.as_str() {
                "busy" => Err(Error::aborted("SAGA_BUSY", "try again")),
                _ => Ok(args),
            }
        });
        let config = AdminConfig { port: 0, ..AdminConfig::default() };
        let (trigger, shutdown) = Shutdown::new();
        let (ready, is_ready) = Ready::channel();
        tokio::spawn(Box::new(Admin::new(&config)).run(env.clone(), ready, shutdown));
        is_ready.await.unwrap();
        (env.listeners()[0].address.to_string(), trigger)
    }

    #[tokio::test]
    async fn a_service_is_asked_and_told() {
        let (admin, _running) = service().await;
        let ask = async |line: &str| {
            let request = read(&format!("{line} --admin {admin}")).unwrap().unwrap();
            answer(&request).await
        };
        let offer = ask("ops").await.unwrap();
        assert!(offer.contains("sagas/greet/skip     changes  Skips."), "{offer}");
        let list = ask("saga list").await.unwrap();
        let line = list.lines().nth(1).unwrap();
        assert!(line.starts_with("k & ü  running  ask   ") && line.ends_with("xxx…"), "{list}");
        assert_eq!(ask("saga list parked").await.unwrap(), "No sagas.");
        let page = ask("saga list running before=7").await.unwrap();
        assert!(page.ends_with("the next page: before=7-next"), "{page}");
        assert_eq!(ask("saga diagram").await.unwrap(), "flowchart TD\n");
        assert_eq!(ask("saga show saga=a&b=ü/%").await.unwrap(), "{\n  \"id\": \"a&b=ü/%\"\n}");
        let told = ask("ops sagas/greet/skip saga=a reason=so").await.unwrap();
        assert_eq!(told, "{\n  \"reason\": \"so\",\n  \"saga\": \"a\"\n}");
        for (line, reason, says) in [
            ("saga skip busy", "SAGA_BUSY", "try again (SAGA_BUSY)"),
            ("ops sagas/greet/skip", "ARGUMENT_MISSING", "`saga` is missing"),
            ("ops nothing", "OPERATION_NOT_FOUND", "offers no `nothing`"),
            ("saga retry a", "NO_SAGAS", "--admin URL"),
        ] {
            let error = ask(line).await.unwrap_err();
            assert_eq!(error.reason(), reason, "{line}");
            assert!(error.message().contains(says), "{line}: {error}");
        }
    }

    #[tokio::test]
    async fn it_says_where_nobody_listens() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let request = read(&format!("ops --admin {address}")).unwrap().unwrap();
        let error = answer(&request).await.unwrap_err();
        assert_eq!(error.reason(), "ADMIN_AWAY");
        assert!(error.message().contains("cargo run -p shop"), "{error}");
    }

    #[test]
    fn ages_are_short() {
        for (ms, text) in [
            (-5, "0s ago"),
            (119_999, "119s ago"),
            (120_000, "2m ago"),
            (7_200_000, "2h ago"),
            (172_800_000, "2d ago"),
        ] {
            assert_eq!(since(ms), text);
        }
    }
}
