//! The life of a service's process, from its arguments to its exit code.
//!
//! A process that cannot start has no log yet: its last words go to standard error. Nothing
//! here uses `println!` or `eprintln!`, which panic where the stream is closed or full.

use std::{
    fmt::Display,
    future::Future,
    io::{self, Write},
    time::Duration,
};

use chassis_core::{
    App, Code, CoreConfig, Env, Error, Result, ServiceInfo,
    config::{Loaded, Loader, Settings},
    shutdown,
    telemetry::Telemetry,
};
use chassis_http::Admin;
use serde::{Deserialize, Serialize};

use crate::{
    Exit,
    cli::{self, Action},
    probe,
    pulse::Pulse,
};

/// How long blocked threads are waited for after the end.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// The settings of a service that names none of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DefaultConfig {
    /// The HTTP server, where the service has one.
    pub http: chassis_http::ServerConfig,
    /// The gRPC server, where the service has one.
    #[cfg(feature = "grpc")]
    pub grpc: chassis_grpc::ServerConfig,
}

/// Runs a service: the whole `main`.
///
/// Reads options and settings, installs telemetry, lets `assemble` add components to an
/// [`App`] that has the admin port already, and runs it until SIGTERM or Ctrl-C, which also
/// end an `assemble` that still waits. Wrong options or settings end it with 64 before any
/// port is bound; a failure with 1 and one line on standard error that names its cause.
///
/// ```no_run
/// # fn router() -> axum::Router { axum::Router::new() }
/// fn main() -> chassis::Exit {
///     chassis::run(chassis::service_info!(), |app, config: chassis::DefaultConfig| async move {
///         Ok(app.with(chassis::http::Server::new(&config.http, router())))
///     })
/// }
/// ```
pub fn run<C, F, Fut>(info: ServiceInfo, assemble: F) -> Exit
where
    C: Settings,
    F: FnOnce(App, C) -> Fut,
    Fut: Future<Output = Result<App>>,
{
    let options = match cli::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            complain(&info.name, problem);
            return Exit::Usage;
        }
    };
    let mut loader = Loader::new();
    match options.action {
        // Help shows the defaults, whatever is set.
        Action::Help => {}
        Action::Version => {
            return answer(&info.name, &format!("{} {}\n", info.name, info.version));
        }
        _ => {
            loader = loader.env(std::env::vars_os());
            if let Some(path) = &options.config {
                loader = loader.file(path);
            }
        }
    }
    let loaded: Loaded<C> = match loader.load() {
        Ok(loaded) => loaded,
        Err(error) => {
            for problem in error.problems() {
                complain(&info.name, problem);
            }
            return Exit::Usage;
        }
    };
    match options.action {
        Action::Help => answer(&info.name, &cli::help(&info, &loaded.entries)),
        Action::PrintConfig => answer(&info.name, &cli::print_config(&loaded.entries)),
        Action::Probe(name) => match probe::ask(&loaded.core.admin, name) {
            Ok(()) => Exit::Success,
            Err(problem) => {
                complain(&info.name, problem);
                Exit::Failure
            }
        },
        action => serve(info, loaded, assemble, &action),
    }
}

fn serve<C, F, Fut>(mut info: ServiceInfo, loaded: Loaded<C>, assemble: F, action: &Action) -> Exit
where
    F: FnOnce(App, C) -> Fut,
    Fut: Future<Output = Result<App>>,
{
    if let Some(name) = &loaded.core.service.name {
        info.name = name.clone().into();
    }
    let name = info.name.clone();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&name, format_args!("the runtime cannot start: {error}"));
            return Exit::Failure;
        }
    };
    let pulse = Pulse::start(runtime.handle().clone());
    let outcome = runtime.block_on(live(info, loaded, assemble, action));
    drop(pulse);
    // What blocks a thread, such as a name look-up, is not waited for until it ends.
    runtime.shutdown_timeout(LEFTOVERS);
    match outcome {
        Ok(exit) => exit,
        Err(Failed { error, exit }) => {
            complain(&name, error.chain());
            exit
        }
    }
}

/// A failure, and how the process ends by it.
struct Failed {
    error: Error,
    exit: Exit,
}

/// Before the service runs: settings that cannot work are found by the parts that they
/// belong to.
impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        let usage = error.code() == Code::InvalidArgument;
        Failed { error, exit: if usage { Exit::Usage } else { Exit::Failure } }
    }
}

async fn live<C, F, Fut>(
    info: ServiceInfo,
    loaded: Loaded<C>,
    assemble: F,
    action: &Action,
) -> Result<Exit, Failed>
where
    F: FnOnce(App, C) -> Fut,
    Fut: Future<Output = Result<App>>,
{
    // Dropped on every way out, and with that flushed.
    let telemetry = Telemetry::install(&loaded.core.telemetry)?;
    let (name, log) = (info.name.clone(), telemetry.log());
    let env = telemetry.env(info);
    let caller = name.clone();
    let goodbye = move |signal| match signal {
        1 => tracing::info!("a signal asks for the end; a second one ends at once"),
        _ => {
            complain(&caller, "second signal: ending at once");
            log.flush();
        }
    };
    // Before anything takes long: the first process of a container has no other way to end.
    let timeout = loaded.core.shutdown.timeout;
    let shutdown = env
        .scope(async { shutdown::on_signal(timeout, goodbye) })
        .await
        .map_err(Error::internal)?;
    let base = base_app(&loaded.core, env.clone());
    let app = tokio::select! {
        app = env.scope(assemble(base, loaded.settings)) => app?,
        () = shutdown.requested() => return Ok(Exit::Success),
    };
    app.validate()?;
    if *action == Action::Check {
        return Ok(answer(&name, &app.plan().to_string()));
    }
    match app.run(shutdown).await {
        Ok(()) => Ok(Exit::Success),
        // Whatever its code: the settings were found good.
        Err(error) => Err(Failed { error, exit: Exit::Failure }),
    }
}

/// Prints what was asked for.
fn answer(service: &str, text: &str) -> Exit {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Exit::Success,
        // The reader has seen enough, as `head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
        Err(error) => {
            complain(service, format_args!("cannot write to standard output: {error}"));
            Exit::Failure
        }
    }
}

/// Says what is wrong in one line; where nobody can hear it, the exit code still does.
fn complain(service: &str, problem: impl Display) {
    let _ = writeln!(io::stderr(), "{service}: {problem}");
}

/// An app with what every service has: the admin port, first to start and last to stop, and
/// the drain delay. [`run`] begins with it; so does whoever runs several services in one
/// process.
#[must_use]
pub fn base_app(core: &CoreConfig, env: Env) -> App {
    App::new(env).with_shutdown(&core.shutdown).with(Admin::new(&core.admin))
}
