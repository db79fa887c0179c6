//! `append_cost_1` and `append_cost_16`: a business transaction with an append, beside
//! the same with a hand-written insert of the same row, and beside the business row
//! alone. Microseconds a transaction, at one connection and at sixteen.
//!
//! The three alternate in short slices, and the middle slice of each counts, so that other
//! work on the machine meets all of them.

use std::time::Duration;

use chassis_core::Result;
use chassis_data::params;
use chassis_messaging::Outbox;
use chassis_test::figures::{Figure, alternate, median};
use tokio::time::Instant;

use crate::world::{Database, Outcome, World, message};

const ROUNDS: usize = 31;
const TIME: Duration = Duration::from_millis(150);

#[derive(Clone, Copy)]
enum What {
    Business,
    ByHand,
    Append,
}

pub(crate) async fn run(world: &World) -> Outcome<Vec<Figure>> {
    world.empty().await?;
    let mut figures = Vec::new();
    for (connections, by_hand, alone) in [
        (1, "append_cost_1", "append_cost_1_over_business"),
        (16, "append_cost_16", "append_cost_16_over_business"),
    ] {
        let all = [What::Business, What::ByHand, What::Append];
        let times = alternate::<3, _>(ROUNDS, async |candidate| {
            measure(world, all[candidate], connections).await
        });
        let [business, hand, append] = times.await?.map(median);
        let figure = |bench: &str, anchor, anchor_value| Figure {
            bench: bench.into(),
            value: append,
            unit: "us/transaction",
            anchor,
            anchor_value,
        };
        figures.push(figure(by_hand, "the same with a hand-written insert", hand));
        figures.push(figure(alone, "the business row alone", business));
    }
    Ok(figures)
}

/// Microseconds a transaction, of all connections together.
async fn measure(world: &World, what: What, connections: usize) -> Outcome<f64> {
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (db, outbox) = (world.db.clone(), world.outbox.clone());
        tasks.push(tokio::spawn(chassis_core::Context::current().scope(async move {
            let mut count = 0;
            while start.elapsed() < TIME {
                transaction(&db, &outbox, what, count).await?;
                count += 1;
            }
            Result::<usize>::Ok(count)
        })));
    }
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / count as f64)
}

async fn transaction(
    db: &Database,
    outbox: &Outbox<sqlx::Postgres>,
    what: What,
    number: usize,
) -> Result<()> {
    let mut tx = db.begin().await?;
    tx.execute("insert into item (name) values ($1)", params!["name"]).await?;
    match what {
        What::Business => {}
        What::Append => {
            outbox.append_message(&mut tx, message(number)).await?;
        }
        What::ByHand => {
            let message = message(number);
            let sql = "insert into chassis_outbox (part, time, id, source, kind, topic, msg_key,
                    content_type, headers, payload)
                values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
            let headers = "{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-\
                b7ad6b7169203331-00\",\"x-request-id\":\"0af7651916cd43dd8448eb211c80319c\"}";
            let values = params![
                (number % 16) as i64,
                message.time,
                message.id,
                message.source,
                message.kind,
                message.topic,
                message.key,
                message.content_type,
                headers,
                message.payload.to_vec()
            ];
            tx.execute(sql, values).await?;
        }
    }
    tx.commit().await
}
