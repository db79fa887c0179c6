//! Scenarios of looking at stored messages; a broker that cannot do so passes.

use super::kit::{Bench, Kit, QUIET, Verdict, ensure, said};
use crate::broker::{Page, Topics};
use crate::message::Message;

type Found<T> = std::result::Result<T, String>;

impl Bench {
    fn one(&self) -> Topics {
        Topics::One(self.topic.clone())
    }

    async fn page(&self, topics: Topics, from: u64, limit: usize) -> Found<Page> {
        match self.broker.browse() {
            Some(browse) => browse.page(topics, from, limit).await.map_err(said),
            None => Err("this broker cannot browse".to_owned()),
        }
    }

    async fn delete(&self, topic: &str, position: u64) -> Found<bool> {
        match self.broker.browse() {
            Some(browse) => browse.delete(topic.to_owned(), position).await.map_err(said),
            None => Err("this broker cannot browse".to_owned()),
        }
    }
}

fn texts(page: &Page) -> Vec<String> {
    let text = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
    page.messages.iter().map(|stored| text(&stored.message)).collect()
}

pub(super) async fn looking_takes_nothing(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let Some(browse) = bench.broker.browse() else { return bench.close().await };
    let message = bench.message("hello").with_key("Größe\r\n").with_header("tenant", "blue");
    bench.publish(message.clone()).await?;
    let page = bench.page(bench.one(), 0, 10).await?;
    ensure!(page.next.is_none(), "there is more: {page:?}");
    let [stored] = &page.messages[..] else { return Err(format!("one expected, got {page:?}")) };
    ensure!(stored.message == message, "got {:?}, sent {message:?}", stored.message);
    let again = browse.read(bench.one(), stored.position).await.map_err(said)?;
    ensure!(again.as_ref() == Some(stored), "read again, got {again:?}");
    for (topics, position) in [
        (bench.one(), stored.position + 1),
        (Topics::One(format!("{}.other", bench.topic)), stored.position),
    ] {
        let none = browse.read(topics.clone(), position).await.map_err(said)?;
        ensure!(none.is_none(), "{topics:?} at {position} is {none:?}");
    }
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.finish("hello", 1).await?;
    bench.close().await
}

pub(super) async fn pages_are_turned_from_the_oldest_on(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    if bench.broker.browse().is_none() {
        return bench.close().await;
    }
    for text in ["a", "b", "c", "d", "e"] {
        bench.send(text).await?;
        let mut other = bench.message("other");
        other.topic = format!("{}-2", bench.topic);
        bench.publish(other).await?;
    }
    let (mut seen, mut from) = (Vec::new(), Some(0));
    while let Some(at) = from {
        let page = bench.page(bench.one(), at, 2).await?;
        ensure!(page.messages.len() <= 2, "two asked for, got {page:?}");
        seen.extend(texts(&page));
        from = page.next;
    }
    ensure!(seen == ["a", "b", "c", "d", "e"], "got {seen:?}");
    let nothing = bench.page(Topics::One("conformance-none.topic".to_owned()), 0, 2).await?;
    ensure!(nothing == Page::default(), "got {nothing:?}");
    bench.close().await
}

pub(super) async fn large_messages_make_short_pages(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    if bench.broker.browse().is_none() {
        return bench.close().await;
    }
    for _ in 0..12 {
        bench.send(&"x".repeat(900 * 1024)).await?;
    }
    let page = bench.page(bench.one(), 0, 100).await?;
    let (count, next) = (page.messages.len(), page.next);
    ensure!(count < 12, "one page holds {count} messages of 900 KiB");
    let rest = bench.page(bench.one(), next.unwrap_or(u64::MAX), 100).await?;
    ensure!(!rest.messages.is_empty(), "nothing comes after {count} of 12");
    bench.close().await
}

pub(super) async fn topics_below_another_are_looked_at_together(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    if bench.broker.browse().is_none() {
        return bench.close().await;
    }
    for (below, text) in [(".b", "1"), ("", "itself"), (".a.c", "2"), ("-x", "like it")] {
        let mut message = bench.message(text);
        message.topic = format!("{}{below}", bench.topic);
        bench.publish(message).await?;
    }
    let page = bench.page(Topics::Below(bench.topic.clone()), 0, 10).await?;
    ensure!(texts(&page) == ["1", "2"], "got {page:?}");
    let bad = bench.page(Topics::Below("a.>".to_owned()), 0, 10).await;
    ensure!(bad.is_err(), "a wildcard in a name gives {bad:?}");
    bench.close().await
}

pub(super) async fn what_is_deleted_is_gone(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    if bench.broker.browse().is_none() {
        return bench.close().await;
    }
    // A group that has its eye on the topic already.
    let mut early = bench.subscribe(bench.subscription()).await?;
    for text in ["a", "b", "c"] {
        bench.send_keyed("key", text).await?;
    }
    let first = early.expect("a", 1).await?;
    let page = bench.page(bench.one(), 0, 10).await?;
    let [_, second, _] = &page.messages[..] else { return Err(format!("got {page:?}")) };
    let at = second.position;
    let other = bench.delete(&format!("{}.other", bench.topic), at).await?;
    ensure!(!other, "it was removed under another topic");
    ensure!(bench.delete(&bench.topic, at).await?, "it was not there");
    ensure!(!bench.delete(&bench.topic, at).await?, "it was there twice");
    let page = bench.page(bench.one(), 0, 10).await?;
    ensure!(texts(&page) == ["a", "c"], "left are {page:?}");
    first.ack().await.map_err(said)?;
    drop(early);
    let mut late = bench.subscribe(crate::broker::Subscription::new("late", &bench.topic)).await?;
    late.finish("a", 1).await?;
    late.finish("c", 1).await?;
    late.quiet(QUIET).await?;
    bench.close().await
}

pub(super) async fn what_is_left_is_found_after_deletes(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let Some(browse) = bench.broker.browse() else { return bench.close().await };
    for text in ["a", "b", "c", "d"] {
        bench.send(text).await?;
    }
    let page = bench.page(bench.one(), 0, 10).await?;
    let at: Vec<u64> = page.messages.iter().map(|stored| stored.position).collect();
    let [a, b, c, d] = at[..] else { return Err(format!("got {page:?}")) };
    // From both ends.
    for position in [d, a, b] {
        ensure!(bench.delete(&bench.topic, position).await?, "{position} was not there");
    }
    let left = bench.page(bench.one(), 0, 10).await?;
    ensure!(texts(&left) == ["c"], "left are {left:?}");
    let read = browse.read(bench.one(), c).await.map_err(said)?;
    ensure!(read.is_some(), "it cannot be read at {c}");
    bench.close().await
}

pub(super) async fn a_redriven_message_is_stored_beside_its_original(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let message = bench.message("hello");
    for redrives in 0..3 {
        let mut again = message.clone();
        if redrives > 0 {
            again = again.with_header("dlq-redrives", redrives.to_string());
        }
        // Each of them is still stored once.
        bench.publish(again.clone()).await?;
        bench.publish(again).await?;
    }
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    for _ in 0..3 {
        let delivery = inlet.expect("hello", 1).await?;
        ensure!(delivery.message.id == message.id, "the id became {}", delivery.message.id);
        delivery.ack().await.map_err(said)?;
    }
    inlet.quiet(QUIET).await?;
    bench.close().await
}
