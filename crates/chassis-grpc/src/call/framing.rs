//! Where messages begin and end in a body, and how large they may be.
//!
//! Before each message stand five bytes: whether it is compressed, and its length. They are read
//! as they go by, without a copy. So a message that is too large is refused when its head has
//! come, before anybody makes room for it; and it is known how many there were, of which tonic
//! says nothing outside of generated code. What counts is the length on the wire; how large a
//! message becomes is bounded where it is decompressed.

use chassis_core::Error;

/// The reason of a refusal.
pub(crate) const MESSAGE_TOO_LARGE: &str = "GRPC_MESSAGE_TOO_LARGE";

/// How many bytes stand before a message.
pub(crate) const HEAD: usize = 5;

/// How large a message may be, in bytes, and on whose account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Receive(u32),
    Send(u32),
}

impl Limit {
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Limit::Receive(bytes) | Limit::Send(bytes) => bytes,
        }
    }

    /// The refusal of a message. Its size is not known if it was not decompressed to its end.
    pub(crate) fn refuse(self, size: Option<u32>) -> Error {
        let (verb, setting) = match self {
            Limit::Receive(_) => ("read", "grpc.max_receive_message_bytes"),
            Limit::Send(_) => ("sent", "grpc.max_send_message_bytes"),
        };
        let limit = self.bytes();
        let size = size.map_or_else(|| format!("more than {limit}"), |size| size.to_string());
        Error::resource_exhausted(
            "GRPC_MESSAGE_TOO_LARGE",
            format!("a message of {size} bytes is not {verb}: `{setting}` here is {limit}"),
        )
    }
}

/// How far the messages of a body have come.
#[derive(Debug)]
pub(crate) struct Framing {
    limit: Limit,
    /// Bytes of a head that are there.
    had: u8,
    /// The length in that head, as far as it is there.
    size: u32,
    /// Bytes of a message that are still to come.
    left: u32,
}

/// What a chunk of a body holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Messages that end in it.
    pub(crate) messages: u64,
    /// The first message that is too large; nothing was read behind its head.
    pub(crate) over: Option<Over>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Over {
    /// Where in the chunk it begins.
    pub(crate) at: usize,
    pub(crate) size: u32,
}

impl Framing {
    pub(crate) fn new(limit: Limit) -> Framing {
        Framing { limit, had: 0, size: 0, left: 0 }
    }

    pub(crate) fn limit(&self) -> Limit {
        self.limit
    }

    /// Reads the heads in a chunk. After one that is too large it must not be asked again.
    pub(crate) fn pass(&mut self, chunk: &[u8]) -> Passed {
        let mut passed = Passed::default();
        let mut rest = chunk;
        loop {
            if self.left > 0 {
                let here = rest.len().min(self.left as usize);
                rest = &rest[here..];
                // Not more than `left`, which is a `u32`.
                self.left -= here as u32;
                if self.left > 0 {
                    return passed;
                }
                passed.messages += 1;
            }
            let Some((byte, behind)) = rest.split_first() else { return passed };
            rest = behind;
            // The first of the five, the flag, is pushed out by the fifth.
            self.size = self.size << 8 | u32::from(*byte);
            self.had += 1;
            if usize::from(self.had) < HEAD {
                continue;
            }
            self.had = 0;
            if self.size > self.limit.bytes() {
                let at = (chunk.len() - rest.len()).saturating_sub(HEAD);
                passed.over = Some(Over { at, size: self.size });
                return passed;
            }
            self.left = self.size;
            passed.messages += u64::from(self.size == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use chassis_core::Code;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn framed(sizes: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for size in sizes {
            bytes.push(0);
            bytes.extend(size.to_be_bytes());
            bytes.resize(bytes.len() + *size as usize, 7);
        }
        bytes
    }

    proptest! {
        #[test]
        fn messages_are_counted_however_they_are_cut(
            sizes in vec(0u32..40, 0..12),
            cuts in vec(1usize..17, 1..40),
        ) {
            let bytes = framed(&sizes);
            let mut framing = Framing::new(Limit::Receive(39));
            let (mut rest, mut messages) = (&bytes[..], 0);
            for cut in cuts.iter().cycle() {
                let (chunk, behind) = rest.split_at((*cut).min(rest.len()));
                let passed = framing.pass(chunk);
                prop_assert_eq!(passed.over, None);
                messages += passed.messages;
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(messages, sizes.len() as u64);
        }
    }

    #[test]
    fn the_first_that_is_too_large_is_found_by_its_head() {
        let mut framing = Framing::new(Limit::Send(10));
        let bytes = framed(&[10, 0, 11]);
        let passed = framing.pass(&bytes[..25]);
        assert_eq!(passed, Passed { messages: 2, over: Some(Over { at: 20, size: 11 }) });

        // A head that came in two.
        let mut framing = Framing::new(Limit::Send(10));
        assert_eq!(framing.pass(&[1, 0xff]), Passed::default());
        let over = framing.pass(&[0xff, 0xff, 0xff, 9]).over;
        assert_eq!(over, Some(Over { at: 0, size: u32::MAX }));
    }

    #[test]
    fn a_refusal_names_the_limit() {
        let error = Limit::Receive(10).refuse(Some(11));
        assert_eq!(
            (error.code(), error.reason()),
            (Code::ResourceExhausted, "GRPC_MESSAGE_TOO_LARGE")
        );
        let text = "a message of 11 bytes is not read: `grpc.max_receive_message_bytes` here is 10";
        assert_eq!(error.message(), text);
        let error = Limit::Send(10).refuse(None);
        let text =
            "a message of more than 10 bytes is not sent: `grpc.max_send_message_bytes` here is 10";
        assert_eq!(error.message(), text);
    }
}
