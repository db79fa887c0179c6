//! `shop.payment.v1.Payment`.

use chassis::core::Error;
use chassis::grpc::{IntoStatus, Services};
use shop_contracts::payment::v1 as wire;
use shop_contracts::payment::v1::payment_server::{self, PaymentServer};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::domain::{Charge, InvalidMoney, Money, State, Wish};
use crate::payment::Payments;

/// The longest id, key or token that is taken, in bytes.
const MAX_ID: usize = 128;

/// The gRPC services of this context.
pub fn routes(payments: &Payments) -> Services {
    Services::new(Routes::new(PaymentServer::new(Api { payments: payments.clone() })))
        .reflection(wire::FILE_DESCRIPTOR_SET)
}

struct Api {
    payments: Payments,
}

#[tonic::async_trait]
impl payment_server::Payment for Api {
    async fn charge(
        &self,
        request: Request<wire::ChargeRequest>,
    ) -> Result<Response<wire::ChargeResponse>, Status> {
        let wish = to_wish(request.into_inner()).map_err(IntoStatus::into_status)?;
        let payment_id = self.payments.charge(wish).await.map_err(IntoStatus::into_status)?;
        Ok(Response::new(wire::ChargeResponse { payment_id }))
    }

    async fn refund(
        &self,
        request: Request<wire::RefundRequest>,
    ) -> Result<Response<wire::RefundResponse>, Status> {
        // The order is key enough: there is one payment for each, and giving it
        // back twice changes nothing.
        let order_id =
            checked("order_id", request.into_inner().order_id).map_err(IntoStatus::into_status)?;
        self.payments.refund(&order_id).await.map_err(IntoStatus::into_status)?;
        Ok(Response::new(wire::RefundResponse {}))
    }

    async fn get_payment(
        &self,
        request: Request<wire::GetPaymentRequest>,
    ) -> Result<Response<wire::PaymentDetails>, Status> {
        let order_id = request.into_inner().order_id;
        let charge = self.payments.charge_of(&order_id).await.map_err(IntoStatus::into_status)?;
        Ok(Response::new(to_wire(charge)))
    }
}

fn to_wish(request: wire::ChargeRequest) -> Result<Wish, Error> {
    Ok(Wish {
        order_id: checked("order_id", request.order_id)?,
        idempotency_key: checked("idempotency_key", request.idempotency_key)?,
        amount: Money::new(request.amount_minor, request.currency).map_err(
            |wrong| match wrong {
                InvalidMoney::Amount => invalid("amount_minor", "must be more than zero"),
                InvalidMoney::Currency => invalid("currency", "must be an ISO 4217 code"),
            },
        )?,
        card_token: checked("card_token", request.card_token)?,
    })
}

fn to_wire(charge: Charge) -> wire::PaymentDetails {
    let status = match charge.state {
        State::Charging => "pending",
        // Until it is given back, it is still taken.
        State::Charged | State::Refunding => "charged",
        State::Declined => "declined",
        State::Refunded => "refunded",
    };
    wire::PaymentDetails {
        payment_id: charge.payment_id,
        status: status.to_owned(),
        amount_minor: charge.wish.amount.minor(),
        currency: charge.wish.amount.currency().to_owned(),
    }
}

fn checked(field: &'static str, value: String) -> Result<String, Error> {
    if (1..=MAX_ID).contains(&value.len()) {
        Ok(value)
    } else {
        Err(invalid(field, format!("must have 1 to {MAX_ID} bytes")))
    }
}

fn invalid(field: &'static str, problem: impl Into<String>) -> Error {
    Error::invalid_argument("INVALID_REQUEST", "the request is not valid")
        .with_field(field, problem)
}
