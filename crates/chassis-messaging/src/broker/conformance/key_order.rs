//! Scenarios of order within a key.

use std::collections::BTreeMap;
use std::time::Duration;

use super::kit::{Kit, QUIET, Verdict, ensure, said, text_of};
use crate::broker::Subscription;

pub(super) async fn a_key_is_handled_one_after_the_other(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    for text in ["1", "2", "3"] {
        bench.send_keyed("a", text).await?;
    }
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let first = inlet.expect("1", 1).await?;
    inlet.quiet(QUIET).await?;
    first.ack().await.map_err(said)?;
    inlet.finish("2", 1).await?;
    inlet.finish("3", 1).await?;
    bench.close().await
}

pub(super) async fn several_of_a_key_come_to_who_asked_for_them(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    for text in ["1", "2", "3", "4"] {
        bench.send_keyed("a", text).await?;
    }
    let three = Subscription { per_key: 3, ..bench.subscription() };
    let mut inlet = bench.subscribe(three).await?;
    let first = inlet.expect("1", 1).await?;
    let second = inlet.expect("2", 1).await?;
    let third = inlet.expect("3", 1).await?;
    inlet.quiet(QUIET).await?;
    // The first goes back with a delay: what was behind it must come behind it.
    first.nak(Duration::from_millis(400)).await.map_err(said)?;
    second.release().await.map_err(said)?;
    third.release().await.map_err(said)?;
    let first = inlet.expect("1", 2).await?;
    let second = inlet.expect("2", 1).await?;
    let third = inlet.expect("3", 1).await?;
    for delivery in [first, second, third] {
        delivery.ack().await.map_err(said)?;
    }
    inlet.finish("4", 1).await?;
    bench.close().await
}

pub(super) async fn a_delayed_message_holds_back_its_key(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    for text in ["1", "2"] {
        bench.send_keyed("a", text).await?;
    }
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.expect("1", 1).await?.nak(Duration::from_millis(400)).await.map_err(said)?;
    inlet.finish("1", 2).await?;
    inlet.finish("2", 1).await?;
    bench.close().await
}

pub(super) async fn other_keys_go_on(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    for (key, text) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("c", "c1")] {
        bench.send_keyed(key, text).await?;
    }
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let held = inlet.expect("a1", 1).await?;
    let others = [inlet.next().await?, inlet.next().await?];
    let texts = others.each_ref().map(text_of);
    ensure!(texts == ["b1", "c1"], "got {texts:?} beside a1");
    for delivery in others {
        delivery.ack().await.map_err(said)?;
    }
    held.ack().await.map_err(said)?;
    inlet.finish("a2", 1).await?;
    bench.close().await
}

pub(super) async fn many_messages_keep_their_key_order(kit: &Kit) -> Verdict {
    const KEYS: usize = 7;
    const EACH: usize = 40;
    let bench = kit.open().await?;
    for number in 0..EACH {
        for key in 0..KEYS {
            bench.send_keyed(&key.to_string(), &format!("{key} {number}")).await?;
        }
    }
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    let mut held = Vec::new();
    let mut done = 0;
    while done < KEYS * EACH {
        let delivery = inlet.next().await?;
        // Every fifth goes back once, so that redeliveries mix in.
        if delivery.attempt == 1 && (done + held.len()) % 5 == 0 {
            delivery.nak(Duration::from_millis(20)).await.map_err(said)?;
            continue;
        }
        held.push(delivery);
        if held.len() < 3 && done + held.len() < KEYS * EACH - 3 {
            continue;
        }
        for delivery in held.drain(..) {
            let text = text_of(&delivery);
            let (key, number) = text.split_once(' ').unwrap_or_default();
            let expected = next.entry(key.to_owned()).or_default();
            ensure!(number == expected.to_string(), "key {key}: {number} before {expected}");
            *expected += 1;
            done += 1;
            delivery.ack().await.map_err(said)?;
        }
    }
    inlet.quiet(QUIET).await?;
    bench.close().await
}
