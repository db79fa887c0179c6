//! A charge as a state machine: from the wish to take money to the end of it.
//!
//! ```text
//!            approved            refund            given back
//! charging ----------> charged ----------> refunding ----------> refunded
//!    |  \______________________________________^                    ^
//!    |             refund                                           |
//!    | declined                                     refund of an order
//!    v                                              without a charge
//! declined
//! ```
//!
//! `charging` and `refunding` are intents: they are written down *before* the
//! provider is asked. Whoever finds one after a crash does not know whether the
//! provider was asked, and asks again with the same key.

use std::fmt;

/// An amount of money in minor units (cents) of one currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Money {
    minor: i64,
    currency: String,
}

/// An amount that cannot be charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidMoney {
    /// Zero or less.
    Amount,
    /// Not three capital letters.
    Currency,
}

impl Money {
    /// More than nothing, in a currency by its ISO 4217 code.
    ///
    /// # Errors
    /// [`InvalidMoney`] says which of the two is wrong.
    pub fn new(minor: i64, currency: impl Into<String>) -> Result<Money, InvalidMoney> {
        let currency = currency.into();
        if minor <= 0 {
            return Err(InvalidMoney::Amount);
        }
        if currency.len() != 3 || !currency.bytes().all(|letter| letter.is_ascii_uppercase()) {
            return Err(InvalidMoney::Currency);
        }
        Ok(Money { minor, currency })
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

/// What a caller wants to be charged. Two wishes that are equal are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The order that is paid for.
    pub order_id: String,
    /// The caller's name for this wish.
    pub idempotency_key: String,
    /// How much.
    pub amount: Money,
    /// The provider's name for the card.
    pub card_token: String,
}

/// How far a charge came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The provider is being asked for money, or was when we crashed.
    Charging,
    /// The money was taken.
    Charged,
    /// The bank said no.
    Declined,
    /// The provider is being asked to give back, or was when we crashed.
    Refunding,
    /// The money was given back.
    Refunded,
}

impl State {
    const ALL: [(State, &'static str); 5] = [
        (State::Charging, "charging"),
        (State::Charged, "charged"),
        (State::Declined, "declined"),
        (State::Refunding, "refunding"),
        (State::Refunded, "refunded"),
    ];

    /// The word that is written down.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Charging => "charging",
            State::Charged => "charged",
            State::Declined => "declined",
            State::Refunding => "refunding",
            State::Refunded => "refunded",
        }
    }

    /// The state that was written down with this word.
    pub fn parse(word: &str) -> Option<State> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(state, _)| *state)
    }

    /// True where the provider's answer is not known.
    pub fn is_unsettled(self) -> bool {
        matches!(self, State::Charging | State::Refunding)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is written down about an order's payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payment {
    /// Money was asked for.
    Charge(Charge),
    /// A refund came before any charge: a gravestone that refuses the charge.
    Barred,
}

/// The one charge of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Our name for it; also the key under which the provider knows it.
    pub payment_id: String,
    /// What was asked for.
    pub wish: Wish,
    /// How far it came.
    pub state: State,
}

/// What a call to charge leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The provider must be asked (again).
    Ask,
    /// The money was taken already.
    Charged,
}

/// Why no money is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The bank said no.
    Declined,
    /// A refund came first.
    Refunded,
    /// The order has another payment.
    Differs,
}

/// What the provider said to a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The money was taken.
    Approved,
    /// The bank said no.
    Declined,
    /// The key is closed: a refund reached the provider first.
    Closed,
}

/// What a call to refund leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refund {
    /// The provider must be asked (again).
    Ask,
    /// There is nothing to give back, or it was given back already.
    Nothing,
}

impl Payment {
    /// Decides on a call to charge where this is written down already.
    ///
    /// # Errors
    /// [`Refused`] where no money will be taken.
    pub fn charge(&self, wish: &Wish) -> Result<Next, Refused> {
        match self {
            Payment::Barred => Err(Refused::Refunded),
            Payment::Charge(charge) => charge.repeat(wish),
        }
    }
}

impl Charge {
    /// The intent to take money, to be written down before the provider is
    /// asked.
    pub fn intend(payment_id: String, wish: Wish) -> Charge {
        Charge { payment_id, wish, state: State::Charging }
    }

    fn repeat(&self, wish: &Wish) -> Result<Next, Refused> {
        // Told before the comparison: after a refund, whatever is asked for
        // this order is too late.
        if matches!(self.state, State::Refunding | State::Refunded) {
            return Err(Refused::Refunded);
        }
        if self.wish != *wish {
            return Err(Refused::Differs);
        }
        match self.state {
            State::Charging => Ok(Next::Ask),
            State::Charged => Ok(Next::Charged),
            State::Declined => Err(Refused::Declined),
            State::Refunding | State::Refunded => Err(Refused::Refunded),
        }
    }

    /// Takes the provider's answer in. The answer of a second, equal attempt
    /// may come when the first one is settled already, and an answer that a
    /// refund has overtaken changes nothing.
    ///
    /// # Errors
    /// [`Refused`] where no money was taken, or none stays taken.
    pub fn settle(&mut self, verdict: Verdict) -> Result<(), Refused> {
        if self.state == State::Charging {
            self.state = match verdict {
                Verdict::Approved => State::Charged,
                Verdict::Declined => State::Declined,
                Verdict::Closed => State::Refunded,
            };
        }
        match self.state {
            State::Charging | State::Charged => Ok(()),
            State::Declined => Err(Refused::Declined),
            State::Refunding | State::Refunded => Err(Refused::Refunded),
        }
    }

    /// Begins to give back. A charge whose outcome is not known is given back
    /// too: the provider closes its key, whichever of the two arrives first.
    pub fn refund(&mut self) -> Refund {
        match self.state {
            State::Charging | State::Charged | State::Refunding => {
                self.state = State::Refunding;
                Refund::Ask
            }
            State::Declined | State::Refunded => Refund::Nothing,
        }
    }

    /// The provider has given back, or has closed the key.
    pub fn refunded(&mut self) {
        if self.state == State::Refunding {
            self.state = State::Refunded;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(amount: i64) -> Wish {
        Wish {
            order_id: "o-1".to_owned(),
            idempotency_key: "k-1".to_owned(),
            amount: Money::new(amount, "EUR").unwrap(),
            card_token: "tok_visa".to_owned(),
        }
    }

    fn charge(state: State) -> Charge {
        Charge { state, ..Charge::intend("p-1".to_owned(), wish(500)) }
    }

    #[test]
    fn money_is_more_than_nothing_in_a_known_form() {
        assert!(Money::new(1, "EUR").is_ok());
        assert_eq!(Money::new(0, "EUR"), Err(InvalidMoney::Amount));
        assert_eq!(Money::new(-5, "EUR"), Err(InvalidMoney::Amount));
        for currency in ["", "EU", "eur", "EURO", "€"] {
            assert_eq!(Money::new(1, currency), Err(InvalidMoney::Currency), "{currency}");
        }
    }

    #[test]
    fn every_state_is_read_as_it_was_written() {
        for (state, word) in State::ALL {
            assert_eq!(state.as_str(), word);
            assert_eq!(State::parse(word), Some(state));
        }
        assert_eq!(State::parse("paid"), None);
    }

    #[test]
    fn a_repeated_charge_gets_the_answer_of_the_first() {
        let cases = [
            (State::Charging, Ok(Next::Ask), Err(Refused::Differs)),
            (State::Charged, Ok(Next::Charged), Err(Refused::Differs)),
            (State::Declined, Err(Refused::Declined), Err(Refused::Differs)),
            (State::Refunding, Err(Refused::Refunded), Err(Refused::Refunded)),
            (State::Refunded, Err(Refused::Refunded), Err(Refused::Refunded)),
        ];
        for (state, same, other) in cases {
            let known = Payment::Charge(charge(state));
            assert_eq!(known.charge(&wish(500)), same, "{state}");
            assert_eq!(known.charge(&wish(501)), other, "{state}");
        }
        assert_eq!(Payment::Barred.charge(&wish(500)), Err(Refused::Refunded));
    }

    #[test]
    fn an_answer_moves_only_a_charge_that_waits_for_it() {
        use State::*;
        let cases = [
            (Charging, Verdict::Approved, Charged, Ok(())),
            (Charging, Verdict::Declined, Declined, Err(Refused::Declined)),
            (Charging, Verdict::Closed, Refunded, Err(Refused::Refunded)),
            (Charged, Verdict::Approved, Charged, Ok(())),
            (Declined, Verdict::Declined, Declined, Err(Refused::Declined)),
            (Refunding, Verdict::Approved, Refunding, Err(Refused::Refunded)),
            (Refunded, Verdict::Approved, Refunded, Err(Refused::Refunded)),
            (Refunded, Verdict::Closed, Refunded, Err(Refused::Refunded)),
        ];
        for (before, verdict, after, expected) in cases {
            let mut charge = charge(before);
            assert_eq!(charge.settle(verdict), expected, "{before} {verdict:?}");
            assert_eq!(charge.state, after, "{before} {verdict:?}");
        }
    }

    #[test]
    fn a_refund_asks_the_provider_until_it_has_given_back() {
        use State::*;
        let cases = [
            (Charging, Refund::Ask, Refunded),
            (Charged, Refund::Ask, Refunded),
            (Refunding, Refund::Ask, Refunded),
            (Refunded, Refund::Nothing, Refunded),
            (Declined, Refund::Nothing, Declined),
        ];
        for (before, next, end) in cases {
            let mut charge = charge(before);
            assert_eq!(charge.refund(), next, "{before}");
            charge.refunded();
            assert_eq!(charge.state, end, "{before}");
        }
    }

    #[test]
    fn money_is_never_taken_after_a_refund_whatever_the_order_of_calls() {
        // Every sequence of six steps, from every state.
        let steps: [fn(&mut Charge); 6] = [
            |charge| {
                let _ = charge.settle(Verdict::Approved);
            },
            |charge| {
                let _ = charge.settle(Verdict::Declined);
            },
            |charge| {
                let _ = charge.settle(Verdict::Closed);
            },
            |charge| {
                charge.refund();
            },
            |charge| charge.refunded(),
            |charge| {
                let _ = charge.repeat(&wish(500));
            },
        ];
        for sequence in 0..6_u32.pow(6) {
            let mut charge = charge(State::Charging);
            let mut was_refunded = false;
            for place in 0..6 {
                steps[(sequence / 6_u32.pow(place) % 6) as usize](&mut charge);
                was_refunded |= matches!(charge.state, State::Refunding | State::Refunded);
                let takes = matches!(charge.state, State::Charging | State::Charged);
                assert!(!(was_refunded && takes), "{sequence}: {charge:?}");
            }
        }
    }
}
