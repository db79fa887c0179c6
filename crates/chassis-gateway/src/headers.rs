//! Which headers end here: those of the connection, not of the message.
//!
//! RFC 9110, 7.6.1: an intermediary removes `Connection`, every field that it lists, and the
//! fields that are known to be of one hop. Whatever is left of the framing is removed too
//! (`Content-Length` of a request, `Transfer-Encoding`): the next hop is framed anew from the
//! body itself, so two readers cannot disagree about where it ends.

use http::{HeaderMap, HeaderName, header};

/// Fields of one hop, whether `Connection` lists them or not.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Fields of one hop that no standard knows, or that `HeaderName` has no constant for.
const HOP_BY_HOP_TOO: [HeaderName; 3] = [
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("http2-settings"),
];

/// Removes what belongs to the connection on which a message came.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP).chain(&HOP_BY_HOP_TOO) {
        headers.remove(name);
    }
}

/// Removes what a request must not carry over: its hop, its framing, its name for us.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(header::CONTENT_LENGTH);
    // Answered by our own server already.
    headers.remove(header::EXPECT);
    // The client names the service that it calls.
    headers.remove(header::HOST);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_connection_lists_is_removed_however_it_is_written() {
        let mut found = headers(&[
            ("connection", "X-Secret , close"),
            ("connection", "x-other,,@,"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("x-other", "3"),
            ("cookie", "a=b; c=d"),
        ]);
        strip_hop_by_hop(&mut found);
        assert_eq!(names(&found), ["cookie"]);
    }

    #[test]
    fn fields_of_one_hop_are_removed_unlisted() {
        let mut found = headers(&[
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("http2-settings", "AA"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic AA"),
            ("proxy-connection", "close"),
            ("content-length", "5"),
            ("expect", "100-continue"),
            ("host", "edge.example"),
            ("authorization", "Bearer t"),
        ]);
        strip_request(&mut found);
        assert_eq!(names(&found), ["authorization"]);
    }

    proptest! {
        #[test]
        fn nothing_of_the_connection_survives(
            listed in proptest::collection::vec("[a-zA-Z0-9-]{1,12}", 0..8),
            blanks in "[ \t]{0,3}",
        ) {
            let mut found = HeaderMap::new();
            let value = listed.join(&format!("{blanks},{blanks}"));
            found.append(header::CONNECTION, HeaderValue::from_str(&value).unwrap());
            for name in &listed {
                found.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("v"));
            }
            strip_hop_by_hop(&mut found);
            prop_assert!(found.is_empty(), "{found:?}");
        }
    }
}
