//! Messages that are compressed on the wire, by gzip.
//!
//! tonic does it where generated code says so, for each service by itself. Here it is done to the
//! bodies that go by, so that a setting is enough: a message is decompressed before tonic reads
//! it, and compressed after tonic has written it. What tonic does by itself is left alone.

use http::{HeaderMap, HeaderName, HeaderValue};

#[cfg(feature = "compression")]
pub(crate) use super::gzip::{deflate, inflate};

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GZIP: &str = "gzip";

/// What one side does about compression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compression {
    /// The smallest message that goes out compressed, in bytes; none if none does.
    pub(crate) sends_from: Option<u16>,
    /// Whether what comes in compressed is decompressed here.
    pub(crate) reads: bool,
}

/// Whether the messages behind these headers are for us to decompress. The headers say then
/// what comes out of that.
pub(crate) fn take(headers: &mut HeaderMap) -> bool {
    let is_gzip = headers.get(&ENCODING).is_some_and(|value| value == GZIP);
    if is_gzip {
        headers.remove(&ENCODING);
    }
    is_gzip
}

/// Whether the other side reads what is compressed.
pub(crate) fn is_accepted(headers: &HeaderMap) -> bool {
    headers.get_all(&ACCEPTED).iter().any(|value| {
        let names = value.to_str().unwrap_or_default();
        names.split(',').any(|name| name.trim() == GZIP)
    })
}

/// Says that what follows may be compressed; false if it already says that of itself.
pub(crate) fn say(headers: &mut HeaderMap) -> bool {
    say_if_nobody_did(headers, ENCODING, HeaderValue::from_static(GZIP))
}

/// Says that the answer may be compressed; false if whoever calls has said what it reads.
pub(crate) fn accept(headers: &mut HeaderMap) -> bool {
    say_if_nobody_did(headers, ACCEPTED, HeaderValue::from_static("gzip,identity"))
}

fn say_if_nobody_did(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> bool {
    let unsaid = !headers.contains_key(&name);
    if unsaid {
        headers.insert(name, value);
    }
    unsaid
}

/// Without the feature nobody gets here: the settings that ask for it are refused.
#[cfg(not(feature = "compression"))]
mod without {
    use bytes::Bytes;
    use chassis_core::BoxError;
    use http_body::Body as HttpBody;
    use tonic::body::Body;

    use crate::call::framing::Limit;

    pub(crate) fn inflate<B>(body: B, _: Limit) -> Body
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        Body::new(body)
    }

    pub(crate) fn deflate(body: Body, _: u16, _: Limit, _: bool) -> Body {
        body
    }
}

#[cfg(not(feature = "compression"))]
pub(crate) use without::{deflate, inflate};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_accepts_it_says_so() {
        for (said, accepted) in [
            ("gzip", true),
            ("identity, gzip", true),
            ("deflate,gzip,identity", true),
            ("identity", false),
            ("xgzip", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPTED, said.parse().unwrap())]);
            assert_eq!(is_accepted(&headers), accepted, "{said}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
    }

    #[test]
    fn what_others_do_is_left_alone() {
        let mut headers = HeaderMap::from_iter([(ENCODING, "zstd".parse().unwrap())]);
        assert!(!take(&mut headers) && !say(&mut headers));
        assert_eq!(headers[ENCODING], "zstd");
        let mut headers = HeaderMap::new();
        assert!(say(&mut headers) && take(&mut headers) && !take(&mut headers));
    }
}
