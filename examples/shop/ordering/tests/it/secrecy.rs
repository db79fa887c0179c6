//! A card token is needed for one call. It is in no log, and in no file when the order is
//! paid or given up.

use chassis_test::CapturedLogs;
use shop_contracts::events::OrderConfirmed;
use tracing::Level;

use crate::fakes::BAD_CARD;
use crate::support::{Shop, order};

/// On the thread of this test, where everything that it starts runs.
#[tokio::test]
async fn a_card_token_is_in_no_log() {
    let (logs, _guard) = CapturedLogs::on_this_thread(Level::TRACE);
    let shop = Shop::open().await;
    let card = "tok_4711_in_no_log";
    let good = shop.post_with_key("k", &order(card, "cup", 1)).await;
    let other = shop.post_with_key("k", &order("tok_4711_in_no_log_either", "cup", 1)).await;
    assert_eq!((good.status, other.status), (202, 409));
    // Not by asking again and again, which would push the lines that matter out of the log.
    shop.next::<OrderConfirmed>().await;
    let lines = logs.lines();
    assert!(lines.iter().any(|line| line["message"] == "saga step done"), "{lines:?}");
    for line in lines {
        assert!(!line.to_string().contains("tok_4711"), "{line}");
    }
}

#[tokio::test]
async fn a_card_token_is_not_kept_longer_than_it_is_needed() {
    let shop = Shop::open().await;
    let paid = shop.post_with_key("k", &order("tok_4711_paid", "cup", 1)).await;
    shop.until(paid.body["id"].as_str().unwrap(), "confirmed").await;
    let refused = shop.place(&order(BAD_CARD, "cup", 1)).await;
    shop.until(&refused, "cancelled").await;
    // Ends before the card is asked for.
    let missing = shop.place(&order("tok_4711_out", "mug", 1)).await;
    shop.until(&missing, "cancelled").await;

    for sql in ["select data from chassis_saga", "select fingerprint from order_requests"] {
        let kept = shop.texts(sql).await;
        assert!(!kept.is_empty(), "{sql}");
        for token in ["tok_4711", BAD_CARD] {
            assert!(!kept.iter().any(|text| text.contains(token)), "{token}: {kept:?}");
        }
    }
}
