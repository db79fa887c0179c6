//! `POST /orders`: once for each key, and read back as it was placed.

use chassis::Context;
use futures_util::future::join_all;
use serde_json::json;
use shop_contracts::events::OrderConfirmed;
use shop_contracts::ordering::v1::GetOrderRequest;
use shop_contracts::ordering::v1::ordering_client::OrderingClient;

use crate::fakes::Fault;
use crate::support::{Shop, order, order_of};

#[tokio::test]
async fn an_order_is_accepted_and_can_be_read() {
    let shop = Shop::open().await;
    let _held = shop.world.hold("charge");
    let lines = json!([{ "sku": "cup", "quantity": 2 }, { "sku": "pot", "quantity": 1 }]);
    let body = json!({ "customer_id": "ada", "card_token": "tok_visa", "lines": lines });
    let answer = shop.post(&body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.body["id"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("/orders/{id}"));

    let order = shop.get(&format!("/orders/{id}")).await;
    assert_eq!(order.status, 200);
    assert_eq!(order.body, answer.body, "the answer is the order");
    assert_eq!(order.body["status"], "pending");
    assert_eq!(order.body["customer_id"], "ada");
    assert_eq!(order.body["lines"], lines);
    assert!(order.body.get("reason").is_none(), "{order:?}");
    assert!(order.body["total_minor"].is_null(), "the price is fixed later: {order:?}");
}

#[tokio::test]
async fn an_order_remembers_its_trace_and_its_events_carry_it() {
    let shop = Shop::open().await;
    let context = Context::background(shop.env());
    let trace = context.trace().trace_id.to_string();
    let id = context.scope(shop.place(&order("tok_visa", "cup", 1))).await;
    assert_eq!(shop.until(&id, "confirmed").await["trace_id"], trace);
    let (message, _) = shop.next::<OrderConfirmed>().await;
    assert!(message.header("traceparent").unwrap().contains(&trace), "{message:?}");
}

#[tokio::test]
async fn the_same_request_with_the_same_key_is_the_same_order() {
    let shop = Shop::open().await;
    let body = order("tok_visa", "cup", 1);
    let first = shop.post_with_key("k", &body).await;
    let second = shop.post_with_key("k", &body).await;
    assert_eq!((first.status, second.status), (202, 202));
    assert_eq!(first.body["id"], second.body["id"]);
    assert_eq!(first.headers["location"], second.headers["location"]);

    for other in
        [order("tok_visa", "cup", 2), order("tok_visa", "pot", 1), order("tok_master", "cup", 1)]
    {
        shop.post_with_key("k", &other).await.assert_problem(409, "IDEMPOTENCY_KEY_REUSED");
    }
    let all = shop.get("/orders?customer_id=ada").await;
    assert_eq!(all.body["orders"].as_array().unwrap().len(), 1, "{all:?}");
}

#[tokio::test]
async fn a_key_belongs_to_one_customer() {
    let shop = Shop::open().await;
    let ada = shop.post_with_key("k", &order_of("ada", "tok_visa", "cup", 1)).await;
    let bob = shop.post_with_key("k", &order_of("bob", "tok_visa", "cup", 1)).await;
    assert_eq!((ada.status, bob.status), (202, 202));
    assert_ne!(ada.body["id"], bob.body["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_at_the_same_time_is_one_order() {
    let shop = Shop::open().await;
    let body = order("tok_visa", "cup", 1);
    let answers = join_all((0..16).map(|_| shop.post_with_key("k", &body))).await;
    let id = answers[0].body["id"].as_str().unwrap().to_owned();
    for answer in answers {
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.body["id"], id);
    }
    shop.until(&id, "confirmed").await;
    assert_eq!(shop.world.available("cup"), 99);
    let all = shop.get("/orders?customer_id=ada").await;
    assert_eq!(all.body["orders"].as_array().unwrap().len(), 1, "{all:?}");
}

#[tokio::test]
async fn a_repeated_request_needs_nobody_else() {
    let shop = Shop::open().await;
    let body = order("tok_visa", "cup", 1);
    let first = shop.post_with_key("k", &body).await;
    shop.until(first.body["id"].as_str().unwrap(), "confirmed").await;

    let asked = shop.world.calls("get-product").len();
    shop.world.fail("get-product", [Fault::Refuse]);
    let second = shop.post_with_key("k", &body).await;
    assert_eq!((second.status, &second.body["id"]), (202, &first.body["id"]));
    assert_eq!(shop.world.calls("get-product").len(), asked);
}

#[tokio::test]
async fn a_list_shows_the_newest_of_one_customer_first() {
    let shop = Shop::open().await;
    let mut ids = Vec::new();
    for quantity in 1..=3 {
        ids.push(shop.place(&order("tok_visa", "cup", quantity)).await);
    }
    shop.place(&order_of("bob", "tok_visa", "cup", 1)).await;

    let all = shop.get("/orders?customer_id=ada").await;
    let listed: Vec<_> = all.body["orders"].as_array().unwrap().iter().collect();
    ids.reverse();
    assert_eq!(listed.iter().map(|order| order["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    let quantities: Vec<_> = listed.iter().map(|order| &order["lines"][0]["quantity"]).collect();
    assert_eq!(quantities, [3, 2, 1]);

    let nobody = shop.get("/orders?customer_id=nobody").await;
    assert_eq!((nobody.status, nobody.body), (200, json!({ "orders": [] })));
}

#[tokio::test]
async fn grpc_tells_the_same() {
    let shop = Shop::open().await;
    let id = shop.place(&order("tok_visa", "cup", 2)).await;
    let shown = shop.until(&id, "confirmed").await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", shop.grpc()));
    let mut client = OrderingClient::new(channel.unwrap().connect().await.unwrap());

    let order = client.get_order(GetOrderRequest { id: id.clone() }).await.unwrap().into_inner();
    assert_eq!((&order.id, order.status.as_str()), (&id, "confirmed"));
    assert_eq!((order.total_minor, order.currency.as_str()), (2_400, "EUR"));
    assert_eq!((order.lines[0].sku.as_str(), order.lines[0].quantity), ("cup", 2));
    assert_eq!(order.trace_id, shown["trace_id"]);
    assert_eq!(order.reason, None);

    let unknown = client.get_order(GetOrderRequest { id: "x".to_owned() }).await.unwrap_err();
    let error = chassis::grpc::from_status(unknown);
    assert_eq!((error.reason(), &*error.details()["id"]), ("ORDER_NOT_FOUND", "x"));
}
