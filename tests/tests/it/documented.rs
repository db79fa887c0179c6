//! What the pages say is tested: that there is such a test, and that no test is left out.

use std::{collections::BTreeSet, fs, path::Path};

use chassis::discovery::ClientConfig;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backticks.
fn names(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in page.lines() {
        names.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    names
}

/// The names of the tests in a file.
fn tests(source: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    source.lines().map(str::trim).filter_map(move |line| {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
            return None;
        }
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
        std::mem::take(&mut is_test).then(|| name.split('(').next().unwrap_or(name))
    })
}

#[test]
fn each_documented_behaviour_has_its_test_and_each_of_these_tests_is_listed() {
    let folder = "crates/chassis-resilience/tests/it/documented";
    let mut written = BTreeSet::new();
    for source in ["envoy", "finagle", "go_zero", "grpc", "polly", "resilience4j"] {
        let file = read(&format!("{folder}/{source}.rs"));
        written.extend(tests(&file).map(|test| format!("{source}::{test}")));
    }
    let page = read("docs/src/resilience.md");
    let listed: BTreeSet<String> = names(&page)
        .into_iter()
        .filter(|name| written.contains(name) || is_documented(name))
        .collect();
    assert_eq!(listed, written);
    assert!(written.len() > 50, "{}", written.len());
}

fn is_documented(name: &str) -> bool {
    name.split_once("::").is_some_and(|(source, test)| {
        test.contains('_')
            && ["envoy", "finagle", "go_zero", "grpc", "polly", "resilience4j"].contains(&source)
    })
}

#[test]
fn each_documented_behaviour_of_ejection_has_its_test() {
    let page = read("docs/src/balancing.md");
    let (_, table) = page.split_once("## Behaviour of ejection that others document").unwrap();
    let rows = names(table).into_iter().filter(|name| name.contains("::"));
    let mut count = 0;
    for name in rows {
        let (module, test) = name.split_once("::").unwrap();
        let folder = "crates/chassis-discovery/src/balance";
        let mut source = read(&format!("{folder}/{module}.rs"));
        if module == "pool" {
            source.push_str(&read(&format!("{folder}/pool/tests.rs")));
        }
        // A property is a test too; it stands in a macro.
        let found = tests(&source).any(|name| name == test);
        assert!(found, "{name}");
        count += 1;
    }
    assert!(count >= 8, "{count}");
}

/// Each setting of a client by its path.
fn leaves(value: &Value, path: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &path, into);
            }
        }
        _ => into.push(path.to_owned()),
    }
}

#[test]
fn each_setting_of_a_client_has_its_reason_on_a_page() {
    let settings = serde_json::to_value(ClientConfig::default()).unwrap();
    let mut paths = Vec::new();
    leaves(&settings, "", &mut paths);
    assert!(paths.len() > 30, "{paths:?}");
    let pages = ["docs/src/resilience.md", "docs/src/balancing.md"].map(read).concat();
    let rows: Vec<_> = pages.lines().filter(|line| line.starts_with('|')).collect();
    let missing: Vec<_> = paths
        .iter()
        .filter(|path| !rows.iter().any(|row| row.contains(&format!("`{path}`"))))
        .collect();
    assert!(missing.is_empty(), "no row of a table says why: {missing:?}");
}
