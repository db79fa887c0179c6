//! A parcel: one for each order.

/// What leaves the house for one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Its key.
    pub id: String,
    /// The order whose pieces it holds.
    pub order: String,
    /// Who gets it.
    pub customer: String,
    /// The pieces in it, over all lines.
    pub pieces: i64,
    /// The carrier's name for it.
    pub tracking: String,
}

impl Parcel {
    /// Packs the pieces of an order, given as pieces by line.
    #[must_use]
    pub fn pack(id: String, order: String, customer: String, lines: &[i64]) -> Parcel {
        let pieces = lines.iter().fold(0, |sum: i64, line| sum.saturating_add(*line));
        // The carrier numbers its parcels by ours: the last twelve characters, in capitals.
        let tail: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        let tail = tail.get(tail.len().saturating_sub(12)..).unwrap_or(&tail);
        let tracking = format!("CH{}", tail.to_uppercase());
        Parcel { id, order, customer, pieces, tracking }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_holds_every_piece_and_has_a_number() {
        let id = "01935a1b-aaaa-7bbb-8ccc-0123456789ab".to_owned();
        let parcel = Parcel::pack(id, "o".into(), "ada".into(), &[2, 3]);
        assert_eq!(parcel.pieces, 5);
        assert_eq!(parcel.tracking, "CH0123456789AB");
    }
}
