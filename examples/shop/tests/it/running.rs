//! The shop opens, says where it is, and stops when it is told to.

use rustix::process::Signal;

use crate::support::{HalfSent, Shop, get};

const SERVICES: [&str; 7] =
    ["catalog", "inventory", "payment", "ordering", "shipping", "notification", "gateway"];

#[tokio::test]
async fn it_says_what_starts_and_where_everything_is() {
    let data = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(data.path()).await;
    shop.until_says("Stop: Ctrl-C").await;
    let text = shop.stdout();
    for name in SERVICES {
        assert!(text.contains(&format!("\n  {name} …\n")), "{name} starts: {text}");
        assert!(text.contains(&format!("\n  {name:<14}")), "{name} is in the table: {text}");
    }
    for promised in [
        format!("curl http://{}/api/products", shop.gateway),
        format!("http://{}", shop.admin),
        data.path().canonicalize().unwrap().display().to_string(),
    ] {
        assert!(text.contains(&promised), "{promised}: {text}");
    }

    let (status, products) = get(shop.gateway, "/api/products").await;
    assert_eq!((status, products["products"].as_array().unwrap().len()), (200, 7));
    assert_eq!(get(shop.admin, "/readyz").await.0, 200);
    for file in ["catalog.db", "inventory.db", "ordering.db", "broker"] {
        assert!(data.path().join(file).exists(), "{file}");
    }

    shop.signal(Signal::TERM);
    assert_eq!(shop.ended().await.code(), Some(0), "{}", shop.stderr());
    assert_eq!(shop.stderr(), "");
}

#[tokio::test]
async fn ctrl_c_finishes_what_is_in_flight_and_says_so() {
    let data = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(data.path()).await;
    let half = HalfSent::to(&shop).await;
    shop.signal(Signal::INT);
    shop.until_says("Stopping: what is in flight is finished first").await;
    // An order without anything in it is answered with what is wrong with it.
    assert_eq!(half.finish().await, 400);
    assert_eq!(shop.ended().await.code(), Some(0), "{}", shop.stderr());
    assert!(shop.stdout().contains("The shop has stopped; nothing is in flight"));
    assert_eq!(shop.stderr(), "");

    // What was stopped can be opened again.
    let shop = Shop::open(data.path()).await;
    assert_eq!(get(shop.gateway, "/api/products").await.0, 200);
}

#[tokio::test]
async fn a_second_ctrl_c_ends_at_once() {
    let data = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(data.path()).await;
    let _half = HalfSent::to(&shop).await;
    shop.signal(Signal::INT);
    shop.until_says("Stopping").await;
    shop.signal(Signal::INT);
    assert_eq!(shop.ended().await.code(), Some(130));
    assert_eq!(shop.stderr(), "Ended at once.\n");
}

#[tokio::test]
async fn it_goes_on_when_nobody_reads_what_it_says() {
    let data = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_without_reader(data.path()).await;
    assert_eq!(get(shop.gateway, "/api/products").await.0, 200);
    shop.signal(Signal::INT);
    assert_eq!(shop.ended().await.code(), Some(0), "{}", shop.stderr());
    assert_eq!(shop.stderr(), "");
}
