//! The options that every service has.
//!
//! Four words do not need a parser crate; what they print is part of the promise.

use std::{ffi::OsString, fmt::Write as _, path::PathBuf};

use chassis_core::{ServiceInfo, config::Entry};

use crate::probe::PROBES;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Run,
    Check,
    PrintConfig,
    /// Ask the running service this one of the [`PROBES`].
    Probe(&'static str),
    Help,
    Version,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub action: Action,
    pub config: Option<PathBuf>,
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, String> {
    let mut options = Options { action: Action::Run, config: None };
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        // Only the path of a file may be something else than Unicode.
        let arg = arg.to_string_lossy();
        match &*arg {
            "--config" => match args.next() {
                Some(path) => options.config = Some(path.into()),
                None => return Err("--config needs the path of a TOML file".to_owned()),
            },
            "--check" => options.action = Action::Check,
            "--print-config" => options.action = Action::PrintConfig,
            "--probe" => {
                let named = |arg: &OsString| PROBES.into_iter().find(|probe| arg == probe);
                let probe = args.peek().and_then(named);
                if probe.is_some() {
                    args.next();
                }
                options.action = Action::Probe(probe.unwrap_or(PROBES[0]));
            }
            "--help" | "-h" => options.action = Action::Help,
            "--version" | "-V" => options.action = Action::Version,
            other => return Err(format!("unknown option `{other}`; --help lists the options")),
        }
    }
    Ok(options)
}

pub(crate) fn help(info: &ServiceInfo, entries: &[Entry]) -> String {
    let mut text = format!(
        "{name} {version}

Usage: {name} [--config FILE] [--check | --print-config | --probe | --help | --version]

  --config FILE    read settings from this TOML file; the environment wins over it
  --check          check the settings, open what the service needs (its database, its
                   broker), print the plan, and exit without listening
  --print-config   print every setting with its origin, secrets masked
  --probe [PROBE]  ask the running service at its admin port, and exit with 0 if it is
                   well: readyz (default), livez or startupz; for containers
  --help           print this
  --version        print name and version

Settings, in a file as [section] key, in the environment as SECTION__KEY;
NAME_FILE reads the value from a file:

",
        name = info.name,
        version = info.version
    );
    for Entry { key, value, .. } in entries {
        let name = key.to_uppercase().replace('.', "__").replace('-', "_");
        let _ = writeln!(text, "  {name:<36}  {value}");
    }
    text
}

pub(crate) fn print_config(entries: &[Entry]) -> String {
    let width = entries.iter().map(|entry| entry.key.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Entry { key, value, origin } in entries {
        let _ = writeln!(text, "{key:<width$} = {value}  # {origin}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Options, String> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn options_are_read_and_wrong_ones_refused() {
        assert_eq!(read(&[]), Ok(Options { action: Action::Run, config: None }));
        let both = read(&["--config", "a.toml", "--print-config"]);
        assert_eq!(
            both,
            Ok(Options { action: Action::PrintConfig, config: Some("a.toml".into()) })
        );
        for (args, probe) in
            [(&["--probe"][..], "readyz"), (&["--probe", "livez", "--config", "a.toml"], "livez")]
        {
            assert_eq!(read(args).map(|options| options.action), Ok(Action::Probe(probe)));
        }
        assert!(read(&["--probe", "healthz"]).is_err_and(|error| error.contains("`healthz`")));
        assert!(read(&["--config"]).is_err());
        assert!(read(&["--prot", "1"]).is_err_and(|error| error.contains("`--prot`")));
    }

    #[cfg(unix)]
    #[test]
    fn an_argument_that_is_not_unicode_is_a_path_or_refused() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(vec![b'a', 0xff]);
        let options = parse(["--config".into(), odd.clone()]).unwrap();
        assert_eq!(options.config, Some(odd.clone().into()));
        assert!(parse([odd]).is_err_and(|error| error.contains("unknown option `a")));
    }
}
