//! News for a customer, in the words that the customer reads.

/// Something that a customer should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// An order is paid and will be sent.
    OrderConfirmed {
        /// What was paid, in minor units.
        total_minor: i64,
        /// ISO 4217 code of the amount.
        currency: String,
    },
    /// An order ended without being sent.
    OrderCancelled {
        /// A stable reason, such as `CARD_DECLINED`.
        reason: String,
    },
    /// A parcel has left the house.
    ParcelShipped {
        /// The carrier's name for the parcel.
        tracking: String,
    },
}

impl Happened {
    /// Which kind of news it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Happened::OrderConfirmed { .. } => "order-confirmed",
            Happened::OrderCancelled { .. } => "order-cancelled",
            Happened::ParcelShipped { .. } => "parcel-shipped",
        }
    }

    /// What the customer reads.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Happened::OrderConfirmed { total_minor, currency } => {
                let (whole, cents) = (total_minor / 100, total_minor % 100);
                format!("Thank you! Your order over {whole}.{cents:02} {currency} is confirmed.")
            }
            Happened::OrderCancelled { reason } => match reason.as_str() {
                "CARD_DECLINED" => {
                    "Your card was declined; the order is cancelled and nothing was charged."
                        .to_owned()
                }
                "OUT_OF_STOCK" => {
                    "We have run out of what you ordered; the order is cancelled and nothing was \
                     charged."
                        .to_owned()
                }
                _ => "We could not fulfil your order; it is cancelled and you pay nothing."
                    .to_owned(),
            },
            Happened::ParcelShipped { tracking } => {
                format!("Your parcel is on its way. Its tracking number is {tracking}.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_two_places() {
        let news = Happened::OrderConfirmed { total_minor: 2405, currency: "EUR".into() };
        assert_eq!(news.kind(), "order-confirmed");
        assert!(news.text().contains("24.05 EUR"), "{}", news.text());
    }

    #[test]
    fn an_unknown_reason_still_makes_a_sentence() {
        let news = Happened::OrderCancelled { reason: "X".into() };
        assert!(news.text().contains("cancelled"));
        assert!(!news.text().contains('X'));
    }
}
