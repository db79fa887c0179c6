//! What the programs that measure have in common: slices that alternate, the middle one, and
//! a line for each figure.
//!
//! A number alone says more about the machine than about the code, so each stands beside an
//! anchor of the same run. What is compared takes turns in short slices, so that other work
//! on the machine meets all of it, and the median of the slices counts.
//!
//! Only the standard library is used: `chassis-resilience`, which stands below this crate,
//! takes the file in by its path.
#![allow(clippy::print_stdout, reason = "the figures are the output")]

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// One figure beside its anchor.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name.
    pub bench: String,
    /// What was measured, in `unit`.
    pub value: f64,
    /// The unit of both values.
    pub unit: &'static str,
    /// What it stands beside.
    pub anchor: &'static str,
    /// What that took in the same run.
    pub anchor_value: f64,
}

impl Figure {
    /// A figure.
    pub fn new(
        bench: impl Into<String>,
        value: f64,
        unit: &'static str,
        anchor: &'static str,
        anchor_value: f64,
    ) -> Figure {
        Figure { bench: bench.into(), value, unit, anchor, anchor_value }
    }

    /// `value` by `anchor_value`.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.value / self.anchor_value
    }

    /// A JSON object in one line: `bench`, `value`, `unit`, `anchor`, `anchor_value`,
    /// `ratio`. A number that is none, such as a ratio to zero, is `null`.
    #[must_use]
    pub fn json(&self) -> String {
        let Figure { bench, value, unit, anchor, anchor_value } = self;
        format!(
            "{{\"bench\":{},\"value\":{},\"unit\":{},\"anchor\":{},\"anchor_value\":{},\
             \"ratio\":{}}}",
            quoted(bench),
            rounded(*value),
            quoted(unit),
            quoted(anchor),
            rounded(*anchor_value),
            rounded(self.ratio()),
        )
    }

    /// A row of a table for people.
    #[must_use]
    pub fn row(&self) -> String {
        let Figure { bench, value, unit, anchor, anchor_value } = self;
        let ratio = self.ratio();
        format!(
            "{bench:<34} {value:>12.2} {anchor_value:>12.2} {ratio:>8.3}  {unit}; beside: {anchor}"
        )
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Three decimals: more would be noise.
fn rounded(number: f64) -> String {
    if !number.is_finite() {
        return "null".to_owned();
    }
    let text = format!("{number:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Which figures are asked for, and how they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    json: bool,
    names: Vec<String>,
    flags: Vec<String>,
}

impl Asked {
    /// Reads `[--json] [FLAG...] [NAME...]`: a name stands for the figures that begin with it.
    /// `flags` are further options that the program knows.
    ///
    /// # Errors
    /// What is wrong, for the user.
    pub fn parse(args: impl IntoIterator<Item = String>, flags: &[&str]) -> Result<Asked, String> {
        let mut asked = Asked::default();
        for arg in args {
            match arg.as_str() {
                "--json" => asked.json = true,
                flag if flags.contains(&flag) => asked.flags.push(arg),
                option if option.starts_with('-') => {
                    return Err(format!("unknown option `{option}`; there are --json {flags:?}"));
                }
                _ => asked.names.push(arg),
            }
        }
        Ok(asked)
    }

    /// Refuses a name with which none of the figures begins.
    ///
    /// # Errors
    /// The name, for the user.
    pub fn check(&self, figures: &[&str]) -> Result<(), String> {
        let unknown = |name: &&String| !figures.iter().any(|all| all.starts_with(name.as_str()));
        match self.names.iter().find(unknown) {
            Some(name) => Err(format!("no figure begins with `{name}`; there are {figures:?}")),
            None => Ok(()),
        }
    }

    /// Whether this figure is asked for.
    #[must_use]
    pub fn wants(&self, figure: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| figure.starts_with(name.as_str()))
    }

    /// Whether this flag was given.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// Prints what stands above the figures, where people read them.
    pub fn print_head(&self) {
        if !self.json {
            println!("{:<34} {:>12} {:>12} {:>8}", "figure", "value", "anchor", "ratio");
        }
    }

    /// Prints a figure.
    pub fn print(&self, figure: &Figure) {
        println!("{}", if self.json { figure.json() } else { figure.row() });
    }
}

/// Measures `N` candidates in turn, `rounds` times, after one round that does not count:
/// it opens connections and fills caches. Gives the values of each candidate.
///
/// Dropping the future ends the measuring.
///
/// # Errors
/// The first that a candidate gives.
pub async fn alternate<const N: usize, E>(
    rounds: usize,
    mut measure: impl AsyncFnMut(usize) -> Result<f64, E>,
) -> Result<[Vec<f64>; N], E> {
    let mut values = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for (candidate, values) in values.iter_mut().enumerate() {
            let value = measure(candidate).await?;
            if round > 0 {
                values.push(value);
            }
        }
    }
    Ok(values)
}

/// The middle one; of an even number the upper of the two. Not a number where there is none.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The number that this share of all, from 0 to 1, does not exceed. Not a number where there
/// is none.
#[must_use]
pub fn percentile(numbers: &mut [f64], share: f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let index = (numbers.len() as f64 * share) as usize;
    numbers.get(index.min(numbers.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// CPU time of this thread so far, in nanoseconds; Linux counts it for each thread.
///
/// # Errors
/// Where `/proc` does not tell it.
pub fn thread_cpu() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_whitespace().next().and_then(|first| first.parse().ok());
    first.ok_or_else(|| io::Error::other("no CPU time in schedstat"))
}

/// The servers that are called, in a process of their own, so that their CPU time is not
/// the caller's: this program with the one argument `serve`. Dropping it ends them.
#[derive(Debug)]
pub struct Callees {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl Callees {
    /// Starts this program again, and reads `count` addresses, a line each, from its output.
    ///
    /// # Errors
    /// Where it does not start, or says something else.
    pub fn start(count: usize) -> io::Result<Callees> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let lines = BufReader::new(output).lines().take(count);
        let addresses = lines.map(|line| line?.parse().map_err(io::Error::other));
        let addresses = addresses.collect::<io::Result<_>>()?;
        Ok(Callees { child, addresses })
    }

    /// Where they listen.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// For the other process: returns when this one is gone. It blocks its thread.
    pub fn until_orphaned() {
        // The parent holds the other end; what comes is of no interest.
        let _ = io::stdin().lines().count();
    }
}

impl Drop for Callees {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_a_line_of_json() {
        let figure = Figure::new("calls_1", 1234.56789, "us", "a \"bare\" one", 2.0);
        assert_eq!(
            figure.json(),
            r#"{"bench":"calls_1","value":1234.568,"unit":"us","anchor":"a \"bare\" one","anchor_value":2,"ratio":617.284}"#
        );
        let none = Figure { anchor_value: 0.0, ..figure };
        assert!(none.json().ends_with(r#""anchor_value":0,"ratio":null}"#), "{}", none.json());
    }

    #[test]
    fn names_are_beginnings_and_wrong_ones_are_refused() {
        let parse =
            |args: &[&str]| Asked::parse(args.iter().map(|&arg| arg.to_owned()), &["--full"]);
        let asked = parse(&["--json", "calls", "--full"]).unwrap();
        assert!(asked.wants("calls_1") && !asked.wants("other") && asked.has("--full"));
        assert_eq!(asked.check(&["calls_1", "other"]), Ok(()));
        assert!(asked.check(&["other"]).unwrap_err().contains("`calls`"));
        assert!(parse(&[]).unwrap().wants("anything"));
        assert!(parse(&["--fast"]).unwrap_err().contains("`--fast`"));
    }

    #[tokio::test]
    async fn candidates_take_turns_and_the_first_round_does_not_count() {
        let mut turns = Vec::new();
        let [a, b] = alternate::<2, ()>(2, async |candidate| {
            turns.push(candidate);
            Ok(turns.len() as f64)
        })
        .await
        .unwrap();
        assert_eq!((turns, a, b), (vec![0, 1, 0, 1, 0, 1], vec![3.0, 5.0], vec![4.0, 6.0]));
    }

    #[test]
    fn medians_and_percentiles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
        let mut numbers: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&mut numbers, 0.5), percentile(&mut numbers, 1.0)), (51.0, 100.0));
    }
}
