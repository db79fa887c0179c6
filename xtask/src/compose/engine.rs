//! The container engine, spoken to by its own commands.
//!
//! Compose is `docker compose` where the engine has it, and `docker-compose` otherwise:
//! Debian's is 1.29, and the compose file has to work with both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{self, End, Runner};
use crate::test::Failure;

/// The project's containers, networks and volumes carry this name.
pub(super) const PROJECT: &str = "shop-compose-test";

/// How long the engine may take for one thing that is not to be interrupted: stopping
/// everything takes as long as the slowest service may drain.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take to say that it is there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// An engine that answers.
pub(super) struct Engine {
    root: PathBuf,
    compose: Vec<&'static str>,
    /// What the compose file's variables are set to.
    variables: Vec<(&'static str, String)>,
}

impl Engine {
    /// The engine of this machine, or one line that says why there is none.
    pub(super) fn find(root: &Path) -> Result<Engine, String> {
        let answers = |program: &str, args: &[&str]| {
            process::output(Command::new(program).args(args), ANSWERS_WITHIN)
                .is_ok_and(|output| output.status.success())
        };
        if !answers("docker", &["version"]) {
            return Err("no Docker engine answers here".to_owned());
        }
        let compose = if answers("docker", &["compose", "version"]) {
            vec!["docker", "compose"]
        } else if answers("docker-compose", &["version"]) {
            vec!["docker-compose"]
        } else {
            return Err("the Docker engine has no Compose: install docker-compose".to_owned());
        };
        Ok(Engine { root: root.to_path_buf(), compose, variables: Vec::new() })
    }

    /// Sets a variable of the compose file.
    pub(super) fn set(&mut self, name: &'static str, value: String) {
        self.variables.push((name, value));
    }

    /// `docker ARGS`; gives what it printed.
    pub(super) fn docker(&self, args: &[&str]) -> Result<String, Failure> {
        output(Command::new("docker").args(args), &format!("docker {}", args.join(" ")))
    }

    /// What a container said, on both streams.
    pub(super) fn logs(&self, container: &str) -> Result<String, Failure> {
        let mut command = Command::new("sh");
        command.args(["-c", "exec docker logs \"$0\" 2>&1", container]);
        output(&mut command, &format!("docker logs {container}"))
    }

    /// `docker compose ARGS`, its output where ours goes.
    pub(super) fn compose(&self, args: &[&str], runner: &mut Runner) -> Result<(), Failure> {
        println!("    $ {} {}", self.compose.join(" "), args.join(" "));
        run(&mut self.compose_command(args), "compose", runner)
    }

    /// `docker compose ARGS`, not to be interrupted; gives what it printed.
    pub(super) fn compose_quietly(&self, args: &[&str]) -> Result<String, Failure> {
        output(&mut self.compose_command(args), &format!("compose {}", args.join(" ")))
    }

    fn compose_command(&self, args: &[&str]) -> Command {
        let deploy = self.root.join("examples/shop/deploy");
        let mut command = Command::new(self.compose[0]);
        command
            .args(&self.compose[1..])
            .arg("--env-file")
            .arg(deploy.join(".env.example"))
            .arg("--file")
            .arg(deploy.join("compose.yaml"))
            .args(["--project-name", PROJECT])
            .args(args)
            // Debian's Compose asks for a plug-in that its engine does not have.
            .env("DOCKER_BUILDKIT", "0")
            .env("COMPOSE_DOCKER_CLI_BUILD", "0");
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }

    /// Where this machine reaches a published port.
    pub(super) fn port(&self, service: &str, port: &str) -> Result<u16, Failure> {
        let address = self.compose_quietly(&["port", service, port])?;
        let port = address.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        port.ok_or_else(|| Failure::Failed(format!("{service} publishes no port: {address}")))
    }

    /// The containers of a service, by id, also those that do not run. By the labels that every
    /// Compose gives them: 1.29 itself takes half a second to say it.
    pub(super) fn containers(&self, service: &str) -> Result<Vec<String>, Failure> {
        let project = format!("label=com.docker.compose.project={PROJECT}");
        let service = format!("label=com.docker.compose.service={service}");
        let ids =
            self.docker(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service])?;
        Ok(ids.lines().map(str::to_owned).collect())
    }

    /// One field of a container, by a Go template.
    pub(super) fn inspect(&self, container: &str, template: &str) -> Result<String, Failure> {
        Ok(self.docker(&["inspect", "--format", template, container])?.trim().to_owned())
    }
}

/// Runs a command to its end, its output where ours goes.
pub(super) fn run(command: &mut Command, name: &str, runner: &mut Runner) -> Result<(), Failure> {
    match runner.run(command) {
        Ok(End::Exited(status)) if status.success() => Ok(()),
        Ok(End::Exited(status)) => Err(Failure::Failed(format!("`{name}`: {status}"))),
        Ok(End::Interrupted) => Err(Failure::Interrupted),
        Err(error) => Err(Failure::Failed(format!("`{name}` does not start: {error}"))),
    }
}

fn output(command: &mut Command, shown: &str) -> Result<String, Failure> {
    let output = process::output(command, PATIENCE)
        .map_err(|error| Failure::Failed(format!("`{shown}`: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let problem = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Failed(format!("`{shown}`: {}: {}", output.status, problem.trim())))
}
