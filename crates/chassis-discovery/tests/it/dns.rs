//! DNS against a name server of our own: a socket, a table, and a switch.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis_discovery::{
    Discovery, DiscoveryConfig, Dns, DnsConfig, Endpoint, Mode, Resolver, Target, Updates,
};
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use tokio::net::UdpSocket;

type Records = HashMap<(String, RecordType), Vec<(u32, RData)>>;

#[derive(Clone, Default)]
struct Zone {
    records: Arc<Mutex<Records>>,
    down: Arc<Mutex<bool>>,
    asked: Arc<Mutex<usize>>,
}

impl Zone {
    async fn serve(&self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let answer = zone.answer(&query).to_vec().unwrap();
                socket.send_to(&answer, peer).await.unwrap();
            }
        });
        address
    }

    fn answer(&self, query: &Message) -> Message {
        *self.asked.lock() += 1;
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        let question = query.queries[0].clone();
        let key = (question.name().to_ascii(), question.query_type());
        if *self.down.lock() {
            answer.metadata.response_code = ResponseCode::ServFail;
        } else {
            match self.records.lock().get(&key) {
                Some(records) => {
                    answer.add_answers(records.iter().map(|(ttl, data)| {
                        Record::from_rdata(question.name().clone(), *ttl, data.clone())
                    }));
                }
                None => answer.metadata.response_code = ResponseCode::NXDomain,
            }
        }
        answer.add_query(question);
        answer
    }

    fn set(&self, name: &str, kind: RecordType, records: Vec<(u32, RData)>) {
        self.records.lock().insert((name.to_owned(), kind), records);
    }

    fn set_a(&self, name: &str, last_bytes: &[u8]) {
        let records =
            last_bytes.iter().map(|byte| (0, RData::A(A::new(127, 0, 0, *byte)))).collect();
        self.set(name, RecordType::A, records);
    }
}

fn config(server: SocketAddr) -> DnsConfig {
    DnsConfig {
        servers: vec![server.to_string()],
        name: "{service}.test.".into(),
        min_ttl: Duration::from_millis(10),
        max_ttl: Duration::from_millis(40),
        ..DnsConfig::default()
    }
}

async fn until(updates: &mut Updates, expected: &[Endpoint]) {
    let wait = async {
        while *updates.current() != *expected {
            updates.changed().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
        panic!("still {:?}, not {expected:?}", updates.current());
    }
}

fn endpoint(last_byte: u8, port: u16) -> Endpoint {
    Endpoint::new(([127, 0, 0, last_byte], port).into())
}

#[tokio::test]
async fn addresses_follow_the_zone() {
    let zone = Zone::default();
    zone.set_a("greeter.test.", &[1, 2]);
    let dns = Dns::new(&config(zone.serve().await)).unwrap();
    let mut updates = dns.watch(&Target::new("greeter", "http"));
    until(&mut updates, &[endpoint(1, 8080), endpoint(2, 8080)]).await;
    zone.set_a("greeter.test.", &[2, 3]);
    until(&mut updates, &[endpoint(2, 8080), endpoint(3, 8080)]).await;
}

#[tokio::test]
async fn the_last_good_set_stays_when_the_server_fails_or_finds_nothing() {
    let zone = Zone::default();
    zone.set_a("greeter.test.", &[1]);
    let dns = Dns::new(&config(zone.serve().await)).unwrap();
    let mut updates = dns.watch(&Target::new("greeter", "grpc"));
    until(&mut updates, &[endpoint(1, 50051)]).await;

    for outage in ["SERVFAIL", "NXDOMAIN"] {
        match outage {
            "SERVFAIL" => *zone.down.lock() = true,
            _ => zone.records.lock().clear(),
        }
        let before = *zone.asked.lock();
        let asked_again = async {
            while *zone.asked.lock() < before + 4 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked_again).await.unwrap();
        assert_eq!(*updates.current(), [endpoint(1, 50051)], "{outage}");
        *zone.down.lock() = false;
    }

    zone.set_a("greeter.test.", &[9]);
    until(&mut updates, &[endpoint(9, 50051)]).await;
}

#[tokio::test]
async fn aaaa_is_used_where_there_is_no_a() {
    let zone = Zone::default();
    let data = RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1));
    zone.set("greeter.test.", RecordType::AAAA, vec![(1, data)]);
    let dns = Dns::new(&config(zone.serve().await)).unwrap();
    let mut updates = dns.watch(&Target::new("greeter", "http"));
    until(&mut updates, &[Endpoint::new("[::1]:8080".parse().unwrap())]).await;
}

#[tokio::test]
async fn srv_brings_ports_and_weights_of_the_first_priority() {
    let zone = Zone::default();
    zone.set_a("a.test.", &[1]);
    zone.set_a("b.test.", &[2]);
    zone.set_a("spare.test.", &[3]);
    let srv = |priority, weight, port, host: &str| {
        let host = Name::from_ascii(host).unwrap();
        (0, RData::SRV(SRV::new(priority, weight, port, host)))
    };
    zone.set(
        "_grpc._tcp.greeter.test.",
        RecordType::SRV,
        vec![
            srv(1, 3, 1001, "a.test."),
            srv(1, 0, 1002, "b.test."),
            srv(2, 9, 1003, "spare.test."),
        ],
    );
    let mut discovery = DiscoveryConfig {
        mode: Mode::Dns,
        dns: config(zone.serve().await),
        ..DiscoveryConfig::default()
    };
    discovery.services.insert(
        "greeter".into(),
        [("grpc".into(), vec!["_grpc._tcp.greeter.test.".into()])].into(),
    );
    let discovery = Discovery::new(&discovery).unwrap();
    let mut updates = discovery.resolver().watch(&Target::new("greeter", "grpc"));
    let expected = [endpoint(1, 1001).with_weight(3), endpoint(2, 1002)];
    until(&mut updates, &expected).await;
}

#[tokio::test]
async fn a_target_watched_twice_is_asked_for_once() {
    let zone = Zone::default();
    zone.set_a("greeter.test.", &[1]);
    let dns = Dns::new(&DnsConfig {
        max_ttl: Duration::from_secs(3600),
        min_ttl: Duration::from_secs(3600),
        ..config(zone.serve().await)
    })
    .unwrap();
    let target = Target::new("greeter", "http");
    for _ in 0..10 {
        until(&mut dns.watch(&target), &[endpoint(1, 8080)]).await;
    }
    assert_eq!(*zone.asked.lock(), 1);
}

/// Docker's DNS gives ten minutes to an address that is gone in one.
#[tokio::test]
async fn it_is_asked_again_before_the_ttl_ends_when_an_endpoint_cannot_be_reached() {
    let zone = Zone::default();
    let set = |byte| {
        let record = (600, RData::A(A::new(127, 0, 0, byte)));
        zone.set("greeter.test.", RecordType::A, vec![record]);
    };
    set(1);
    let config = DnsConfig { max_ttl: Duration::from_secs(600), ..config(zone.serve().await) };
    let dns = Dns::new(&config).unwrap();
    let mut updates = dns.watch(&Target::new("greeter", "http"));
    until(&mut updates, &[endpoint(1, 8080)]).await;
    set(2);
    updates.refresh();
    until(&mut updates, &[endpoint(2, 8080)]).await;
}

#[tokio::test]
async fn but_not_more_often_than_the_floor_allows() {
    let zone = Zone::default();
    zone.set_a("greeter.test.", &[1]);
    let second = Duration::from_secs(1);
    let config =
        DnsConfig { min_ttl: 600 * second, max_ttl: 600 * second, ..config(zone.serve().await) };
    let dns = Dns::new(&config).unwrap();
    let mut updates = dns.watch(&Target::new("greeter", "http"));
    until(&mut updates, &[endpoint(1, 8080)]).await;
    let asked = *zone.asked.lock();
    for _ in 0..100 {
        updates.refresh();
        tokio::task::yield_now().await;
    }
    assert_eq!(*zone.asked.lock(), asked);
}
