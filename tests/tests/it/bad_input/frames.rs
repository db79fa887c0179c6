//! HTTP/2 as frames (RFC 9113, 4.1), for a client that keeps to no rule.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::hello::SOON;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// The error of a GOAWAY to a client that asks too much.
pub(super) const ENHANCE_YOUR_CALM: u8 = 11;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A head as HPACK without tables: each name and value as it is.
pub(super) fn head(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        block.push(u8::try_from(name.len()).unwrap());
        block.extend(name.as_bytes());
        assert!(value.len() < 127, "one byte for the length");
        block.push(value.len() as u8);
        block.extend(*value);
    }
    block
}

/// The head of a GET.
pub(super) fn get(path: &str) -> Vec<u8> {
    head(&[
        (":method", b"GET"),
        (":scheme", b"http"),
        (":path", path.as_bytes()),
        (":authority", b"test"),
    ])
}

/// The head of a call.
pub(super) fn call(path: &str) -> Vec<u8> {
    head(&[
        (":method", b"POST"),
        (":scheme", b"http"),
        (":path", path.as_bytes()),
        (":authority", b"test"),
        ("content-type", b"application/grpc"),
        ("te", b"trailers"),
    ])
}

/// A connection that has said the preface and empty settings.
pub(super) async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    stream.write_all(&hello).await.unwrap();
    stream
}

/// How a client that only writes has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it was taken.
    All,
    /// Nothing more is taken: the server waits for its answers to be read.
    HeldUp,
    /// The server has closed the connection.
    Closed,
}

/// Writes the same bytes so many times, and reads nothing.
pub(super) async fn write_many(stream: &mut TcpStream, bytes: &[u8], times: usize) -> Written {
    for _ in 0..times {
        match tokio::time::timeout(Duration::from_secs(2), stream.write_all(bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Written::Closed,
            Err(_) => return Written::HeldUp,
        }
    }
    Written::All
}

/// Reads until the server ends the connection; gives the frames as kind, flags and payload.
pub(super) async fn read_all(stream: &mut TcpStream) -> Vec<(u8, u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let read = async {
        let mut chunk = vec![0; 64 * 1024];
        while let io::Result::Ok(count @ 1..) = stream.read(&mut chunk).await {
            bytes.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::time::timeout(SOON, read).await.expect("the server ends the connection");
    frames(&bytes)
}

/// Whole frames among these bytes.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, ..] = *bytes {
        let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        let Some(payload) = bytes.get(9..end) else { break };
        frames.push((kind, flags, payload.to_vec()));
        bytes = &bytes[end..];
    }
    frames
}
