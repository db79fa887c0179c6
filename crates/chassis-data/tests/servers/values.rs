//! Every portable value comes back as it went in, nulls included.

use chassis_data::{Backend, Value, params};
use sqlx::{Any, Postgres as Pg};

use crate::support::items;

async fn round_trip<B: Backend>(name: &str) {
    let db = items::<B>(name).await;
    db.execute("create table thing (t text, n bigint, b bytea)", params![]).await.unwrap();
    let rows: [Vec<Value>; 4] = [
        params!["größe", i64::MAX, vec![0_u8, 255]],
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
    let sql = "select $2, $1, $2, count(*), true, cast(3 as int), cast('v' as varchar) from thing";
    let row = db.fetch_optional(sql, params!["a", 5]).await.unwrap().unwrap();
    assert_eq!((row.int(0).unwrap(), row.text(1).unwrap(), row.int(2).unwrap()), (5, "a", 5));
    assert_eq!((row.int(3).unwrap(), row.int(4).unwrap(), row.int(5).unwrap()), (4, 1, 3));
    assert_eq!(row.text(6).unwrap(), "v");
    let sum = db.fetch_optional("select sum(n) from thing", params![]).await.unwrap_err();
    assert!(sum.chain().to_lowercase().contains("numeric"), "{}", sum.chain());
}

#[tokio::test]
async fn values_round_trip_on_postgres() {
    round_trip::<Pg>("values_pg").await;
}

#[tokio::test]
async fn values_round_trip_on_any() {
    round_trip::<Any>("values_any").await;
}
