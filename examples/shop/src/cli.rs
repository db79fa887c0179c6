//! What may be typed after `shop`.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr};

use crate::operate;

/// Printed by `--help`.
pub const HELP: &str = "\
The shop, a complete example of services on the chassis.

Usage: shop [OPTIONS]         run all services in this process
       shop smoke [OPTIONS]   run the journey against a fresh shop and say what holds
       shop load [OPTIONS]    order from a running shop as fast as it goes, and count
       shop ops …             ask a running service, or step in; see shop ops --help
       shop saga …            list, show, retry, skip or undo its sagas; see shop saga --help
       shop dlq …             list, edit, redrive or discard its dead letters; see shop dlq --help

  --data DIR       where databases and the broker keep their files (default: data;
                   smoke: a temporary folder, or this one if it is new or empty)
  --port PORT      port of the gateway; admin ports follow from PORT + 1010
                   (default: 8080; 0 takes free ports for all)
  --database URL   a PostgreSQL server instead of SQLite; each service gets a
                   database of its own, named after the one in the URL
  --broker URL     a NATS server instead of the embedded broker: nats://host:4222
                   (smoke: not one that a running shop uses, they would share messages)
  --gateway ADDR   smoke and load: the gateway of a running shop, as host:port (load:
                   127.0.0.1:8080; smoke: only what customers do, nothing is killed)
  --seconds N      load: for how long (default: 10; Ctrl-C: no longer)
  --orders N       load: how many orders each customer places at most
  --customers N    load: how many order at the same time (default: 8)
  --browse         load: customers also look at products and at what they have ordered
  --faults         load: answers may be failures; what was accepted must end all the same
  --report FILE    write the addresses as JSON to FILE once everything serves
  --help           print this

The environment sets telemetry: TELEMETRY__LOG_FORMAT, RUST_LOG, OTEL_EXPORTER_OTLP_ENDPOINT.
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the shop.
    Up(Options),
    /// Run the journey.
    Smoke(Options),
    /// Only what customers do, at this gateway.
    Visit(String),
    /// Order as fast as it goes.
    Load(Load),
    /// Ask a running service.
    Operate(operate::Request),
    /// Print this.
    Help(&'static str),
}

/// How to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where files are kept; none leaves the choice to the command.
    pub data: Option<PathBuf>,
    /// Port of the gateway; 0 takes free ports for everything.
    pub port: u16,
    /// A PostgreSQL URL, or SQLite where there is none.
    pub database: Option<String>,
    /// A NATS URL, or the embedded broker where there is none.
    pub broker: Option<String>,
    /// Where to write the addresses as JSON.
    pub report: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options { data: None, port: 8080, database: None, broker: None, report: None }
    }
}

/// How much is ordered, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Host and port of the gateway.
    pub gateway: String,
    /// For how long orders are placed.
    pub seconds: u64,
    /// How many orders each customer places at most.
    pub orders: usize,
    /// How many customers order at the same time.
    pub customers: usize,
    /// Whether customers also look at products and at what they have ordered.
    pub browse: bool,
    /// Whether answers may be failures, as where services are killed meanwhile.
    pub faults: bool,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            gateway: "127.0.0.1:8080".to_owned(),
            seconds: 10,
            orders: usize::MAX,
            customers: 8,
            browse: false,
            faults: false,
        }
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// One line that names the wrong option and says what is right.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut args = args.into_iter().peekable();
    if let Some(command) = args.next_if(|arg| ["ops", "saga", "dlq"].contains(&arg.as_str())) {
        let request = operate::parse(&command, args)?;
        return Ok(request.map_or(Command::Help(operate::HELP), Command::Operate));
    }
    let verb = args.next_if(|arg| ["smoke", "load"].contains(&arg.as_str()));
    let (mut options, mut load) = (Options::default(), Load::default());
    let mut gateway = None;
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value = |what: &str| {
            inline.clone().or_else(|| args.next()).ok_or_else(|| format!("{name} needs {what}"))
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(Command::Help(HELP)),
            "--data" => options.data = Some(value("a folder")?.into()),
            "--port" => {
                let text = value("a port")?;
                options.port = text
                    .parse()
                    .map_err(|_| format!("--port is a number from 0 to 65535, not `{text}`"))?;
                if options.port > u16::MAX - ADMIN_OFFSET - 10 {
                    return Err(format!("--port {text} leaves no room for the admin ports"));
                }
            }
            "--database" => {
                options.database = Some(url(&value("a URL")?, &["postgres", "postgresql"])?);
            }
            "--broker" => options.broker = Some(url(&value("a URL")?, &["nats", "tls"])?),
            "--gateway" => gateway = Some(address(&value("host:port")?)?),
            "--seconds" => load.seconds = number(&name, &value("a number")?, 1..=86_400)?,
            "--orders" => load.orders = number(&name, &value("a number")?, 1..=usize::MAX)?,
            "--browse" => load.browse = true,
            "--faults" => load.faults = true,
            "--customers" => load.customers = number(&name, &value("a number")?, 1..=1_000)?,
            "--report" => options.report = Some(value("a file")?.into()),
            _ => return Err(format!("unknown option `{name}`; --help lists the options")),
        }
    }
    let (asks_where, loads) = (gateway.is_some(), load != Load::default());
    match verb.as_deref() {
        Some("load") if options == Options::default() => {
            load.gateway = gateway.unwrap_or(load.gateway);
            Ok(Command::Load(load))
        }
        Some("load") => {
            Err("load takes --gateway, --seconds, --orders, --customers, --browse and --faults"
                .to_owned())
        }
        _ if loads => {
            Err("--seconds, --orders, --customers, --browse and --faults belong to load".to_owned())
        }
        Some(_) => match gateway {
            Some(gateway) if options == Options::default() => Ok(Command::Visit(gateway)),
            Some(_) => Err("smoke with --gateway takes nothing else".to_owned()),
            None if options.port != Options::default().port || options.report.is_some() => {
                Err("smoke chooses its ports and its report itself".to_owned())
            }
            None => Ok(Command::Smoke(options)),
        },
        None if asks_where => Err("--gateway belongs to smoke and load".to_owned()),
        None => Ok(Command::Up(options)),
    }
}

/// How far the first admin port is from the gateway's.
pub const ADMIN_OFFSET: u16 = 1010;

fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err(format!("`{text}` is not host:port")),
    }
}

fn number<T>(name: &str, text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        format!("{name} is a number from {} to {}, not `{text}`", range.start(), range.end())
    })
}

fn url(text: &str, schemes: &[&str]) -> Result<String, String> {
    match text.split_once("://") {
        Some((scheme, rest)) if schemes.contains(&scheme) && !rest.is_empty() => {
            Ok(text.to_owned())
        }
        _ => Err(format!("`{text}` is not a URL that begins with {}://", schemes[0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_options_are_read() {
        assert_eq!(read(""), Ok(Command::Up(Options::default())));
        assert_eq!(read("smoke --help"), Ok(Command::Help(HELP)));
        assert_eq!(read("saga"), Ok(Command::Help(operate::HELP)));
        assert_eq!(read("smoke --gateway h:1"), Ok(Command::Visit("h:1".to_owned())));
        let load = Load { gateway: "h:1".to_owned(), customers: 3, ..Load::default() };
        assert_eq!(read("load --gateway h:1 --customers 3"), Ok(Command::Load(load)));
        let options = Options {
            data: Some("/tmp/x".into()),
            broker: Some("nats://h:1".to_owned()),
            ..Options::default()
        };
        assert_eq!(
            read("smoke --data /tmp/x --broker nats://h:1"),
            Ok(Command::Smoke(options.clone()))
        );
        assert_eq!(
            read("--data=/tmp/x --port=0 --broker nats://h:1"),
            Ok(Command::Up(Options { port: 0, ..options }))
        );
    }

    #[test]
    fn wrong_options_are_refused_with_what_is_right() {
        for (line, says) in [
            ("--prot 1", "`--prot`"),
            ("--port", "needs a port"),
            ("--port x", "not `x`"),
            ("--port 65000", "no room"),
            ("--database mysql://h/d", "postgres://"),
            ("smoke up", "`up`"),
            ("smoke --port 0", "itself"),
            ("smoke --gateway h", "host:port"),
            ("smoke --gateway h:1 --data x", "nothing else"),
            ("--gateway h:1", "belongs to smoke and load"),
            ("--seconds 3", "belong to load"),
            ("load --seconds 0", "from 1 to 86400"),
            ("load --data x", "load takes"),
            ("ops --prot", "`--prot`"),
        ] {
            let problem = read(line).unwrap_err();
            assert!(problem.contains(says), "{line}: {problem}");
        }
    }
}
