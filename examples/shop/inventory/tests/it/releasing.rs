//! Releasing: gives back once, and closes an id that was never used.

use chassis::core::Code;

use crate::support::{Shop, assert_refused};

#[tokio::test]
async fn released_pieces_are_free_again_once() {
    let shop = Shop::open().await;
    shop.reserve("r-1", &[("rare-teapot", 1)]).await.unwrap();
    shop.reserve("r-2", &[("tea-bowl", 4)]).await.unwrap();
    for _ in 0..3 {
        shop.release("r-1").await.unwrap();
    }
    assert_eq!(shop.stock("rare-teapot").await.unwrap().available, 1);
    assert_eq!(shop.reserved("tea-bowl").await, 4, "another reservation is left alone");
    shop.reserve("r-3", &[("rare-teapot", 1)]).await.unwrap();
}

#[tokio::test]
async fn a_released_id_cannot_be_used_again() {
    let shop = Shop::open().await;
    shop.reserve("r-1", &[("tea-bowl", 1)]).await.unwrap();
    shop.release("r-1").await.unwrap();
    let again = shop.reserve("r-1", &[("tea-bowl", 1)]).await;
    assert_refused(again, Code::FailedPrecondition, "RESERVATION_RELEASED");
    assert_eq!(shop.reserved("tea-bowl").await, 0);
}

#[tokio::test]
async fn a_release_that_overtakes_its_reserve_wins() {
    let shop = Shop::open().await;
    shop.release("r-1").await.unwrap();
    shop.release("r-1").await.unwrap();
    let shop = shop.reopen().await;
    let late = shop.reserve("r-1", &[("tea-bowl", 1)]).await;
    assert_refused(late, Code::FailedPrecondition, "RESERVATION_RELEASED");
    assert_eq!(shop.reserved("tea-bowl").await, 0);
}
