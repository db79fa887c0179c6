//! The steps in the reader's order. What a page shows as an answer is asserted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use chassis::core::Code;
use chassis::discovery::{Discovery, DiscoveryConfig};
use chassis::grpc::{Channel, from_status};
use chassis_test::eventually;
use chassis_tutorial::seats::seats_client::SeatsClient;
use chassis_tutorial::seats::{HoldRequest, ReleaseRequest};
use serde_json::{Value, json};

use crate::service::{SOON, Service};

/// The settings that tell a service where another one is.
fn at(service: &str, protocol: &str, address: impl ToString) -> (String, String) {
    let name = format!("DISCOVERY__SERVICES__{service}__{protocol}");
    (name, address.to_string())
}

/// Starts a program that has to know these others.
async fn start_knowing(program: &str, others: &[(String, String)]) -> Service {
    let mut vars = vec![("DISCOVERY__MODE", "fixed".to_owned())];
    vars.extend(others.iter().map(|(name, value)| (name.as_str(), value.clone())));
    Service::start(program, &vars).await
}

#[tokio::test]
async fn step1_answers_and_is_ready() {
    let service = Service::start(env!("CARGO_BIN_EXE_step1_hello"), &[]).await;
    let ready: Value = serde_json::from_str(&service.admin("/readyz").await).unwrap();
    assert_eq!(ready["status"], "up");
    assert!(service.admin("/plan").await.contains("http"));
    let (status, problem) = service.get("/nowhere").await;
    assert_eq!((status, &problem["reason"]), (404, &json!("ROUTE_NOT_FOUND")));
    service.stop().await;
}

#[tokio::test]
async fn step2_books_and_refuses_with_reasons() {
    let service = Service::start(env!("CARGO_BIN_EXE_step2_http"), &[]).await;
    let ada = json!({ "seat": "A1", "name": "ada" });
    let booked = service.post("/bookings", ada.clone()).await;
    assert_eq!(booked, (201, json!({ "id": 0, "seat": "A1", "name": "ada" })));
    assert_eq!(service.get("/bookings/0").await.0, 200);

    let (status, problem) = service.post("/bookings", ada).await;
    assert_eq!((status, &problem["reason"]), (409, &json!("SEAT_TAKEN")));
    let (status, problem) = service.post("/bookings", json!({ "seat": "", "name": "" })).await;
    assert_eq!((status, &problem["reason"]), (400, &json!("INVALID_BOOKING")));
    assert_eq!(problem["errors"][0]["field"], "seat", "{problem}");
    let (status, problem) = service.post("/bookings", json!({ "seat": 7 })).await;
    assert_eq!(status, 400, "{problem}");
    let (status, problem) = service.get("/bookings/9").await;
    assert_eq!((status, &problem["reason"]), (404, &json!("BOOKING_NOT_FOUND")));
    service.stop().await;
}

fn seats(service: &Service) -> SeatsClient<Channel> {
    let mut config = DiscoveryConfig::default();
    let places = [("grpc".to_owned(), vec![service.grpc.unwrap().to_string()])];
    config.services.insert("seats".to_owned(), places.into());
    let channel = Channel::builder("seats", &Discovery::new(&config).unwrap());
    SeatsClient::new(channel.build().unwrap())
}

#[tokio::test]
async fn step3_holds_and_releases() {
    let service = Service::start(env!("CARGO_BIN_EXE_step3_grpc"), &[]).await;
    let mut seats = seats(&service);
    let hold = |booking: &str| HoldRequest { booking_id: booking.into(), seat: "A1".into() };
    let release = |booking: &str| ReleaseRequest { booking_id: booking.into() };
    seats.hold(hold("one")).await.unwrap();
    seats.hold(hold("one")).await.unwrap();
    let taken = from_status(seats.hold(hold("two")).await.unwrap_err());
    assert_eq!((taken.code(), taken.reason()), (Code::AlreadyExists, "SEAT_TAKEN"));
    seats.release(release("one")).await.unwrap();
    seats.hold(hold("two")).await.unwrap();
    let late = from_status(seats.hold(hold("one")).await.unwrap_err());
    assert_eq!(late.reason(), "BOOKING_RELEASED");
    service.stop().await;
}

#[tokio::test]
async fn step4_keeps_bookings_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}?mode=rwc", folder.path().join("bookings.db").display());
    let vars = [("DATABASE_URL", file)];
    let program = env!("CARGO_BIN_EXE_step4_database");
    let service = Service::start(program, &vars).await;
    let (status, booked) = service.post("/bookings", json!({ "seat": "A1", "name": "ada" })).await;
    assert_eq!(status, 201, "{booked}");
    let (_, problem) = service.post("/bookings", json!({ "seat": "A1", "name": "bob" })).await;
    assert_eq!(problem["reason"], "SEAT_TAKEN");
    assert!(service.admin("/readyz").await.contains("bookings-db"));
    service.stop().await;

    let again = Service::start(program, &vars).await;
    let path = format!("/bookings/{}", booked["id"].as_str().unwrap());
    assert_eq!(again.get(&path).await, (200, booked));
    again.stop().await;
}

#[tokio::test]
async fn step5_writes_a_letter_for_each_booking() {
    let service = Service::start(env!("CARGO_BIN_EXE_step5_events"), &[]).await;
    let (status, booked) = service.post("/bookings", json!({ "seat": "A1", "name": "ada" })).await;
    assert_eq!(status, 201, "{booked}");
    let path = format!("/letters/{}", booked["booking_id"].as_str().unwrap());
    assert_eq!(service.until_found(&path).await, "Dear ada, your seat is A1.");
    let metrics = service.admin("/metrics").await;
    assert!(metrics.contains("outbox_published_total"), "{metrics}");
    assert!(service.admin("/ops").await.contains("dlq/mail/list"));
    service.stop().await;
}

#[tokio::test]
async fn step6_confirms_or_undoes() {
    let house = Service::start(env!("CARGO_BIN_EXE_step3_grpc"), &[]).await;
    let others = [at("SEATS", "GRPC", house.grpc.unwrap())];
    let service = start_knowing(env!("CARGO_BIN_EXE_step6_saga"), &others).await;
    let buy = async |seat: &str, card: &str| {
        let (status, ticket) =
            service.post("/tickets", json!({ "seat": seat, "card": card })).await;
        assert_eq!(status, 202, "{ticket}");
        let path = format!("/tickets/{}", ticket["id"].as_str().unwrap());
        service.until(&path, |ticket| ticket["status"] != "pending").await
    };
    let refused = buy("A1", "stolen").await;
    assert_eq!(
        (&refused["status"], &refused["reason"]),
        (&json!("cancelled"), &json!("CARD_REFUSED"))
    );
    // The seat was given back.
    assert_eq!(buy("A1", "good").await["status"], "confirmed");
    let taken = buy("A1", "good").await;
    assert_eq!((&taken["status"], &taken["reason"]), (&json!("cancelled"), &json!("SEAT_TAKEN")));

    let ended = service.admin("/ops/sagas/purchase/list").await;
    assert!(ended.contains("cancelled") && ended.contains("completed"), "{ended}");
    assert!(!ended.contains("stolen"), "the card is nobody's to see: {ended}");
    service.stop().await;
    house.stop().await;
}

/// A bank that counts its calls and says what it is told to say.
struct Bank {
    address: std::net::SocketAddr,
    calls: Arc<AtomicU32>,
    /// Fails while this is above zero, and counts down.
    failures: Arc<AtomicU32>,
}

impl Bank {
    async fn open() -> Bank {
        let (calls, failures) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (count, fail) = (calls.clone(), failures.clone());
        let answer = async move || {
            count.fetch_add(1, Ordering::Relaxed);
            let failing =
                fail.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            let status =
                if failing.is_ok() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            (status, axum::Json(json!({ "good": true })))
        };
        let router = Router::new().route("/cards/{card}", get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Bank { address, calls, failures }
    }
}

#[tokio::test]
async fn step7_retries_and_then_stops_asking() {
    let bank = Bank::open().await;
    let others = [at("BANK", "HTTP", bank.address)];
    let service = start_knowing(env!("CARGO_BIN_EXE_step7_resilience"), &others).await;

    bank.failures.store(2, Ordering::Relaxed);
    assert_eq!(service.get("/cards/7").await, (200, json!({ "good": true })));
    assert_eq!(bank.calls.load(Ordering::Relaxed), 3, "two retries");

    bank.failures.store(u32::MAX, Ordering::Relaxed);
    let unknown = |body: &Value| body["reason"] == "CIRCUIT_OPEN";
    assert_eq!(service.until("/cards/7", unknown).await["good"], Value::Null);
    let metrics = service.admin("/metrics").await;
    assert!(metrics.contains("client_breaker_transitions_total{"), "{metrics}");
    service.stop().await;
}

#[tokio::test]
async fn step8_marks_what_is_missing() {
    let bookings = Service::start(env!("CARGO_BIN_EXE_step4_database"), &[]).await;
    let nobody = "127.0.0.1:1";
    let others = [at("BOOKINGS", "HTTP", bookings.address.unwrap()), at("CARDS", "HTTP", nobody)];
    let edge = start_knowing(env!("CARGO_BIN_EXE_step8_gateway"), &others).await;
    let (status, booked) = edge.post("/api/bookings", json!({ "seat": "A1", "name": "ada" })).await;
    assert_eq!(status, 201, "{booked}");
    let path = format!("/api/bookings/{}/with-card/7", booked["id"].as_str().unwrap());
    let (status, page) = edge.get(&path).await;
    assert_eq!((status, &page["booking"]), (200, &booked));
    assert_eq!(page["card"], Value::Null);
    eventually("the missing part is counted", SOON, async || {
        let metrics = edge.admin("/metrics").await;
        metrics.contains("gateway_missing_parts_total{part=\"card\"}").then_some(())
    })
    .await;
    let (status, problem) = edge.get("/api/bookings/none/with-card/7").await;
    assert_eq!((status, &problem["reason"]), (404, &json!("BOOKING_NOT_FOUND")));
    edge.stop().await;
    bookings.stop().await;
}
