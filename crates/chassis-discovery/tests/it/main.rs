//! What a client of this crate relies on, over real sockets where there are any.

#[cfg(test)]
mod balance;
#[cfg(test)]
mod dns;
#[cfg(test)]
mod registration;
