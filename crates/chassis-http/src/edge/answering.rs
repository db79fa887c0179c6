//! A request on its way through its handler, to its answer.
//!
//! By hand and not as an `async` block: one of those keeps a copy of the handler's future for
//! each wrapper that it is moved into, and this is made for each request.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context as Poller, Poll, ready},
};

use axum::response::{IntoResponse, Response};
use chassis_admission::Pass;
use chassis_core::{BoxFuture, Deadline, Error};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{class, complete, exchange::Exchange, panic::CatchPanic};
use crate::{limit::Tripped, problem::Problem};

pin_project_lite::pin_project! {
    /// Gives the answer of the handler, or what stands in for it when the time is up.
    pub(super) struct Answering<F> {
        #[pin]
        handler: CatchPanic<F>,
        // None before it must wait: most handlers have their answer at once.
        #[pin]
        until: Option<Sleep>,
        deadline: Instant,
        // None once it is answered.
        exchange: Option<Exchange>,
        tripped: Option<Tripped>,
        // None while it is paid for.
        pass: Option<Pass>,
        paying: Option<BoxFuture<'static, (Pass, Result<(), Error>)>>,
    }
}

impl<F> Answering<F> {
    // Else it is moved once more, and it is large.
    #[inline(always)]
    pub(super) fn new(
        handler: F,
        deadline: Deadline,
        exchange: Exchange,
        tripped: Option<Tripped>,
        pass: Pass,
    ) -> Answering<F> {
        // Nearly always there is nothing to pay: this is for a limit that instances share.
        let (pass, paying) = if pass.owes() {
            let mut pass = pass;
            let paying = async move {
                let paid = pass.pay().await;
                (pass, paid)
            };
            (None, Some(Box::pin(paying) as BoxFuture<'static, _>))
        } else {
            (Some(pass), None)
        };
        Answering {
            handler: CatchPanic::new(handler),
            until: None,
            deadline: deadline.instant(),
            exchange: Some(exchange),
            tripped,
            pass,
            paying,
        }
    }
}

impl<F> Answering<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    /// The answer, if there is one yet.
    fn poll_answer(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Response> {
        let mut this = self.project();
        let mut timeout = |poller: &mut Poller<'_>| {
            if this.until.is_none() {
                this.until.set(Some(sleep_until(*this.deadline)));
            }
            match this.until.as_mut().as_pin_mut() {
                Some(until) => until.poll(poller).map(|()| timed_out()),
                None => Poll::Pending,
            }
        };
        if let Some(paying) = this.paying {
            match paying.as_mut().poll(poller) {
                Poll::Ready((pass, paid)) => {
                    *this.paying = None;
                    *this.pass = Some(pass);
                    if let Err(refused) = paid {
                        return Poll::Ready(Problem::from(refused).into_response());
                    }
                }
                Poll::Pending => return timeout(poller),
            }
        }
        match this.handler.poll(poller) {
            Poll::Ready(Ok(Ok(response))) => Poll::Ready(response),
            Poll::Ready(Err(panic)) => Poll::Ready(panic.into_problem().into_response()),
            Poll::Pending => timeout(poller),
        }
    }
}

fn timed_out() -> Response {
    Problem::from(Deadline::exceeded()).into_response()
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        let response = ready!(self.as_mut().poll_answer(poller));
        let this = self.project();
        let Some(exchange) = this.exchange else {
            // Polled after its end, which nobody may do.
            return Poll::Pending;
        };
        // The place is for the work up to here: what streams is bounded by the connection that
        // it streams on.
        if let Some(pass) = this.pass.take() {
            pass.end(class(response.status()));
        }
        let status = response.status();
        let response = if status.is_client_error() || status.is_server_error() {
            complete(response, this.tripped.as_ref(), exchange.has_route())
        } else {
            response
        };
        Poll::Ready(Ok(Exchange::answer(this.exchange, response)))
    }
}
