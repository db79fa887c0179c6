//! `cargo xtask torture`: copies of a service, faults at random, and the auditor's verdict.
//!
//! It starts PostgreSQL and NATS of its own, since it kills them, and says what it does as
//! it goes. The same seed gives the same faults at the same times; what they hit depends on
//! the machine.
#![allow(clippy::print_stdout, reason = "a command talks to the person who typed it")]

mod alerts;
mod copy;
mod freeze;
mod inflict;
mod options;
mod plan;
mod stream;
mod system;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Duration;

use chassis_tests::torture::{Auditor, Report};
use futures_util::FutureExt;
use tokio::time::Instant;

use options::{HELP, Options};
use plan::Plan;
use system::System;

/// Between two looks at what is left to do then.
const LOOK: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(&args) {
        Ok(options) => options,
        Err(problem) => {
            println!("torture: {problem}\n\n{HELP}");
            return ExitCode::from(64);
        }
    };
    // The servers of the tests panic where they do not start: that must not look like an end.
    let report = match AssertUnwindSafe(torture(&options)).catch_unwind().await {
        Ok(Ok(report)) => report,
        Ok(Err(failure)) => return no_verdict(&failure.to_string(), &options),
        Err(_) => return no_verdict("the runner panicked, see above", &options),
    };
    print!("{report}");
    if report.violations.is_empty() {
        println!("verdict: clean (seed {})", options.seed);
        return ExitCode::SUCCESS;
    }
    println!("verdict: {} violations; again: {options}", report.violations.len());
    ExitCode::FAILURE
}

fn no_verdict(why: &str, options: &Options) -> ExitCode {
    println!("torture: {why}\nno verdict; again: {options}");
    ExitCode::FAILURE
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn torture(options: &Options) -> Result<Report, Failure> {
    println!("seed {}: {options}", options.seed);
    let mut system = System::start(options).await?;
    let mut plan = Plan::new(options);
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(options.minutes * 60.0);
    let mut at = begin;
    loop {
        let (pause, fault) = plan.next();
        at += pause;
        if at >= end {
            break;
        }
        system.run_until(at).await?;
        system.inflict(fault).await?;
    }
    system.run_until(end).await?;
    system.heal().await?;
    let healed = Instant::now();
    let auditor = system.auditor();
    let report =
        settle(&mut system, &auditor, healed + Duration::from_secs_f64(options.within)).await?;
    println!(
        "all work {} {:.1} s after the last fault",
        if report.backlog() == 0 { "was done" } else { "was NOT done" },
        healed.elapsed().as_secs_f64()
    );
    // A moment more: what should not come again has time to.
    system.run_until(Instant::now() + Duration::from_secs(2)).await?;
    let report = system.complete(auditor.audit().await?);
    println!("{}", system.tally());
    system.end(report.violations.is_empty()).await;
    Ok(report)
}

/// Waits until nothing is left to do, and says how much there still is.
async fn settle(system: &mut System, auditor: &Auditor, end: Instant) -> Result<Report, Failure> {
    loop {
        let late = Instant::now() >= end;
        match auditor.audit().await {
            Ok(report) if report.backlog() == 0 || late => return Ok(report),
            Ok(report) => system.say(&format!("{} things are left to do", report.backlog())),
            Err(failure) if late => return Err(failure),
            Err(failure) => system.say(&format!("the auditor cannot look yet: {failure}")),
        }
        // Who ends by itself is started again, now too.
        system.run_until((Instant::now() + LOOK).min(end)).await?;
    }
}
