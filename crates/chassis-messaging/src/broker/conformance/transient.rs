//! Scenarios of messages that are not stored, for a broker that carries some.

use std::time::Duration;

use super::kit::{Bench, Kit, QUIET, Verdict, ensure, said};
use crate::broker::transient::ERROR_REASON;
use crate::broker::{Parcel, Parcels, Topics};
use crate::message::Message;

const SOON: Duration = Duration::from_secs(10);

impl Bench {
    async fn hear(
        &self,
        addresses: Topics,
        group: Option<&str>,
    ) -> std::result::Result<Box<dyn Parcels>, String> {
        let transient = self.broker.transient().ok_or("no transient messages")?;
        transient.listen(addresses, group.map(str::to_owned)).await.map_err(said)
    }

    async fn pass(&self, to: &str, reply_to: Option<&str>, text: &str) -> chassis_core::Result<()> {
        let message = Message::new(to, "note.v1", text.to_owned());
        let parcel = Parcel { to: to.to_owned(), reply_to: reply_to.map(str::to_owned), message };
        match self.broker.transient() {
            Some(transient) => transient.send(parcel).await,
            None => Ok(()),
        }
    }
}

async fn next(parcels: &mut Box<dyn Parcels>) -> std::result::Result<Parcel, String> {
    match tokio::time::timeout(SOON, parcels.next()).await {
        Ok(Some(parcel)) => Ok(parcel),
        Ok(None) => Err("the listening ended".to_owned()),
        Err(_) => Err(format!("nothing heard within {SOON:?}")),
    }
}

pub(super) async fn a_request_finds_a_listener_and_its_reply_the_sender(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    if bench.broker.transient().is_none() {
        return bench.close().await;
    }
    // A stream with that topic stores none of it.
    bench.send("stored").await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.finish("stored", 1).await?;
    let mut requests = bench.hear(Topics::One(bench.topic.clone()), Some("group")).await?;
    let inbox = format!("reply-{}", uuid::Uuid::now_v7().simple());
    let mut replies = bench.hear(Topics::Below(inbox.clone()), None).await?;
    let reply_to = format!("{inbox}.7");
    bench.pass(&bench.topic, Some(&reply_to), "question").await.map_err(said)?;
    let request = next(&mut requests).await?;
    ensure!(request.message.payload == "question", "got {request:?}");
    ensure!(request.message.kind == "note.v1", "got {request:?}");
    ensure!(request.reply_to.as_deref() == Some(&*reply_to), "got {request:?}");
    bench.pass(&reply_to, None, "answer").await.map_err(said)?;
    let reply = next(&mut replies).await?;
    ensure!(reply.message.payload == "answer" && reply.to == reply_to, "got {reply:?}");
    inlet.quiet(QUIET).await?;
    bench.close().await
}

pub(super) async fn each_request_goes_to_one_of_a_group(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    if bench.broker.transient().is_none() {
        return bench.close().await;
    }
    let topic = Topics::One(bench.topic.clone());
    let mut one = bench.hear(topic.clone(), Some("group")).await?;
    let mut two = bench.hear(topic.clone(), Some("group")).await?;
    let mut other = bench.hear(topic, Some("other")).await?;
    for i in 0..20 {
        bench.pass(&bench.topic, None, &i.to_string()).await.map_err(said)?;
    }
    let mut shared = 0;
    for _ in 0..20 {
        next(&mut other).await?;
        tokio::select! {
            parcel = next(&mut one) => drop(parcel?),
            parcel = next(&mut two) => drop(parcel?),
        }
        shared += 1;
    }
    let more = async {
        tokio::select! {
            parcel = one.next() => parcel,
            parcel = two.next() => parcel,
        }
    };
    let more = tokio::time::timeout(QUIET, more).await;
    ensure!(shared == 20 && more.is_err(), "one more came: {more:?}");
    bench.close().await
}

pub(super) async fn a_request_that_nobody_hears_is_known_at_once(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    if bench.broker.transient().is_none() {
        return bench.close().await;
    }
    let inbox = format!("reply-{}", uuid::Uuid::now_v7().simple());
    let mut replies = bench.hear(Topics::Below(inbox.clone()), None).await?;
    let sent = bench.pass(&bench.topic, Some(&format!("{inbox}.1")), "question").await;
    let reason = match sent {
        Err(error) => error.reason().to_owned(),
        Ok(()) => {
            let reply = next(&mut replies).await?;
            reply.message.header(ERROR_REASON).unwrap_or_default().to_owned()
        }
    };
    ensure!(reason == "NO_RESPONDER", "got {reason:?}");
    // Who listened and left does not count.
    drop(bench.hear(Topics::One(bench.topic.clone()), Some("group")).await?);
    let sent = bench.pass(&bench.topic, Some(&format!("{inbox}.2")), "question").await;
    if sent.is_ok() {
        let reply = next(&mut replies).await?;
        ensure!(reply.message.header(ERROR_REASON) == Some("NO_RESPONDER"), "got {reply:?}");
    }
    bench.close().await
}
