//! Every portable value comes back as it went in, nulls included.

use chassis_data::{Backend, Value, params};
use sqlx::{Any, Sqlite};

use crate::support::items;

async fn round_trip<B: Backend>() {
    let (_folder, db) = items::<B>().await;
    db.execute("create table thing (t text, n bigint, b blob)", params![]).await.unwrap();
    let rows: [Vec<Value>; 4] = [
        params!["größe\u{0}", i64::MAX, vec![0_u8, 255]],
        params!["", i64::MIN, Vec::new()],
        params![None::<&str>, None::<i64>, None::<Vec<u8>>],
        params!["7", 7, &b"7"[..]],
    ];
    for row in &rows {
        let insert = "insert into thing values ($1, $2, $3) returning t, n, b";
        let back = db.fetch_optional(insert, row.clone()).await.unwrap().unwrap();
        let values = params![
            back.opt_text(0).unwrap(),
            back.opt_int(1).unwrap(),
            back.opt_blob(2).unwrap(),
        ];
        assert_eq!(&values, row);
    }
    let stored = db.fetch_all("select t, n, b from thing order by rowid", params![]).await.unwrap();
    assert_eq!(stored.len(), 4);
    assert_eq!(stored[2].opt_text(0).unwrap(), None);
    let found = db
        .fetch_optional("select b from thing where t = $1 and n = $2", params!["7", 7])
        .await
        .unwrap();
    assert_eq!(found.unwrap().blob(0).unwrap(), b"7");
    let none = db.fetch_optional("select 1 from thing where t = 'no'", params![]).await.unwrap();
    assert_eq!(none, None);
}

#[tokio::test]
async fn values_round_trip_on_sqlite() {
    round_trip::<Sqlite>().await;
}

#[tokio::test]
async fn values_round_trip_on_any() {
    round_trip::<Any>().await;
}

#[tokio::test]
async fn a_parameter_may_be_used_twice_and_out_of_order() {
    let (_folder, db) = items::<Any>().await;
    let sql = "select $2, $1, $2, cast(1 as bigint), true";
    let row = db.fetch_optional(sql, params!["a", 5]).await.unwrap().unwrap();
    assert_eq!((row.int(0).unwrap(), row.text(1).unwrap()), (5, "a"));
    assert_eq!((row.int(2).unwrap(), row.int(3).unwrap(), row.int(4).unwrap()), (5, 1, 1));
}

#[tokio::test]
async fn a_type_that_is_not_portable_is_named() {
    let (_folder, db) = items::<Any>().await;
    let error = db.fetch_optional("select 1.5", params![]).await.unwrap_err();
    assert!(error.chain().contains("not portable"), "{}", error.chain());
}
