//! What is done to the messages of the broker: they come again, or they are gone.
//!
//! By plain async-nats and on the server's own files, with none of the chassis.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::Failure;

/// The stream of the workload.
const STREAM: &str = "torture";
/// Published at a time.
const BATCH: usize = 200;

/// A stored message.
struct Stored {
    subject: async_nats::Subject,
    headers: HeaderMap,
    payload: Bytes,
}

/// Publishes stored messages again, chosen at random.
pub(crate) async fn again(url: &str, count: usize) -> Result<usize, Failure> {
    let context = connect(url).await?;
    let Some((first, last)) = ends(&context).await? else { return Ok(0) };
    let places: Vec<u64> = (0..count).map(|_| fastrand::u64(first..=last)).collect();
    let messages = read(&context, &places).await?;
    publish(&context, &messages).await
}

/// Publishes the newest messages again, all of them `times` times and in disorder.
pub(crate) async fn shuffled(url: &str, count: usize, times: usize) -> Result<usize, Failure> {
    let context = connect(url).await?;
    let Some((first, last)) = ends(&context).await? else { return Ok(0) };
    let count = u64::try_from(count)?;
    let places: Vec<u64> = (first.max(last.saturating_sub(count))..=last).collect();
    let messages = read(&context, &places).await?;
    let mut all: Vec<&Stored> = (0..times).flat_map(|_| &messages).collect();
    fastrand::shuffle(&mut all);
    publish(&context, all).await
}

/// Deletes the stream, if it has any message. Gives how many it had.
pub(crate) async fn delete(url: &str) -> Result<u64, Failure> {
    let context = connect(url).await?;
    let Some((first, last)) = ends(&context).await? else { return Ok(0) };
    context.delete_stream(STREAM).await?;
    Ok(last - first + 1)
}

/// Takes this share of the stream's newest block of messages away: what a machine that
/// lost its power had not written to its disk. The server must not run. Gives how many
/// bytes that is.
pub(crate) fn cut(store: &Path, share: f64) -> Result<u64, Failure> {
    let mut blocks = Vec::new();
    find_blocks(store, &mut blocks)?;
    let Some((_, newest)) = blocks.into_iter().max() else { return Ok(0) };
    let file = File::options().write(true).open(newest)?;
    let length = file.metadata()?.len();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of it")]
    #[expect(clippy::cast_precision_loss, reason = "some bytes more or less")]
    let lost = ((length as f64 * share) as u64).min(length);
    file.set_len(length - lost)?;
    Ok(lost)
}

/// The blocks of the stream with their numbers: `streams/<stream>/msgs/<number>.blk`.
fn find_blocks(folder: &Path, found: &mut Vec<(u64, PathBuf)>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_blocks(&path, found)?;
        } else if path.extension().is_some_and(|kind| kind == "blk")
            && path.parent().is_some_and(|folder| folder.ends_with(format!("{STREAM}/msgs")))
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            found.push((number, path));
        }
    }
    Ok(())
}

async fn connect(url: &str) -> Result<Context, Failure> {
    Ok(jetstream::new(async_nats::connect(url).await?))
}

/// The first and the last place; `None` where the stream is empty.
async fn ends(context: &Context) -> Result<Option<(u64, u64)>, Failure> {
    let stream = context.get_stream(STREAM).await?;
    let state = &stream.cached_info().state;
    Ok((state.messages > 0).then_some((state.first_sequence, state.last_sequence)))
}

async fn read(context: &Context, places: &[u64]) -> Result<Vec<Stored>, Failure> {
    let stream = context.get_stream(STREAM).await?;
    let mut found = Vec::new();
    for places in places.chunks(BATCH) {
        let messages = places.iter().map(|&place| {
            let stream = &stream;
            async move {
                let message = stream.get_raw_message(place).await?;
                let (subject, headers) = (message.subject, message.headers);
                Ok::<_, Failure>(Stored { subject, headers, payload: message.payload })
            }
        });
        found.extend(try_join_all(messages).await?);
    }
    Ok(found)
}

/// Each under a new id of the broker's, which tells repetitions by that.
async fn publish<'a>(
    context: &Context,
    messages: impl IntoIterator<Item = &'a Stored>,
) -> Result<usize, Failure> {
    let messages: Vec<&Stored> = messages.into_iter().collect();
    for messages in messages.chunks(BATCH) {
        let mut answers = Vec::new();
        for Stored { subject, headers, payload } in messages {
            let mut headers = headers.clone();
            headers.insert("Nats-Msg-Id", format!("again-{}", fastrand::u128(..)));
            let publish =
                context.publish_with_headers(subject.clone(), headers, payload.clone()).await?;
            answers.push(publish.into_future());
        }
        try_join_all(answers).await?;
    }
    Ok(messages.len())
}
