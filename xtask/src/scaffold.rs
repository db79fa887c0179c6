//! `cargo xtask new`: a service to begin with, from `templates/service`.
//!
//! The template is a folder with three places to fill, in the notation of `cargo generate`,
//! so that both make the same service and neither needs the other. What this command adds:
//! it knows where the crates are, and it copies the lock file, so that the new service
//! builds with the versions that this repository is tested with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the command line of `new` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The name of the service and its package.
    pub name: String,
    /// The folder to make; `./<name>` if not given.
    pub path: Option<PathBuf>,
}

impl Options {
    /// Reads the options after `new`.
    ///
    /// # Errors
    /// What is wrong with them, for the user.
    pub fn parse(args: &[&str]) -> Result<Self, String> {
        let (mut name, mut path) = (None, None);
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            match arg {
                "--path" => {
                    path = Some(PathBuf::from(args.next().ok_or("`--path` needs a folder")?));
                }
                _ if arg.starts_with('-') => {
                    return Err(format!("unknown option `{arg}` of `new`"));
                }
                _ if name.is_some() => return Err(format!("`{arg}` is one name too many")),
                _ => name = Some(arg.to_owned()),
            }
        }
        let name = name.ok_or("`new` needs the name of the service")?;
        check_name(&name)?;
        Ok(Self { name, path })
    }
}

/// Words that cargo refuses as a package, or that the template's own code needs.
const TAKEN: &[&str] =
    &["test", "core", "std", "alloc", "chassis", "axum", "serde", "uuid", "tokio"];

fn check_name(name: &str) -> Result<(), String> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins || !name.chars().all(letters) || name.ends_with('-') || name.len() > 60 {
        let what = "a name is lower-case letters, digits and hyphens, and begins with a letter";
        return Err(format!("`{name}` cannot be a service: {what}"));
    }
    if TAKEN.contains(&name) {
        return Err(format!("`{name}` is the name of something that the service uses"));
    }
    Ok(())
}

/// Makes the service, says what to do next, and gives the exit code.
pub fn run(root: &Path, options: &Options) -> ExitCode {
    let to = options.path.clone().unwrap_or_else(|| PathBuf::from(&options.name));
    match generate(root, &options.name, &to) {
        Ok(()) => {
            println!("new: {} is in {}\n", options.name, to.display());
            println!("  cd {}\n  cargo test\n  cargo run\n", to.display());
            println!("README.md there says the rest.");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("new: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Makes a service of this name in the folder `to`, which must not exist or be empty.
///
/// # Errors
/// What cannot be read or written, for the user.
pub fn generate(root: &Path, name: &str, to: &Path) -> Result<(), String> {
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} is there already and not empty", to.display()));
    }
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    let chassis = root.to_str().ok_or("the path of this repository is not Unicode")?;
    let places = [
        ("{{project-name}}", name.to_owned()),
        ("{{crate_name}}", name.replace('-', "_")),
        ("{{chassis}}", chassis.to_owned()),
    ];
    copy(&root.join("templates/service"), to, &places)
        .and_then(|()| fs::copy(root.join("Cargo.lock"), to.join("Cargo.lock")).map(drop))
        .map_err(|error| format!("{} cannot be made: {error}", to.display()))
}

fn copy(from: &Path, to: &Path, places: &[(&str, String)]) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "cargo-generate.toml" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(name), places)?;
            continue;
        }
        let text = fs::read_to_string(entry.path())?;
        let text = places.iter().fold(text, |text, (place, value)| text.replace(place, value));
        let target = to.join(name);
        // As `cargo generate` does: it keeps a manifest from being taken for one here.
        let named = target.extension().is_some_and(|extension| extension == "liquid");
        fs::write(if named { target.with_extension("") } else { target }, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    #[test]
    fn options() {
        let parsed = Options::parse(&["--path", "x/y", "my-service"]).unwrap();
        assert_eq!((&*parsed.name, parsed.path), ("my-service", Some("x/y".into())));
        let wrong: [&[&str]; 8] =
            [&[], &["--path"], &["-x"], &["a", "b"], &["A"], &["1a"], &["a-"], &["chassis"]];
        for args in wrong {
            assert!(Options::parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn every_place_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("my-service");
        generate(root(), "my-service", &to).unwrap();
        let mut folders = vec![to.clone()];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files += 1;
                    let text = fs::read_to_string(&path).unwrap();
                    assert!(!text.contains("{{"), "{}: {text}", path.display());
                }
            }
        }
        assert!(files > 10, "{files}");
        assert!(fs::read_to_string(to.join("src/main.rs")).unwrap().contains("my_service::main()"));
        assert!(to.join("Cargo.toml").is_file() && !to.join("cargo-generate.toml").exists());
        let again = generate(root(), "my-service", &to).unwrap_err();
        assert!(again.contains("not empty"), "{again}");
    }
}
