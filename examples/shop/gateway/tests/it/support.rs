//! The edge in this process, and a client of it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, Method};
use chassis::core::{App, Env, Shutdown, ShutdownTrigger, Status};
use chassis::discovery::{Discovery, DiscoveryConfig, Mode};
use chassis::http::Client;
use serde_json::{Value, json};
use shop_gateway::Config;
use tokio::task::JoinHandle;

use crate::fakes::{self, Served};

/// How long anything may take that should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The edge and all that is behind it.
pub(crate) struct Edge {
    pub(crate) env: Env,
    client: Client,
    behind: Vec<Served>,
    task: JoinHandle<chassis::Result<()>>,
    _trigger: ShutdownTrigger,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Edge {
    pub(crate) async fn open() -> Edge {
        let behind = fakes::start().await;
        let mut config = Config {
            discovery: fixed(
                behind
                    .iter()
                    .map(|served| (served.name, served.protocol, served.address.to_string())),
            ),
            ..Config::default()
        };
        config.http.port = 0;
        let env = Env::test("gateway");
        let app = shop_gateway::assemble(App::new(env.clone()), config).await.unwrap();
        let (trigger, shutdown) = Shutdown::new();
        let task = tokio::spawn(app.run(shutdown));
        let mut status = env.health().watch();
        let up = status.wait_for(|status| *status != Status::Starting);
        tokio::time::timeout(SOON, up).await.expect("it does not start").unwrap();
        let found = fixed([("gateway", "http", env.listeners()[0].address.to_string())]);
        // What the edge says is seen as it is: no second try.
        let once = chassis::discovery::ClientConfig { max_attempts: 1, ..Default::default() };
        let client = Client::builder("gateway", &Discovery::new(&found).unwrap())
            .config(&once)
            .build()
            .unwrap();
        Edge { env, client, behind, task, _trigger: trigger }
    }

    /// Stops one of the services behind.
    pub(crate) async fn stop(&mut self, name: &str, protocol: &str) {
        let is_it = |served: &Served| (served.name, served.protocol) == (name, protocol);
        let place = self.behind.iter().position(is_it).unwrap();
        self.behind.remove(place).stop().await;
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = self.client.request(method, path).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answer {
    /// Asserts that it is a problem with this status and reason.
    pub(crate) fn assert_problem(&self, status: u16, reason: &str) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!((self.status, &self.body["reason"]), (status, &json!(reason)), "{self:?}");
    }

    /// The names of the parts that are missing.
    pub(crate) fn missing(&self) -> Vec<&str> {
        let missing = self.body["missing"].as_array().unwrap();
        missing.iter().map(|one| one["part"].as_str().unwrap()).collect()
    }
}

/// Discovery that knows these places and no others.
fn fixed<'a>(places: impl IntoIterator<Item = (&'a str, &'a str, String)>) -> DiscoveryConfig {
    let mut services: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (service, protocol, address) in places {
        let protocols = services.entry(service.to_owned()).or_default();
        protocols.insert(protocol.to_owned(), vec![address]);
    }
    DiscoveryConfig { mode: Mode::Fixed, services, ..DiscoveryConfig::default() }
}
