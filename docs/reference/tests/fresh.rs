//! The generated pages in the repository are what the code says now.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[test]
fn the_reference_is_fresh() {
    let root = chassis_reference::root();
    let mut stale = Vec::new();
    for (path, text) in chassis_reference::pages(&root).unwrap() {
        let there = std::fs::read_to_string(root.join("docs/src").join(path)).unwrap_or_default();
        let differs = |(now, then): (&str, &str)| now != then;
        if let Some(line) = text.lines().zip(there.lines()).position(differs) {
            stale.push(format!("{path}:{}", line + 1));
        } else if text != there {
            stale.push(path.to_owned());
        }
    }
    assert!(stale.is_empty(), "run `cargo xtask docs --reference`: {stale:?}");
}
