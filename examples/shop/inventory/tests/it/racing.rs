//! Calls that meet: the last piece, one id twice, an undo beside its call.

use std::sync::Arc;

use chassis::core::Code;
use futures_util::future::join_all;

use crate::support::{Shop, assert_refused};

const CALLERS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn the_last_piece_is_kept_for_one_of_many() {
    let shop = Arc::new(Shop::open().await);
    let answers = join_all((0..CALLERS).map(|caller| {
        let shop = shop.clone();
        tokio::spawn(
            async move { shop.reserve(&format!("r-{caller}"), &[("rare-teapot", 1)]).await },
        )
    }));
    let (kept, refused): (Vec<_>, Vec<_>) =
        answers.await.into_iter().map(Result::unwrap).partition(Result::is_ok);
    assert_eq!((kept.len(), refused.len()), (1, CALLERS - 1));
    for answer in refused {
        assert_refused(answer, Code::FailedPrecondition, "OUT_OF_STOCK");
    }
    assert_eq!(shop.reserved("rare-teapot").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_at_the_same_time_is_kept_once() {
    let shop = Arc::new(Shop::open().await);
    let answers = join_all((0..CALLERS).map(|_| {
        let shop = shop.clone();
        tokio::spawn(async move { shop.reserve("r-1", &[("tea-bowl", 3)]).await })
    }));
    for answer in answers.await {
        answer.unwrap().unwrap();
    }
    assert_eq!(shop.reserved("tea-bowl").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_beside_its_call_leaves_nothing_kept() {
    let shop = Arc::new(Shop::open().await);
    let pairs = join_all((0..CALLERS).map(|caller| {
        let shop = shop.clone();
        tokio::spawn(async move {
            let id = format!("r-{caller}");
            let lines = [("moka-pot", 1), ("tea-bowl", 2)];
            let (reserved, released) = tokio::join!(shop.reserve(&id, &lines), shop.release(&id));
            released.unwrap();
            if reserved.is_err() {
                assert_refused(reserved, Code::FailedPrecondition, "RESERVATION_RELEASED");
            }
        })
    }));
    for pair in pairs.await {
        pair.unwrap();
    }
    assert_eq!(shop.reserved("moka-pot").await, 0);
    assert_eq!(shop.reserved("tea-bowl").await, 0);
}
