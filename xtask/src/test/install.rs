//! Finds the servers' programs, and installs them where that is allowed.
//!
//! Debian keeps PostgreSQL's programs outside PATH, a folder per major version.
//! Installing is a change to the machine, so it is done only where it is
//! harmless and expected: by root on Debian, typically in a container. All
//! others are told in one line what to install.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Failure;
use crate::process::{End, Runner};

/// A program that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    /// The programs that must stand in one folder.
    programs: &'static [&'static str],
    /// The Debian package.
    package: &'static str,
    /// The variable that names a server which runs already, where one is used.
    variable: Option<&'static str>,
}

impl Binary {
    /// Counts instructions.
    pub(crate) const VALGRIND: Self =
        Self { programs: &["valgrind"], package: "valgrind", variable: None };
    /// HTTP/2 load.
    pub(crate) const H2LOAD: Self =
        Self { programs: &["h2load"], package: "nghttp2-client", variable: None };
    pub(super) const POSTGRES: Self = Self {
        programs: &["postgres", "initdb"],
        package: "postgresql",
        variable: Some("DATABASE_URL"),
    };
    pub(super) const NATS: Self =
        Self { programs: &["nats-server"], package: "nats-server", variable: Some("NATS_URL") };
    /// Started by the tests themselves, which also stop it.
    pub(super) const ETCD: Self =
        Self { programs: &["etcd"], package: "etcd-server", variable: None };

    /// One line that says how to get it.
    pub(super) fn advice(&self) -> String {
        let or_set = self.variable.map(|name| format!(" or set {name}")).unwrap_or_default();
        format!(
            "`{}` is missing: install it (on Debian: apt-get install {}){or_set}",
            self.programs[0], self.package
        )
    }
}

/// The folder that holds the binary's programs.
pub(super) fn find(binary: &Binary) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    // An account's PATH often lacks the folders for system programs.
    folders.extend(["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from));
    folders.extend(versions(Path::new("/usr/lib/postgresql")));
    find_in(binary, folders)
}

fn find_in(binary: &Binary, folders: Vec<PathBuf>) -> Option<PathBuf> {
    let holds_all =
        |folder: &PathBuf| binary.programs.iter().all(|name| folder.join(name).is_file());
    folders.into_iter().find(holds_all)
}

/// The `bin` folders of all versions, newest first.
fn versions(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, path)| path).collect()
}

/// Makes sure that all are there: installs what is missing if it may, else says
/// what to install.
pub(crate) fn ensure(wanted: &[Binary], runner: &mut Runner) -> Result<(), Failure> {
    let missing: Vec<&Binary> = wanted.iter().filter(|binary| find(binary).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let advice = |missing: &[&Binary]| {
        let lines: Vec<String> = missing.iter().map(|binary| binary.advice()).collect();
        Failure::Failed(lines.join("; "))
    };
    if !may_install() {
        return Err(advice(&missing));
    }
    let packages: Vec<&str> = missing.iter().map(|binary| binary.package).collect();
    install(&packages, runner)?;
    let missing: Vec<&Binary> = missing.into_iter().filter(|b| find(b).is_none()).collect();
    if missing.is_empty() { Ok(()) } else { Err(advice(&missing)) }
}

/// Whether this is root on Debian.
pub(crate) fn may_install() -> bool {
    Path::new("/etc/debian_version").exists() && rustix::process::geteuid().is_root()
}

/// Installs packages of the distribution.
pub(crate) fn install(packages: &[&str], runner: &mut Runner) -> Result<(), Failure> {
    eprintln!("    installing: {}", packages.join(" "));
    apt_get(&["update"], &[], runner)?;
    apt_get(&["install", "-y", "--no-install-recommends"], packages, runner)
}

fn apt_get(args: &[&str], packages: &[&str], runner: &mut Runner) -> Result<(), Failure> {
    let shown = format!("apt-get {}", [args, packages].concat().join(" "));
    eprintln!("    $ {shown}");
    let mut command = Command::new("apt-get");
    command
        .arg("-qq")
        .args(args)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // The packages start a service of their own on install; in run level 1
        // (single user) Debian's `invoke-rc.d` leaves it stopped.
        .env("RUNLEVEL", "1");
    match runner.run(&mut command) {
        Ok(End::Exited(status)) if status.success() => Ok(()),
        Ok(End::Exited(status)) => Err(Failure::Failed(format!("`{shown}`: {status}"))),
        Ok(End::Interrupted) => Err(Failure::Interrupted),
        Err(error) => Err(Failure::Failed(format!("`{shown}` does not start: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_programs_must_stand_in_one_folder() {
        let root = tempfile::tempdir().unwrap();
        let [half, whole] = ["half", "whole"].map(|name| root.path().join(name));
        for folder in [&half, &whole] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("postgres"), "").unwrap();
        }
        let folders = vec![half, whole.clone()];
        assert_eq!(find_in(&Binary::POSTGRES, folders.clone()), None);
        fs::write(whole.join("initdb"), "").unwrap();
        assert_eq!(find_in(&Binary::POSTGRES, folders), Some(whole));
    }

    #[test]
    fn the_newest_version_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "15", "16", "common"] {
            fs::create_dir(root.path().join(version)).unwrap();
        }
        let expected = ["16", "15", "9"].map(|version| root.path().join(version).join("bin"));
        assert_eq!(versions(root.path()), expected);
        assert!(versions(&root.path().join("none")).is_empty());
    }

    #[test]
    fn advice_names_program_package_and_variable() {
        let advice = Binary::POSTGRES.advice();
        for word in ["`postgres`", "apt-get install postgresql", "DATABASE_URL"] {
            assert!(advice.contains(word), "{advice}");
        }
        assert!(Binary::ETCD.advice().ends_with("apt-get install etcd-server)"));
    }
}
