//! The rules of the house hold here, and each catches what it forbids.
//!
//! A check that never fails proves nothing. So each rule is shown a small
//! repository in which it holds, then the same one with a violation planted in
//! a known line.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use xtask::tidy::{Finding, check};

#[test]
fn the_repository_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    assert!(root.join("crates/chassis-core/src/lib.rs").is_file(), "wrong folder: {root:?}");
    let findings: Vec<String> = check(&root).iter().map(Finding::to_string).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn a_small_repository_is_clean() {
    assert_eq!(check(House::new().path()), []);
}

#[test]
fn comments_strings_and_sequences_are_free() {
    let house = House::new();
    house.write(
        "crates/chassis-http/src/words.rs",
        "//! An order of lines; no unsafe, no payment.\n\
         use std::cmp::Ordering;\n\
         /// A cart in a comment. /* And 'stock */\n\
         pub fn order_by<'a>(a: &'a str) -> Ordering { a.cmp(\"order \\\" stock\") }\n\
         const ROUTE: &str = r#\"/orders/{id} \"unsafe\" \"#;\n\
         fn starts_in_order() {}\n",
    );
    house.write("crates/chassis/examples/hello.rs", "//! The smallest service.\nfn order() {}\n");
    house.write(
        "examples/shop/ordering/src/domain.rs",
        "//! The order; no async, no serde.\npub struct Order;\n",
    );
    assert_eq!(check(house.path()), []);
}

#[test]
fn a_higher_floor_is_caught() {
    let cases = [
        // A higher floor, a sibling, the facade; optional and target-specific too.
        ("chassis-core", "[dependencies]\nchassis-http.workspace = true", 4),
        ("chassis-http", "[dependencies]\nchassis-grpc.workspace = true", 4),
        ("chassis-http", "[dependencies]\nchassis.workspace = true", 4),
        ("chassis-http", "[dev-dependencies]\nchassis.workspace = true", 4),
        ("chassis-http", "[dependencies.chassis-grpc]\nworkspace = true\noptional = true", 3),
        ("chassis-http", "[target.'cfg(unix)'.dependencies]\nchassis-grpc.workspace = true", 4),
        ("chassis-http", "[build-dependencies]\nchassis-grpc.workspace = true", 4),
        ("chassis", "[dependencies]\nshop-ordering.workspace = true", 4),
    ];
    for (name, dependencies, line) in cases {
        let house = House::new();
        house.package(&format!("crates/{name}"), name, dependencies);
        let manifest = format!("crates/{name}/Cargo.toml");
        house.catches(&[("floors", &manifest, 5 + line)]);
    }
}

#[test]
fn floors_and_crates_must_match() {
    let house = House::new();
    house.package("crates/chassis-new", "chassis-new", "");
    house.catches(&[("floors", "crates/chassis-new/Cargo.toml", 1)]);

    let house = House::new();
    house.append("Cargo.toml", "chassis-gone = 2\n");
    house.catches(&[("floors", "Cargo.toml", 12)]);

    let house = House::new();
    house.replace("Cargo.toml", "chassis-http = 2", "chassis-http = \"two\"");
    house.catches(&[("floors", "Cargo.toml", 9)]);
}

#[test]
fn a_forbidden_library_is_caught() {
    let cases = [
        ("chassis-core", "axum"),
        ("chassis-core", "hyper-util"),
        ("chassis-core", "tonic"),
        ("chassis-core", "sqlx"),
        ("chassis-core", "async-nats"),
        ("chassis-resilience", "http"),
        ("chassis-resilience", "tonic"),
    ];
    for (name, library) in cases {
        let house = House::new();
        let manifest = format!("crates/{name}/Cargo.toml");
        house.package(
            &format!("crates/{name}"),
            name,
            &format!("[dependencies]\n{library}.workspace = true"),
        );
        house.catches(&[("never", &manifest, 9)]);
    }
}

#[test]
fn resilience_knows_no_chassis_crate() {
    let house = House::new();
    let manifest = "crates/chassis-resilience/Cargo.toml";
    house.package(
        "crates/chassis-resilience",
        "chassis-resilience",
        "[dependencies]\nchassis-core.workspace = true",
    );
    house.catches(&[("floors", manifest, 9), ("never", manifest, 9)]);
}

#[test]
fn the_test_crate_is_for_tests() {
    let house = House::new();
    let with = |section: &str| {
        house.package(
            "crates/chassis-core",
            "chassis-core",
            &format!("[{section}]\nchassis-test.workspace = true"),
        );
    };
    with("dev-dependencies");
    assert_eq!(check(house.path()), []);
    with("dependencies");
    house.catches(&[("dev-only", "crates/chassis-core/Cargo.toml", 9)]);
}

#[test]
fn a_crate_may_turn_on_its_own_features_for_its_tests() {
    let house = House::new();
    let with = |section: &str| {
        house.package(
            "crates/chassis-http",
            "chassis-http",
            &format!("[{section}]\nchassis-http = {{ path = \".\", features = [\"x\"] }}"),
        );
    };
    with("dev-dependencies");
    assert_eq!(check(house.path()), []);
    with("build-dependencies");
    let manifest = "crates/chassis-http/Cargo.toml";
    house.catches(&[("floors", manifest, 9), ("versions", manifest, 9)]);
}

#[test]
fn a_version_outside_the_root_is_caught() {
    let cases = [
        ("serde = \"1\"", 9),
        ("serde = { version = \"1\" }", 9),
        ("chassis-core = { path = \"../chassis-core\" }", 9),
    ];
    for (dependency, line) in cases {
        let house = House::new();
        house.package(
            "crates/chassis-http",
            "chassis-http",
            &format!("[dependencies]\n{dependency}"),
        );
        house.catches(&[("versions", "crates/chassis-http/Cargo.toml", line)]);
    }

    let house = House::new();
    house.replace(
        "crates/chassis-http/Cargo.toml",
        "version.workspace = true",
        "version = \"1.0.0\"",
    );
    house.catches(&[("versions", "crates/chassis-http/Cargo.toml", 3)]);

    let house = House::new();
    house.append(
        "Cargo.toml",
        "[workspace.dependencies]\nweb = { package = \"axum\", version = \"1\" }\n",
    );
    house.catches(&[("versions", "Cargo.toml", 13)]);
}

#[test]
fn a_package_without_the_lints_is_caught() {
    let house = House::new();
    house.replace("crates/chassis-http/Cargo.toml", "[lints]\nworkspace = true\n", "");
    house.catches(&[("lints", "crates/chassis-http/Cargo.toml", 1)]);
}

#[test]
fn a_business_noun_is_caught() {
    for code in [
        "fn place_order() {}",
        "struct OrderId;",
        "const MAX_ORDERS: u32 = 1;",
        "mod cart;",
        "enum PaymentState {}",
        "let stock = 1;",
    ] {
        let house = House::new();
        let file = "crates/chassis-http/src/client.rs";
        house.write(file, &format!("//! A client.\n\n{code}\n"));
        house.catches(&[("nouns", file, 3)]);
    }

    let house = House::new();
    let file = "crates/chassis-http/tests/payment.rs";
    house.write(file, "//! Named after the business.\n");
    house.catches(&[("nouns", file, 1)]);
}

#[test]
fn a_service_that_names_another_is_caught() {
    let house = House::new();
    let manifest = "examples/shop/ordering/Cargo.toml";
    house.package(
        "examples/shop/ordering",
        "shop-ordering",
        "[dev-dependencies]\nshop-payment.workspace = true",
    );
    house.catches(&[("neighbours", manifest, 9)]);

    let house = House::new();
    let file = "examples/shop/ordering/src/saga.rs";
    house.write(file, "//! The saga.\nuse shop_payment::Charge;\n");
    house.catches(&[("neighbours", file, 2)]);

    let house = House::new();
    let file = "examples/shop/contracts/src/events.rs";
    house.write(file, "//! Events.\nuse shop_ordering::Order;\n");
    house.catches(&[("neighbours", file, 2)]);
}

#[test]
fn a_framework_in_a_domain_file_is_caught() {
    for code in [
        "async fn confirm() {}",
        "#[derive(serde::Serialize)] struct Order;",
        "use sqlx as _;",
        "use chassis::Error;",
        "use chassis_core::Error;",
    ] {
        let house = House::new();
        let file = "examples/shop/ordering/src/domain.rs";
        house.write(file, &format!("//! The order.\n{code}\n"));
        let findings = check(house.path());
        assert!(!findings.is_empty(), "not caught: {code}");
        for finding in findings {
            assert_eq!((finding.rule, finding.line), ("domain", 2), "{finding}");
        }
    }
}

#[test]
fn a_file_without_a_first_line_is_caught() {
    for text in ["", "\n//! Late.\n", "// Not a doc comment.\n", "//!\n", "use std::fs;\n"] {
        let house = House::new();
        house.write("xtask/src/main.rs", text);
        house.catches(&[("header", "xtask/src/main.rs", 1)]);
    }
}

#[test]
fn unsafe_code_is_caught() {
    let house = House::new();
    let file = "examples/shop/ordering/src/store.rs";
    house.write(file, "//! The store.\n\nfn f() { unsafe { g() } }\n");
    house.catches(&[("unsafe", file, 3)]);
}

#[test]
fn what_cannot_be_read_is_a_finding() {
    let house = House::new();
    house.write("crates/chassis-http/Cargo.toml", "[package]\nname = \n");
    house
        .catches(&[("floors", "Cargo.toml", 9), ("readable", "crates/chassis-http/Cargo.toml", 2)]);

    let house = House::new();
    let file = "xtask/src/main.rs";
    fs::write(house.path().join(file), [b'/', b'/', b'!', 0xff]).unwrap();
    house.catches(&[("readable", file, 1)]);
}

#[test]
fn build_output_is_not_read() {
    let house = House::new();
    house.write("target/debug/build/order.rs", "unsafe fn order() {}\n");
    house.write(".hidden/order.rs", "unsafe fn order() {}\n");
    assert_eq!(check(house.path()), []);
}

/// A small repository in a temporary folder that keeps every rule.
struct House(TempDir);

impl House {
    fn new() -> Self {
        let house = Self(tempfile::tempdir().unwrap());
        house.write(
            "Cargo.toml",
            "[workspace]\n\
             members = [\"crates/*\"]\n\
             \n\
             [workspace.metadata.floors]\n\
             chassis-core = 0\n\
             chassis-resilience = 0\n\
             chassis-data = 1\n\
             chassis-test = 1\n\
             chassis-http = 2\n\
             chassis-grpc = 2\n\
             chassis = 4\n",
        );
        for (name, dependencies) in [
            ("chassis-core", ""),
            ("chassis-resilience", ""),
            ("chassis-data", "[dependencies]\nchassis-core.workspace = true"),
            ("chassis-test", "[dependencies]\nchassis-core.workspace = true"),
            (
                "chassis-http",
                "[dependencies]\nchassis-core.workspace = true\naxum.workspace = true",
            ),
            ("chassis-grpc", "[dev-dependencies]\nchassis-test.workspace = true"),
            ("chassis", "[dependencies]\nchassis-http.workspace = true"),
        ] {
            house.package(&format!("crates/{name}"), name, dependencies);
        }
        let service = "[dependencies]\nchassis.workspace = true\nshop-contracts.workspace = true";
        for (context, dependencies) in
            [("contracts", ""), ("ordering", service), ("payment", service)]
        {
            let name = format!("shop-{context}");
            house.package(&format!("examples/shop/{context}"), &name, dependencies);
        }
        let all = "[dependencies]\nshop-ordering.workspace = true\nshop-payment.workspace = true";
        house.package("examples/shop", "shop", all);
        house.write("examples/shop/src/lib.rs", "//! All of it.\nuse shop_ordering as _;\n");
        house.package("xtask", "xtask", "");
        house
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A package whose dependencies begin in line 8.
    fn package(&self, folder: &str, name: &str, dependencies: &str) {
        self.write(
            &format!("{folder}/Cargo.toml"),
            &format!(
                "[package]\nname = \"{name}\"\nversion.workspace = true\n\n\
                 [lints]\nworkspace = true\n\n{dependencies}\n"
            ),
        );
        self.write(&format!("{folder}/src/lib.rs"), &format!("//! {name}.\n"));
    }

    fn append(&self, file: &str, text: &str) {
        let old = fs::read_to_string(self.path().join(file)).unwrap();
        self.write(file, &(old + text));
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let old = fs::read_to_string(self.path().join(file)).unwrap();
        assert!(old.contains(from), "{file} does not hold {from}");
        self.write(file, &old.replacen(from, to, 1));
    }

    /// The check finds exactly these (rule, file, line).
    #[track_caller]
    fn catches(&self, expected: &[(&str, &str, usize)]) {
        let findings = check(self.path());
        let mut found: Vec<(&str, &str, usize)> =
            findings.iter().map(|f| (f.rule, f.file.to_str().unwrap(), f.line)).collect();
        found.sort();
        assert_eq!(found, expected, "{findings:#?}");
    }
}
