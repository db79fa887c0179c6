//! What is counted and timed of a stream, and what a call of one message costs beside it.

use std::sync::Mutex;
use std::time::Duration;

use chassis_core::{Env, ServiceInfo};
use chassis_grpc::Server;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::service::Routes;

use crate::greeter::{CHAT, Greeter, chat, greet, hello, list};
use crate::logs::Logs;
use crate::world::{Running, config, eventually};

#[tokio::test]
async fn messages_are_counted_while_the_stream_lasts() {
    let (logs, _guard) = Logs::capture();
    let server = Running::start(Greeter::new(async |text| Ok(text)).echoing()).await;
    let (asked, receiver) = mpsc::channel(8);
    let mut answers = chat(server.plain(), receiver).await.unwrap();
    for text in ["one", "two", "three"] {
        asked.send(hello(text)).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().text, text);
    }
    let has = |metric: &str, number: u32| {
        let line = format!("{metric}{{rpc_method=\"{CHAT}\"}} {number}\n");
        server.env.metrics().encode().contains(&line)
    };
    eventually("it is counted", || {
        has("rpc_server_messages_received_total", 3) && has("rpc_server_messages_sent_total", 3)
    })
    .await;
    assert!(logs.access().is_empty(), "it has not ended");

    asked.send(hello("four")).await.unwrap();
    drop(asked);
    while answers.message().await.unwrap().is_some() {}
    eventually("its line", || logs.access().len() == 1).await;
    let line = &logs.access()[0];
    assert!(line.contains("messages_in=4 messages_out=4 longest_gap_ms="), "{line}");
    assert!(has("rpc_server_messages_received_total", 4), "{}", server.env.metrics().encode());
    assert!(has("rpc_server_messages_sent_total", 4));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stalls_is_seen() {
    let (logs, _guard) = Logs::capture();
    let (items, of_list) = mpsc::channel(8);
    let of_list = Mutex::new(Some(of_list));
    let greeter = Greeter::new(async |text| Ok(text))
        .list(move || of_list.lock().unwrap().take().unwrap().into());
    let env = Env::test("greeter");
    let service = Server::new(&config(), Routes::new(greeter)).into_service(&env, None).unwrap();
    items.send(Ok(hello("1"))).await.unwrap();
    let mut answers = list(service, hello("all")).await.unwrap();
    answers.message().await.unwrap().unwrap();
    tokio::spawn(async move {
        for pause in [2, 40] {
            sleep(Duration::from_secs(pause)).await;
            items.send(Ok(hello("next"))).await.unwrap();
        }
        sleep(Duration::from_secs(7)).await;
    });
    for _ in 0..2 {
        answers.message().await.unwrap().unwrap();
    }
    assert!(answers.message().await.unwrap().is_none());
    drop(answers);
    let line = logs.access().pop().unwrap();
    assert!(line.contains("messages_in=1 messages_out=3 longest_gap_ms=40"), "{line}");
    let text = env.metrics().encode();
    // 2 s, 40 s, and 7 s to the end.
    for (le, number) in [("1.0", 0), ("2.5", 1), ("5.0", 1), ("10.0", 2), ("60.0", 3)] {
        let bucket = format!(
            "rpc_server_message_gap_seconds_bucket{{le=\"{le}\",direction=\"sent\",rpc_method=\"test.Greeter/List\"}} {number}\n"
        );
        assert!(text.contains(&bucket), "{bucket}\n{text}");
    }
}

#[tokio::test]
async fn a_call_of_one_message_is_counted_and_not_timed() {
    let (logs, _guard) = Logs::capture();
    let server = Running::start(Greeter::new(async |text| Ok(text))).await;
    for _ in 0..2 {
        greet(server.plain(), hello("x")).await.unwrap();
    }
    eventually("their lines", || logs.access().len() == 2).await;
    let text = server.env.metrics().encode();
    for metric in ["rpc_server_messages_received_total", "rpc_server_messages_sent_total"] {
        let line = format!("{metric}{{rpc_method=\"test.Greeter/Greet\"}} 2\n");
        assert!(text.contains(&line), "{text}");
    }
    assert!(!text.contains("message_gap"), "{text}");
    assert!(!logs.access()[0].contains("messages_in"), "{}", logs.access()[0]);
}

/// Each costs some 50 ns and a place in the cache, and one more is easily added and never seen
/// again.
#[test]
fn a_unary_call_costs_a_fixed_number_of_allocations() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let greeter = Greeter::new(async |text| Ok(text));
    let bare = Routes::new(greeter.clone()).prepare();
    let env = Env::new(ServiceInfo::new("greeter", "1.0.0"));
    let ours = Server::new(&config(), Routes::new(greeter)).into_service(&env, None).unwrap();
    let least = |call: &dyn Fn() -> String| {
        let counted = || allocation_counter::measure(|| drop(call())).count_total;
        (0..10).map(|_| counted()).min().unwrap()
    };
    let of_bare = least(&|| runtime.block_on(greet(bare.clone(), hello("x"))).unwrap());
    let of_ours = least(&|| runtime.block_on(greet(ours.clone(), hello("x"))).unwrap());
    assert_eq!(of_ours - of_bare, 12);
}
