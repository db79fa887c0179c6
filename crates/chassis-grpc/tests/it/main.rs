//! Servers and channels over real sockets.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod channel;
#[cfg(test)]
#[cfg(feature = "compression")]
mod compression;
#[cfg(test)]
mod goaway;
mod greeter;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod server;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod world;
