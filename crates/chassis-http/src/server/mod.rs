//! The HTTP server: the accept loop of `chassis-net` around an axum router.
//!
//! Not `axum::serve`: that sets no time-out for the head of a request, so that a few slow
//! clients hold every connection, and its drain waits without end. Here each connection has
//! a time to say something, there is a most of them, and a drain has a deadline.
//!
//! Read in this order: `config`, `connection`; the loop and the life of a connection are in
//! `chassis-net`.

mod config;
mod connection;

use std::borrow::Cow;

use axum::Router;
use chassis_admission::Door;
use chassis_core::{BoxFuture, Code, Component, Env, Ready, Result, Shutdown};
use chassis_net::{Guest, Listening, guest::Opened, tls::Tls};
use chassis_resilience::rate_limit::shared::TokenStore;
use futures_util::future::OptionFuture;

pub use self::config::ServerConfig;
pub(crate) use self::connection::PerConnection;
use self::connection::{AnyGuest, Shared};
use crate::{
    Routes,
    edge::{EdgeLayer, Edged, panic},
    openapi::Document,
};

/// An HTTP server as a component of an app.
///
/// It puts the chassis around the router, announces a
/// [`Listener`](chassis_core::Listener) of the protocol `http`, and on shutdown stops accepting, lets the calls in
/// flight end, and cuts what is left at the deadline of the drain.
///
/// Dropping the future of its run closes the socket and every connection.
pub struct Server {
    name: Cow<'static, str>,
    config: ServerConfig,
    router: Router,
    document: Option<Document>,
    tokens: Option<Box<dyn TokenStore>>,
    guest: Option<Box<dyn AnyGuest>>,
}

impl Server {
    /// A server of this router, or of a router with its OpenAPI document; see [`Routes`].
    /// Nothing is bound before the app runs.
    #[must_use]
    pub fn new(config: &ServerConfig, routes: impl Into<Routes>) -> Server {
        let Routes { router, document } = routes.into();
        let (name, config) = ("http".into(), config.clone());
        Server { name, config, router, document, tokens: None, guest: None }
    }

    /// What it is called in the plan, and at `/openapi.json?server=NAME` of the admin port, where
    /// an app has several; `http` unless said otherwise.
    #[must_use]
    pub fn named(mut self, name: impl Into<Cow<'static, str>>) -> Server {
        self.name = name.into();
        self
    }

    /// Keeps the rate limit of each caller together with all instances that use this store; it
    /// is used only if `admission.rate_limit` is on.
    #[must_use]
    pub fn rate_limit_store(mut self, store: impl TokenStore) -> Server {
        self.tokens = Some(Box::new(store));
        self
    }

    /// Serves gRPC on the same port: what says `content-type: application/grpc` with HTTP/2 goes
    /// to `grpc`, which is a `chassis_grpc::Server` that is not a component of its own then.
    /// Each request has the layer of its own kind around it, so that metrics, log lines and
    /// errors are those of HTTP or of gRPC, never both. The socket, its limits and TLS are those
    /// of this server; deadlines, admission and reflection of calls are those of `grpc`.
    #[must_use]
    pub fn with_grpc(mut self, grpc: impl Guest) -> Server {
        self.guest = Some(Box::new(grpc));
        self
    }

    /// The router with all that stands around it, to be called without a socket:
    /// by a test under a paused clock, say. Who calls is what
    /// [`ConnectInfo`](axum::extract::ConnectInfo) in the extensions of a request says; without
    /// it nobody is trusted and no rate limit holds. Nobody watches how long tasks wait for a
    /// processor (`shed.queue_delay`).
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the setting and what is allowed.
    pub fn into_router(self, env: &Env) -> Result<Router> {
        self.config.validate()?;
        Ok(match self.assemble(env)?.0 {
            Edged::Whole(edge) => Router::new().fallback_service(edge),
            Edged::Each(router) => router,
        })
    }

    fn assemble(self, env: &Env) -> Result<(Edged, Door)> {
        let config = self.config;
        panic::install_hook();
        let door = Door::new(&config.admission, env, "http", Code::Unavailable, self.tokens)?;
        let edge = EdgeLayer::new(env, &config, door.clone());
        let router = config.compression.around(self.router, config.body_limit as u64);
        // With the state every handler becomes the service that it is: before, each request makes
        // it anew, and the layers around it.
        Ok((edge.around(router.with_state(())), door))
    }

    async fn serve(mut self, env: Env, ready: Ready, shutdown: Shutdown) -> Result<()> {
        let config = self.config.clone();
        let server = "http";
        if let Some(document) = self.document.take() {
            document.offer(&self.name, &env)?;
        }
        let guest = self.guest.take();
        let protocol = guest.as_ref().map(|guest| guest.protocol());
        let guest = guest.map(|guest| guest.open(&env, shutdown.clone())).transpose()?;
        let (guest, work) = match guest {
            None => (None, None),
            Some(Opened { is_for, connection, work }) => {
                (Some(Shared { is_for, connection }), Some(work))
            }
        };
        let tls = Tls::load(&config.tls, "http.tls", server, &["h2", "http/1.1"], &env)?;
        let address = (config.host, config.port).into();
        let limits = config.connections();
        let listening = Listening::bind(server, address, &config.socket, limits, tls, &env).await?;
        let (router, door) = self.assemble(&env)?;
        listening.announce(server, &env);
        if let Some(protocol) = protocol {
            listening.announce(protocol, &env);
        }
        ready.ready();
        let service = |peer: &_| PerConnection::new(&router, peer).beside(guest.as_ref());
        let http = config.http();
        let work = OptionFuture::from(work);
        tokio::select! {
            () = listening.serve(&http, service, shutdown) => {}
            () = door.watch() => {}
            Some(()) = work => {}
        }
        Ok(())
    }
}

impl Component for Server {
    fn name(&self) -> Cow<'static, str> {
        self.name.clone()
    }

    fn describe(&self) -> String {
        let tls = if self.config.tls.is_on() { ", TLS" } else { "" };
        let address = (self.config.host, self.config.port).into();
        let guest = self.guest.as_ref().map(|guest| format!(", {}", guest.describe()));
        format!("{}{tls}{}", self.config.socket.describe(address), guest.unwrap_or_default())
    }

    fn validate(&self) -> Result<()> {
        self.config.validate()?;
        self.document.as_ref().map_or(Ok(()), Document::validate)?;
        self.guest.as_ref().map_or(Ok(()), |guest| guest.validate())
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin((*self).serve(env, ready, shutdown))
    }
}
