//! An order and what may happen to it.
//!
//! A transition either changes the order and says so, or says why it cannot. It is repeated
//! when a message or a step is: a transition that has happened already is not an error.

/// The most lines of one order.
pub const MAX_LINES: usize = 100;
/// The most pieces of one line.
pub const MAX_QUANTITY: i64 = 1_000;
/// The longest key of a customer and of a product, in bytes.
pub const MAX_KEY: usize = 128;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Placed; its checkout is under way.
    Pending,
    /// Paid, its pieces kept: it will be sent.
    Confirmed,
    /// On its way to the customer.
    Shipped,
    /// Ended without being sent; what was taken was given back.
    Cancelled,
}

impl Status {
    /// The word that callers and the database see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Confirmed => "confirmed",
            Status::Shipped => "shipped",
            Status::Cancelled => "cancelled",
        }
    }

    /// The status of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Status> {
        [Status::Pending, Status::Confirmed, Status::Shipped, Status::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

/// A number of pieces of one product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The product's key.
    pub sku: String,
    /// Pieces; at least one.
    pub quantity: i64,
}

/// An amount in minor units of a currency, such as cents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Money {
    /// Minor units.
    pub minor: i64,
    /// ISO 4217 code.
    pub currency: String,
}

/// What a customer asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its key.
    pub id: String,
    /// Who ordered.
    pub customer: String,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// Where it stands.
    pub status: Status,
    /// What it costs; known once it is confirmed.
    pub total: Option<Money>,
    /// Why it was cancelled.
    pub reason: Option<String>,
}

/// A wrong field of an order that was to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Which one.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Whether a transition changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It did: tell those who should know.
    Done,
    /// It had happened before.
    Already,
}

/// A transition that the order's status does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// Where the order stands.
    pub from: Status,
    /// Where it was to go.
    pub to: Status,
}

impl Order {
    /// A new order, pending.
    ///
    /// # Errors
    /// Every wrong field.
    pub fn place(id: String, customer: String, lines: Vec<Line>) -> Result<Order, Vec<Invalid>> {
        let mut wrong = Vec::new();
        let mut invalid = |field: String, problem: String| wrong.push(Invalid { field, problem });
        let is_key = |text: &str| !text.trim().is_empty() && text.len() <= MAX_KEY;
        if !is_key(&customer) {
            invalid("customer_id".to_owned(), format!("must have 1 to {MAX_KEY} bytes"));
        }
        if !(1..=MAX_LINES).contains(&lines.len()) {
            invalid("lines".to_owned(), format!("must be 1 to {MAX_LINES}"));
        }
        // What is far too long is not looked at line by line.
        for (place, line) in lines.iter().take(MAX_LINES).enumerate() {
            if !is_key(&line.sku) {
                invalid(format!("lines[{place}].sku"), format!("must have 1 to {MAX_KEY} bytes"));
            }
            if !(1..=MAX_QUANTITY).contains(&line.quantity) {
                let problem = format!("must be from 1 to {MAX_QUANTITY}");
                invalid(format!("lines[{place}].quantity"), problem);
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Order { id, customer, lines, status: Status::Pending, total: None, reason: None })
    }

    /// It is paid and its pieces are kept.
    ///
    /// # Errors
    /// A cancelled order stays cancelled.
    pub fn confirm(&mut self, total: Money) -> Result<Change, Forbidden> {
        match self.status {
            Status::Pending => {
                self.status = Status::Confirmed;
                self.total = Some(total);
                Ok(Change::Done)
            }
            Status::Confirmed | Status::Shipped => Ok(Change::Already),
            Status::Cancelled => self.forbid(Status::Confirmed),
        }
    }

    /// Its parcel has left.
    ///
    /// # Errors
    /// Only a confirmed order is sent.
    pub fn ship(&mut self) -> Result<Change, Forbidden> {
        match self.status {
            Status::Confirmed => {
                self.status = Status::Shipped;
                Ok(Change::Done)
            }
            Status::Shipped => Ok(Change::Already),
            Status::Pending | Status::Cancelled => self.forbid(Status::Shipped),
        }
    }

    /// It ends without being sent.
    ///
    /// # Errors
    /// What is confirmed is not cancelled any more.
    pub fn cancel(&mut self, reason: &str) -> Result<Change, Forbidden> {
        match self.status {
            Status::Pending => {
                self.status = Status::Cancelled;
                self.reason = Some(reason.to_owned());
                Ok(Change::Done)
            }
            Status::Cancelled => Ok(Change::Already),
            Status::Confirmed | Status::Shipped => self.forbid(Status::Cancelled),
        }
    }

    fn forbid(&self, to: Status) -> Result<Change, Forbidden> {
        Err(Forbidden { from: self.status, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(status: Status) -> Order {
        let lines = vec![Line { sku: "cup".into(), quantity: 2 }];
        let mut order = Order::place("1".into(), "ada".into(), lines).unwrap();
        order.status = status;
        order
    }

    fn euros(minor: i64) -> Money {
        Money { minor, currency: "EUR".into() }
    }

    #[test]
    fn every_transition_from_every_status() {
        use Status::{Cancelled, Confirmed, Pending, Shipped};
        type Transition = fn(&mut Order) -> Result<Change, Forbidden>;
        let confirm: Transition = |order| order.confirm(euros(5));
        let ship: Transition = Order::ship;
        let cancel: Transition = |order| order.cancel("X");
        for (from, transition, to) in [
            (Pending, confirm, Some(Confirmed)),
            (Confirmed, confirm, Some(Confirmed)),
            (Shipped, confirm, Some(Shipped)),
            (Cancelled, confirm, None),
            (Pending, ship, None),
            (Confirmed, ship, Some(Shipped)),
            (Shipped, ship, Some(Shipped)),
            (Cancelled, ship, None),
            (Pending, cancel, Some(Cancelled)),
            (Confirmed, cancel, None),
            (Shipped, cancel, None),
            (Cancelled, cancel, Some(Cancelled)),
        ] {
            let mut order = order(from);
            let outcome = transition(&mut order);
            match to {
                Some(to) => {
                    let change = if from == to { Change::Already } else { Change::Done };
                    assert_eq!((outcome, order.status), (Ok(change), to), "from {from:?}");
                }
                None => {
                    assert!(outcome.is_err(), "from {from:?}");
                    assert_eq!(order.status, from);
                }
            }
        }
    }

    #[test]
    fn a_repeated_transition_keeps_what_the_first_said() {
        let mut order = order(Status::Pending);
        order.confirm(euros(5)).unwrap();
        order.confirm(euros(9)).unwrap();
        assert_eq!(order.total, Some(euros(5)));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let line = |sku: &str, quantity| Line { sku: sku.into(), quantity };
        let lines = vec![line("", 1), line("cup", 0), line("cup", 1001)];
        let wrong = Order::place("1".into(), " ".into(), lines).unwrap_err();
        let fields: Vec<_> = wrong.iter().map(|invalid| invalid.field.as_str()).collect();
        assert_eq!(
            fields,
            ["customer_id", "lines[0].sku", "lines[1].quantity", "lines[2].quantity"]
        );
        for lines in [vec![], vec![line("cup", 1); MAX_LINES + 1]] {
            let wrong = Order::place("1".into(), "a".into(), lines).unwrap_err();
            assert_eq!(wrong[0].field, "lines");
        }
    }
}
