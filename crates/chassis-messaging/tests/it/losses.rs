//! The embedded broker's file removed, or replaced by an older copy, between two runs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use chassis_messaging::outbox::OnLoss;
use chassis_messaging::{Broker, BrokerConfig};
use tempfile::TempDir;

use crate::loss_scenarios::{self, Stage, sqlite};

async fn open(folder: &Path) -> Broker {
    let url = format!("embedded:{}", folder.display());
    Broker::connect(&BrokerConfig::at(url)).await.unwrap()
}

fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_removed_is_replayed() {
    let folder = TempDir::new().unwrap();
    let (_folder, db) = sqlite().await;
    let stage = Stage::new(db, open(folder.path()).await, OnLoss::Replay).await;
    loss_scenarios::a_loss_between_two_runs_is_replayed(stage, "", async || {
        empty(folder.path());
        open(folder.path()).await
    })
    .await;
}

/// The older copy has been written to since, so that the numbers of what was lost
/// stand for other messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_replaced_by_an_older_copy_is_replayed() {
    let (folder, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (_folder, db) = sqlite().await;
    let mut stage = Stage::new(db, open(folder.path()).await, OnLoss::Replay).await;
    stage.append(2).await;
    stage.until_published().await;
    stage.broker.close().await;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let stage = stage.restart(open(folder.path()).await).await;
    let lose = async || {
        empty(folder.path());
        for entry in fs::read_dir(copy.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        let broker = open(folder.path()).await;
        for number in 0..100 {
            let message = chassis_messaging::Message::new("other.topic", "t.v1", "x");
            broker.publish(message.with_id(number.to_string())).await.unwrap();
        }
        broker
    };
    loss_scenarios::a_loss_between_two_runs_is_replayed(stage, "", lose).await;
}
