//! What somebody does about messages that could not be handled.
//!
//! A consumer puts a message that it gives up under `dlq.<group>.<topic>`. There it
//! waits until somebody has looked, repaired the handler or the payload, and sends it
//! again, or throws it away. The consumer offers all of that as operations
//! `dlq/<group>/…` on the admin port; [`DeadLetters`] is the same in code.
//!
//! A redriven message goes back to its topic under its old id, for the group that gave
//! it up. A consumer of another group passes over it, because that group has had the
//! message, and its inbox may have forgotten since. The own inbox knows nothing of it:
//! the note was rolled back with each failed try.
//!
//! Nothing is lost on the way: the message is stored by the broker before its dead
//! letter is removed. After a crash in between it is redriven twice, and the second
//! time is dropped by the broker, or by the inbox.

mod handle;
mod letter;
mod operations;

pub use handle::{DeadLetters, MAX_LETTERS, Pace, Swept};
pub use letter::{DeadLetter, Filter, Letters, Opened};

pub(crate) use letter::is_for_another_group;
pub(crate) use operations::offer;
