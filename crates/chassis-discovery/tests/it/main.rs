//! What a client of this crate relies on, over real sockets where there are any.

#[cfg(test)]
mod balance;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod consul;
#[cfg(test)]
mod dns;
#[cfg(test)]
mod kubernetes;
#[cfg(test)]
mod registration;
