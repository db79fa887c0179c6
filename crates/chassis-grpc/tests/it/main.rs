//! Servers and channels over real sockets.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod channel;
#[cfg(test)]
mod goaway;
mod greeter;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod server;
#[cfg(test)]
mod world;
