//! Bodies whose messages are compressed or decompressed as they go by.
//!
//! A compressed message is a small one that can become very large. So both sizes have the same
//! limit, and what becomes larger is given up at the limit and not at its end.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chassis_core::BoxError;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;

use super::body::ending;
use super::framing::{HEAD, Limit};
use crate::IntoStatus;

const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

/// A body whose compressed messages are read as if they were not.
pub(crate) fn inflate<B>(body: B, limit: Limit) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    Body::new(Recoded::new(body, Recode::Inflate, limit, false))
}

/// A body whose messages from so many bytes on are compressed. What is wrong with one is said in
/// the trailers if this side serves.
pub(crate) fn deflate(body: Body, from: u16, limit: Limit, serving: bool) -> Body {
    Body::new(Recoded::new(body, Recode::Deflate { from: from.into() }, limit, serving))
}

#[derive(Clone, Copy)]
enum Recode {
    Inflate,
    Deflate { from: usize },
}

struct Recoded<B> {
    body: B,
    recode: Recode,
    limit: Limit,
    serving: bool,
    /// What has come of a message that is not complete: no more than the limit and a chunk.
    come: BytesMut,
    /// What follows when the messages before it are read.
    failure: Option<Status>,
    done: bool,
}

impl<B> Recoded<B> {
    fn new(body: B, recode: Recode, limit: Limit, serving: bool) -> Recoded<B> {
        let come = BytesMut::new();
        Recoded { body, recode, limit, serving, come, failure: None, done: false }
    }

    /// Moves the messages that are complete.
    fn advance(&mut self, out: &mut BytesMut) -> Result<(), Status> {
        while let Some((head, _)) = self.come.split_first_chunk::<HEAD>() {
            let [flag, size @ ..] = *head;
            let size = u32::from_be_bytes(size);
            if size > self.limit.bytes() {
                return Err(self.limit.refuse(Some(size)).into_status());
            }
            let Some(message) = self.come.get(HEAD..HEAD + size as usize) else { break };
            match (self.recode, flag) {
                (Recode::Inflate, COMPRESSED) => put(out, PLAIN, &inflated(message, self.limit)?),
                (Recode::Deflate { from }, PLAIN) if message.len() >= from => {
                    let small = deflated(message).map_err(broken)?;
                    // What is random only grows.
                    if small.len() < message.len() {
                        put(out, COMPRESSED, &small);
                    } else {
                        put(out, PLAIN, message);
                    }
                }
                _ => put(out, flag, message),
            }
            self.come.advance(HEAD + size as usize);
        }
        Ok(())
    }

    fn fail(&mut self, status: Status) -> Result<Frame<Bytes>, Status> {
        self.done = true;
        ending(status, self.serving)
    }
}

fn put(out: &mut BytesMut, flag: u8, message: &[u8]) {
    out.reserve(HEAD + message.len());
    out.put_u8(flag);
    // It is below a limit that is one.
    out.put_u32(message.len() as u32);
    out.put_slice(message);
}

fn deflated(message: &[u8]) -> io::Result<Vec<u8>> {
    // The task that answers does it, and others wait for their turn meanwhile.
    let mut encoder = GzEncoder::new(Vec::with_capacity(message.len() / 4), Compression::fast());
    encoder.write_all(message)?;
    encoder.finish()
}

fn inflated(message: &[u8], limit: Limit) -> Result<Vec<u8>, Status> {
    let most = limit.bytes() as usize;
    let mut plain = Vec::with_capacity(message.len().saturating_mul(4).min(most));
    let mut decoder = GzDecoder::new(message).take(most as u64 + 1);
    decoder.read_to_end(&mut plain).map_err(broken)?;
    if plain.len() > most {
        return Err(limit.refuse(None).into_status());
    }
    Ok(plain)
}

/// The code is that of gRPC for it.
fn broken(error: io::Error) -> Status {
    Status::internal(format!("a message cannot be read or written as gzip: {error}"))
}

impl<B> HttpBody for Recoded<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(status) = this.failure.take() {
                return Poll::Ready(Some(this.fail(status)));
            }
            if this.done {
                return Poll::Ready(None);
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data(),
                Some(Err(error)) => {
                    this.done = true;
                    return Poll::Ready(Some(Err(Status::from_error(error.into()))));
                }
                None if this.come.is_empty() => return Poll::Ready(None),
                None => {
                    this.failure = Some(cut());
                    continue;
                }
            };
            match frame {
                Ok(data) => {
                    this.come.extend_from_slice(&data);
                    let mut out = BytesMut::new();
                    this.failure = this.advance(&mut out).err();
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(out.freeze()))));
                    }
                }
                Err(trailers) if this.come.is_empty() => {
                    return Poll::Ready(Some(Ok(trailers)));
                }
                Err(_) => this.failure = Some(cut()),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done || (self.failure.is_none() && self.come.is_empty() && self.body.is_end_stream())
    }
}

fn cut() -> Status {
    Status::internal("the messages ended within one")
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use http_body_util::{BodyExt, StreamBody};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Limit = Limit::Receive(4096);

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for message in messages {
            put(&mut out, PLAIN, message);
        }
        out.to_vec()
    }

    fn body(bytes: &[u8], cut: usize) -> Body {
        let frames: Vec<_> = bytes
            .chunks(cut)
            .map(|chunk| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    fn read(body: Body) -> Result<Vec<u8>, Status> {
        Ok(body.collect().now_or_never().unwrap()?.to_bytes().to_vec())
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(
            messages in vec(vec(0u8..3, 0..300), 0..6),
            from in 1u16..100,
            (cut, cut_again) in (1usize..50, 1usize..50),
        ) {
            let plain = framed(&messages);
            let small = read(deflate(body(&plain, cut), from, LIMIT, false)).unwrap();
            let back = read(inflate(body(&small, cut_again), LIMIT)).unwrap();
            prop_assert_eq!(back, plain);
        }
    }

    #[test]
    fn small_and_random_messages_stay_plain() {
        let small = vec![7; 99];
        let mut random = vec![0; 2048];
        fastrand::Rng::with_seed(1).fill(&mut random);
        let plain = framed(&[small, random]);
        assert_eq!(read(deflate(body(&plain, 64), 100, LIMIT, false)).unwrap(), plain);
    }

    #[test]
    fn both_sizes_are_limited() {
        let fits = framed(&[vec![0; 4096]]);
        let small = read(deflate(body(&fits, 512), 1, LIMIT, false)).unwrap();
        assert!(small.len() < 100, "{}", small.len());
        assert_eq!(read(inflate(body(&small, 512), LIMIT)).unwrap(), fits);

        let large = framed(&[vec![0; 4097]]);
        let refused = read(deflate(body(&large, 512), 1, LIMIT, false)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let small = read(deflate(body(&large, 512), 1, Limit::Send(5000), false)).unwrap();
        let refused = read(inflate(body(&small, 512), LIMIT)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().starts_with("a message of more than 4096 bytes"), "{refused}");
    }

    #[test]
    fn what_is_broken_fails() {
        let mut garbage = BytesMut::new();
        put(&mut garbage, COMPRESSED, b"this is no gzip");
        for broken in [&garbage[..], &garbage[..9], &garbage[..3]] {
            let status = read(inflate(body(broken, 4), LIMIT)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Internal);
        }
    }
}
