//! An answer of unknown length, watched until its last byte.

use std::{
    pin::Pin,
    task::{Context as Poller, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::exchange::Exchange;

pin_project_lite::pin_project! {
    /// An answer of unknown length: its exchange ends with its last byte, or when it is cut.
    pub(super) struct Watched {
        #[pin]
        inner: Body,
        exchange: Option<Exchange>,
    }

    impl PinnedDrop for Watched {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let is_whole = http_body::Body::is_end_stream(&*this.inner);
            if let Some(exchange) = this.exchange.take().filter(|_| !is_whole) {
                exchange.cut();
            }
        }
    }
}

impl Watched {
    pub(super) fn new(inner: Body, exchange: Option<Exchange>) -> Watched {
        Watched { inner, exchange }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        poller: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(poller));
        match &frame {
            None => drop(this.exchange.take()),
            Some(Err(_)) => {
                if let Some(exchange) = this.exchange.take() {
                    exchange.cut();
                }
            }
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
