//! `service!` and the hand-written form give the same plan.

use axum::Router;
use chassis::{
    App, BoxFuture, Component, CoreConfig, DefaultConfig, Env, Ready, Result, Shutdown, base_app,
};

#[derive(Clone)]
struct State {
    name: &'static str,
}

impl State {
    async fn connect(app: &App, _config: &DefaultConfig) -> Result<State> {
        assert_eq!(app.info().name, "parity");
        Ok(State { name: "relay" })
    }

    fn probe(&self) -> impl chassis::Probe {
        || async { Ok(()) }
    }

    fn part(&self) -> Idle {
        Idle(self.name)
    }

    fn registration(&self) -> Idle {
        Idle("registration")
    }
}

struct Idle(&'static str);

impl Component for Idle {
    fn name(&self) -> std::borrow::Cow<'static, str> {
        self.0.into()
    }

    fn run(
        self: Box<Self>,
        _env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            ready.ready();
            shutdown.requested().await;
            Ok(())
        })
    }
}

fn router(_state: &State) -> Router {
    Router::new()
}

fn routes(_state: &State) -> tonic::service::Routes {
    tonic::service::Routes::default()
}

mod short {
    use super::{DefaultConfig, State, router, routes};

    chassis::service! {
        http:     router,
        grpc:     routes,
        config:   DefaultConfig,
        state:    State::connect,
        probes:   { "state-db" => State::probe },
        parts:    [State::part],
        register: State::registration,
    }
}

mod one_port {
    use super::{DefaultConfig, State, router, routes};

    chassis::service! {
        one_port: true,
        http:     router,
        grpc:     routes,
        config:   DefaultConfig,
        state:    State::connect,
    }
}

mod shortest {
    fn router() -> axum::Router {
        axum::Router::new()
    }

    chassis::service! { http: router }
}

mod documented {
    fn router() -> (axum::Router, serde_json::Value) {
        (axum::Router::new(), serde_json::json!({ "openapi": "3.1.0", "paths": {} }))
    }

    chassis::service! { http: router }
}

async fn long(app: App, config: DefaultConfig) -> Result<App> {
    let state = State::connect(&app, &config).await?;
    Ok(app
        .probe("state-db", state.probe())
        .with(state.part())
        .with(chassis::grpc::Server::new(&config.grpc, routes(&state)))
        .with(chassis::http::Server::new(&config.http, router(&state)))
        .with(state.registration()))
}

fn app() -> App {
    base_app(&CoreConfig::default(), Env::test("parity"))
}

#[tokio::test]
async fn both_spellings_give_the_same_plan() {
    let by_macro = short::assemble(app(), DefaultConfig::default()).await.unwrap().plan();
    let by_hand = long(app(), DefaultConfig::default()).await.unwrap().plan();
    assert_eq!(by_macro, by_hand);
    let names: Vec<_> = by_hand.components.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["admin", "relay", "grpc", "http", "registration"]);
    assert_eq!(by_hand.probes[0].name, "state-db");
}

#[tokio::test]
async fn both_spellings_give_one_port() {
    let by_macro = one_port::assemble(app(), DefaultConfig::default()).await.unwrap().plan();
    let config = DefaultConfig::default();
    let state = State::connect(&app(), &config).await.unwrap();
    let grpc = chassis::grpc::Server::new(&config.grpc, routes(&state));
    let http = chassis::http::Server::new(&config.http, router(&state)).with_grpc(grpc);
    let by_hand = app().with(http).plan();
    assert_eq!(by_macro, by_hand);
    let parts = &by_hand.components;
    assert_eq!(parts.len(), 2, "{parts:?}");
    assert!(parts[1].name == "http" && parts[1].detail.contains("gRPC"), "{parts:?}");
}

#[tokio::test]
async fn the_shortest_service_is_a_server_and_the_admin_port() {
    let plan = shortest::assemble(app(), DefaultConfig::default()).await.unwrap().plan();
    let names: Vec<_> = plan.components.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["admin", "http"]);
    // A document beside the routes is no other service.
    let app = documented::assemble(app(), DefaultConfig::default()).await.unwrap();
    app.validate().unwrap();
    assert_eq!(app.plan(), plan);
}
