//! What is refused before anything is looked at, and what is not known.

use chassis::core::Code;

use crate::support::{Shop, assert_refused};

#[tokio::test]
async fn a_wrong_request_names_the_field() {
    let shop = Shop::open().await;
    let long = "x".repeat(129);
    type Lines<'a> = &'a [(&'a str, i64)];
    let cases: [(&str, Lines<'_>, &str); 6] = [
        ("", &[("tea-bowl", 1)], "reservation_id"),
        (&long, &[("tea-bowl", 1)], "reservation_id"),
        ("r-1", &[], "lines"),
        ("r-1", &[("tea-bowl", 1), ("", 1)], "lines[1].sku"),
        ("r-1", &[("tea-bowl", 0)], "lines[0].quantity"),
        ("r-1", &[("moka-pot", 1), ("tea-bowl", i64::MAX)], "lines[1].quantity"),
    ];
    for (id, lines, field) in cases {
        let answer = shop.reserve(id, lines).await;
        let error = assert_refused(answer, Code::InvalidArgument, "INVALID_REQUEST");
        assert_eq!(error.fields()[0].field, field);
    }
    let answer = shop.release("").await;
    assert_refused(answer, Code::InvalidArgument, "INVALID_REQUEST");
    assert_eq!(shop.reserved("tea-bowl").await, 0);
}

#[tokio::test]
async fn an_unknown_product_is_not_found() {
    let shop = Shop::open().await;
    let answer = shop.reserve("r-1", &[("espresso-cup", 1), ("no-such-thing", 1)]).await;
    let error = assert_refused(answer, Code::NotFound, "PRODUCT_NOT_FOUND");
    assert_eq!(error.details()["sku"], "no-such-thing");
    assert_eq!(shop.reserved("espresso-cup").await, 0);

    let answer = shop.stock("no-such-thing").await;
    assert_refused(answer, Code::NotFound, "PRODUCT_NOT_FOUND");
}
