//! Reserving: all lines or none, once for each id.

use chassis::core::Code;

use crate::support::{Shop, assert_refused};

#[tokio::test]
async fn pieces_are_kept_and_no_longer_available() {
    let shop = Shop::open().await;
    shop.reserve("r-1", &[("espresso-cup", 2), ("rare-teapot", 1)]).await.unwrap();

    let cups = shop.stock("espresso-cup").await.unwrap();
    assert_eq!((cups.on_hand, cups.reserved, cups.available), (1_000, 2, 998));
    assert_eq!(shop.stock("rare-teapot").await.unwrap().available, 0);
}

#[tokio::test]
async fn a_repeated_call_changes_nothing() {
    let shop = Shop::open().await;
    for _ in 0..3 {
        shop.reserve("r-1", &[("tea-bowl", 2), ("moka-pot", 1)]).await.unwrap();
    }
    // The same content, written in another way.
    let same = [("moka-pot", 1), ("tea-bowl", 1), ("tea-bowl", 1)];
    shop.reserve("r-1", &same).await.unwrap();
    assert_eq!(shop.reserved("tea-bowl").await, 2);
    assert_eq!(shop.reserved("moka-pot").await, 1);
}

#[tokio::test]
async fn an_id_stands_for_its_first_lines_only() {
    let shop = Shop::open().await;
    shop.reserve("r-1", &[("tea-bowl", 2)]).await.unwrap();
    let other = shop.reserve("r-1", &[("tea-bowl", 3)]).await;
    assert_refused(other, Code::AlreadyExists, "RESERVATION_DIFFERS");
    assert_eq!(shop.reserved("tea-bowl").await, 2);
}

#[tokio::test]
async fn one_line_too_many_keeps_none_of_them() {
    let shop = Shop::open().await;
    let answer = shop.reserve("r-1", &[("espresso-cup", 1), ("rare-teapot", 2)]).await;
    let error = assert_refused(answer, Code::FailedPrecondition, "OUT_OF_STOCK");
    assert_eq!(error.details()["sku"], "rare-teapot");
    assert_eq!(shop.reserved("espresso-cup").await, 0);

    // The refused id was not used up.
    shop.reserve("r-1", &[("rare-teapot", 1)]).await.unwrap();
    let sold_out = shop.reserve("r-2", &[("sold-out-mug", 1)]).await;
    assert_refused(sold_out, Code::FailedPrecondition, "OUT_OF_STOCK");
}

#[tokio::test]
async fn what_is_kept_survives_a_restart_and_is_not_filled_up_again() {
    let shop = Shop::open().await;
    shop.reserve("r-1", &[("rare-teapot", 1)]).await.unwrap();
    let shop = shop.reopen().await;
    let teapot = shop.stock("rare-teapot").await.unwrap();
    assert_eq!((teapot.on_hand, teapot.available), (1, 0));
}
