//! Stock and reservations as types: what may happen to them, and when not.
//!
//! No database and no transport here: the rules are read and tested alone. A
//! use case loads, asks these types, and writes down what they answered.

use std::collections::BTreeMap;
use std::fmt;

/// The most lines that one reservation may have.
pub const MAX_LINES: usize = 100;
/// The most pieces of one product that one reservation may keep.
pub const MAX_QUANTITY: i64 = 1_000_000;

/// The pieces of one product: in the house, and how many of them are kept.
///
/// Always `0 <= reserved <= on_hand`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    on_hand: i64,
    reserved: i64,
}

/// Fewer pieces are free than were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfStock {
    /// Pieces that are free.
    pub available: i64,
}

/// Numbers that no stock can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImpossibleStock {
    on_hand: i64,
    reserved: i64,
}

impl fmt::Display for ImpossibleStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} pieces reserved", self.reserved, self.on_hand)
    }
}

impl std::error::Error for ImpossibleStock {}

impl Stock {
    /// A stock with these numbers.
    ///
    /// # Errors
    /// [`ImpossibleStock`] unless `0 <= reserved <= on_hand`.
    pub fn new(on_hand: i64, reserved: i64) -> Result<Stock, ImpossibleStock> {
        if 0 <= reserved && reserved <= on_hand {
            Ok(Stock { on_hand, reserved })
        } else {
            Err(ImpossibleStock { on_hand, reserved })
        }
    }

    /// Pieces in the house, kept ones included.
    pub fn on_hand(self) -> i64 {
        self.on_hand
    }

    /// Pieces kept for reservations.
    pub fn reserved(self) -> i64 {
        self.reserved
    }

    /// Pieces that can still be kept.
    pub fn available(self) -> i64 {
        self.on_hand - self.reserved
    }

    /// Keeps `quantity` pieces.
    ///
    /// # Errors
    /// [`OutOfStock`] where fewer are free.
    pub fn reserve(self, quantity: i64) -> Result<Stock, OutOfStock> {
        if quantity > self.available() {
            return Err(OutOfStock { available: self.available() });
        }
        Ok(Stock { reserved: self.reserved + quantity, ..self })
    }

    /// Gives `quantity` pieces back.
    ///
    /// # Errors
    /// [`ImpossibleStock`] where fewer were kept: the books are wrong.
    pub fn release(self, quantity: i64) -> Result<Stock, ImpossibleStock> {
        Stock::new(self.on_hand, self.reserved - quantity)
    }
}

/// What a reservation keeps: pieces by sku, at least one of each.
///
/// Ordered by sku, so that two reservations lock the same products in the same
/// order and never wait for each other in a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines(BTreeMap<String, i64>);

/// Why a list of lines is no list of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidLines {
    /// There are none.
    Empty,
    /// There are more than [`MAX_LINES`].
    TooMany,
    /// The line at this place has no sku.
    NoSku(usize),
    /// The quantity at this place (or its sum) is not in `1..=MAX_QUANTITY`.
    Quantity(usize),
}

impl Lines {
    /// Collects lines; a sku that stands there twice counts with its sum.
    ///
    /// # Errors
    /// [`InvalidLines`] says what is wrong with which line.
    pub fn new(lines: impl IntoIterator<Item = (String, i64)>) -> Result<Lines, InvalidLines> {
        let mut sums = BTreeMap::new();
        for (place, (sku, quantity)) in lines.into_iter().enumerate() {
            if place >= MAX_LINES {
                return Err(InvalidLines::TooMany);
            }
            if sku.is_empty() {
                return Err(InvalidLines::NoSku(place));
            }
            if !(1..=MAX_QUANTITY).contains(&quantity) {
                return Err(InvalidLines::Quantity(place));
            }
            let sum = sums.entry(sku).or_insert(0);
            *sum += quantity;
            if *sum > MAX_QUANTITY {
                return Err(InvalidLines::Quantity(place));
            }
        }
        if sums.is_empty() { Err(InvalidLines::Empty) } else { Ok(Lines(sums)) }
    }

    /// Sku and pieces, ordered by sku.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(sku, quantity)| (sku.as_str(), *quantity))
    }
}

/// A reservation that is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// Its pieces are kept.
    Held(Lines),
    /// Its pieces were given back, or it was released before it was made. It
    /// stays written down, as a gravestone: a forward call that arrives late
    /// must find it.
    Released,
}

/// What a call to reserve leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// Keep the pieces now.
    Keep,
    /// They are kept already; nothing to do.
    AlreadyKept,
}

/// Why a reservation is refused whatever the stock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was released, perhaps before it was made.
    Released,
    /// The id belongs to a reservation of other lines.
    Differs,
}

/// What a call to release leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// Give these pieces back now.
    Free(Lines),
    /// Nothing was kept; only the gravestone is needed.
    Bury,
    /// It is released already; nothing to do.
    AlreadyReleased,
}

/// Decides on a call to reserve `wanted` under an id that `known` is written
/// down for.
///
/// # Errors
/// [`Refused`] where the id was released or stands for something else.
pub fn reserve(known: Option<&Reservation>, wanted: &Lines) -> Result<Reserve, Refused> {
    match known {
        None => Ok(Reserve::Keep),
        Some(Reservation::Held(lines)) if lines == wanted => Ok(Reserve::AlreadyKept),
        Some(Reservation::Held(_)) => Err(Refused::Differs),
        Some(Reservation::Released) => Err(Refused::Released),
    }
}

/// Decides on a call to release an id that `known` is written down for.
pub fn release(known: Option<Reservation>) -> Release {
    match known {
        None => Release::Bury,
        Some(Reservation::Held(lines)) => Release::Free(lines),
        Some(Reservation::Released) => Release::AlreadyReleased,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(of: &[(&str, i64)]) -> Lines {
        Lines::new(of.iter().map(|(sku, quantity)| ((*sku).to_owned(), *quantity))).unwrap()
    }

    #[test]
    fn a_stock_never_keeps_more_than_it_has() {
        let cases = [
            // on hand, reserved, asked, reserved after
            (5, 0, 1, Ok(1)),
            (5, 0, 5, Ok(5)),
            (5, 3, 2, Ok(5)),
            (5, 3, 3, Err(2)),
            (0, 0, 1, Err(0)),
            (1, 1, 1, Err(0)),
        ];
        for (on_hand, reserved, asked, expected) in cases {
            let got = Stock::new(on_hand, reserved).unwrap().reserve(asked);
            let got = got.map(Stock::reserved).map_err(|refused| refused.available);
            assert_eq!(got, expected, "{asked} of {on_hand} with {reserved} reserved");
        }
    }

    #[test]
    fn release_takes_back_exactly_what_reserve_kept() {
        let before = Stock::new(7, 2).unwrap();
        let after = before.reserve(4).unwrap().release(4).unwrap();
        assert_eq!(after, before);
        assert!(after.release(3).is_err(), "more than was kept");
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for (on_hand, reserved) in [(-1, 0), (0, 1), (3, -1), (3, 4)] {
            assert!(Stock::new(on_hand, reserved).is_err(), "{on_hand} {reserved}");
        }
    }

    #[test]
    fn lines_are_summed_ordered_and_checked() {
        let ok = lines(&[("b", 1), ("a", 2), ("b", 3)]);
        assert_eq!(ok.iter().collect::<Vec<_>>(), [("a", 2), ("b", 4)]);

        let line = |sku: &str, quantity| (sku.to_owned(), quantity);
        let cases: [(Vec<(String, i64)>, InvalidLines); 6] = [
            (vec![], InvalidLines::Empty),
            (vec![line("a", 1), line("", 1)], InvalidLines::NoSku(1)),
            (vec![line("a", 0)], InvalidLines::Quantity(0)),
            (vec![line("a", -4)], InvalidLines::Quantity(0)),
            (vec![line("a", MAX_QUANTITY), line("a", 1)], InvalidLines::Quantity(1)),
            (vec![line("a", 1); MAX_LINES + 1], InvalidLines::TooMany),
        ];
        for (given, expected) in cases {
            assert_eq!(Lines::new(given), Err(expected));
        }
    }

    #[test]
    fn a_reservation_goes_one_way() {
        let wanted = lines(&[("a", 1)]);
        let other = lines(&[("a", 2)]);
        let held = Reservation::Held(wanted.clone());
        let released = Reservation::Released;

        assert_eq!(reserve(None, &wanted), Ok(Reserve::Keep));
        assert_eq!(reserve(Some(&held), &wanted), Ok(Reserve::AlreadyKept));
        assert_eq!(reserve(Some(&held), &other), Err(Refused::Differs));
        assert_eq!(reserve(Some(&released), &wanted), Err(Refused::Released));

        assert_eq!(release(None), Release::Bury);
        assert_eq!(release(Some(held)), Release::Free(wanted));
        assert_eq!(release(Some(released)), Release::AlreadyReleased);
    }
}
