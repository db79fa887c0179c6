//! No business noun in `crates/`.
//!
//! A thing belongs in `crates/` if it is true of any service. The surest sign
//! that it is not is a noun of the example shop in an identifier or a file name.
//!
//! The rule looks at whole words of identifiers: `OrderId`, `order_id` and
//! `orders` are found, `Ordering` and `reorder` are not. Comments and strings
//! are free, and so are `crates/*/examples/`, which show a service. A sequence
//! may be called an order where the word beside it says so (`in_order`,
//! `KeyOrder`, see the table below); alone it is a `sequence` or a `position`.
//! A name is told once per file, at its first use.

use std::collections::BTreeSet;
use std::path::Path;

use super::Finding;
use super::source::{SourceFile, words};

const NOUNS: &[&str] =
    &["order", "orders", "cart", "carts", "payment", "payments", "stock", "stocks"];

/// Neighbouring words that make `order` a sequence.
const SEQUENCES: &[(&str, &str)] = &[
    ("byte", "order"),
    ("in", "order"),
    ("key", "order"),
    ("lock", "order"),
    ("of", "order"), // out_of_order
    ("order", "by"),
    ("order", "of"),
    ("order", "per"),
    ("order", "within"),
    ("sort", "order"),
    ("start", "order"),
    ("stop", "order"),
    ("their", "order"),
    ("time", "order"),
];

pub(super) fn check(sources: &[SourceFile], findings: &mut Vec<Finding>) {
    for source in sources.iter().filter(|source| in_scope(&source.path)) {
        let mut add = |line, name: &str, noun: &str| {
            findings.push(Finding {
                file: source.path.clone(),
                line,
                rule: "nouns",
                what: format!(
                    "`{name}` holds the business noun `{noun}`; crates/ is true of any service: \
                     use a neutral word (item, greeting), and for a sequence one \
                     such as `key_order`"
                ),
            });
        };
        for part in &source.path {
            let name = part.to_string_lossy();
            let stem = name.strip_suffix(".rs").unwrap_or(&name).replace('-', "_");
            if let Some(noun) = noun_in(&stem) {
                add(1, &name, noun);
            }
        }
        let mut told = BTreeSet::new();
        for (line, identifier) in source.identifiers() {
            if let Some(noun) = noun_in(identifier)
                && told.insert(identifier)
            {
                add(line, identifier, noun);
            }
        }
    }
}

fn in_scope(path: &Path) -> bool {
    path.starts_with("crates") && path.iter().nth(2).is_none_or(|folder| folder != "examples")
}

fn noun_in(identifier: &str) -> Option<&'static str> {
    let words = words(identifier);
    let sequence = |at: usize| {
        let pair = |at: usize| Some((words.get(at)?.as_str(), words.get(at + 1)?.as_str()));
        let pairs = [at.checked_sub(1).and_then(pair), pair(at)];
        pairs.iter().flatten().any(|pair| SEQUENCES.contains(pair))
    };
    words.iter().enumerate().find_map(|(at, word)| {
        let noun = NOUNS.iter().find(|noun| word == *noun)?;
        (!sequence(at)).then_some(*noun)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_only() {
        let cases = [
            ("OrderId", Some("order")),
            ("cart_total", Some("cart")),
            ("PAYMENTS", Some("payments")),
            ("stock", Some("stock")),
            ("Ordering", None),
            ("FuturesOrdered", None),
            ("border", None),
            ("in_order", None),
            ("BYTE_ORDER", None),
            ("starts_in_order_and_stops", None),
            ("the_order_of_items", None),
            ("items_out_of_order", None),
            ("order_id_in_order", Some("order")),
            ("in_order_of_payment", Some("payment")),
            ("the_order", Some("order")),
            ("stockpile", None),
        ];
        for (identifier, noun) in cases {
            assert_eq!(noun_in(identifier), noun, "{identifier}");
        }
    }

    #[test]
    fn examples_are_free() {
        assert!(in_scope(Path::new("crates/chassis/src/lib.rs")));
        assert!(!in_scope(Path::new("crates/chassis/examples/hello.rs")));
        assert!(!in_scope(Path::new("examples/shop/ordering/src/lib.rs")));
    }
}
