//! Products and prices as types.
//!
//! The catalogue only reads, so there is little to decide: what a key may look
//! like, and what a price may be.

use std::fmt;

/// The longest sku, in bytes.
pub const MAX_SKU: usize = 64;

/// The key of a product: small letters, digits and single dashes.
///
/// Checked before anything is looked up: no product has another key, and what
/// is cached or logged by sku stays short.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sku(String);

/// A text that is no sku.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotASku;

impl Sku {
    /// Reads a sku.
    ///
    /// # Errors
    /// [`NotASku`] where it is empty, longer than [`MAX_SKU`] or spelled with
    /// anything but small letters, digits and inner, single dashes.
    pub fn parse(text: &str) -> Result<Sku, NotASku> {
        let word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if text.len() <= MAX_SKU && text.split('-').all(word) {
            Ok(Sku(text.to_owned()))
        } else {
            Err(NotASku)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one piece costs, in minor units (cents) of a currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    minor: i64,
    currency: String,
}

/// A price that is zero, negative or in no known form of currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPrice;

impl Price {
    /// More than nothing, in a currency by its ISO 4217 code.
    ///
    /// # Errors
    /// [`NotAPrice`] for any other.
    pub fn new(minor: i64, currency: impl Into<String>) -> Result<Price, NotAPrice> {
        let currency = currency.into();
        let code = currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
        if minor > 0 && code { Ok(Price { minor, currency }) } else { Err(NotAPrice) }
    }

    /// The amount in minor units.
    pub fn minor(&self) -> i64 {
        self.minor
    }

    /// The ISO 4217 code.
    pub fn currency(&self) -> &str {
        &self.currency
    }
}

/// Something that can be bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its key; never changes.
    pub sku: Sku,
    /// What a customer reads.
    pub name: String,
    /// One or two sentences about it.
    pub description: String,
    /// What one piece costs.
    pub price: Price,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_is_small_words_and_single_dashes() {
        for good in ["cup", "espresso-cup", "a", "7-of-9", &"x".repeat(MAX_SKU)] {
            assert_eq!(Sku::parse(good).unwrap().as_str(), good);
        }
        for bad in
            ["", "-", "-cup", "cup-", "a--b", "Cup", "a b", "tasse-\u{e4}", "../x", "a_b", "%2e"]
        {
            assert_eq!(Sku::parse(bad), Err(NotASku), "{bad:?}");
        }
        assert_eq!(Sku::parse(&"x".repeat(MAX_SKU + 1)), Err(NotASku));
    }

    #[test]
    fn a_price_is_more_than_nothing_in_a_currency() {
        let price = Price::new(1200, "EUR").unwrap();
        assert_eq!((price.minor(), price.currency()), (1200, "EUR"));
        for (minor, currency) in [(0, "EUR"), (-1, "EUR"), (1, ""), (1, "eur"), (1, "EURO")] {
            assert_eq!(Price::new(minor, currency), Err(NotAPrice), "{minor} {currency}");
        }
    }
}
