//! The server as a component: from a configuration to a bound socket, and down
//! again.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use chassis_admission::Door;
use chassis_core::{BoxError, BoxFuture, Code, Component, Env, Ready, Result, Shutdown};
use chassis_net::guest::{self, Guest, Opened};
use chassis_net::{Listening, Peer, tls::Tls};
use chassis_resilience::rate_limit::shared::TokenStore;
use futures_util::FutureExt;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer, Service};

use super::call::{Calls, CallsFactory};
use super::config::ServerConfig;
use super::connections::PerConnection;
use super::{connections, descriptors, health, layers};

/// A gRPC server with health, reflection, deadlines, metrics, spans and an
/// access log around its services.
pub struct Server {
    config: ServerConfig,
    services: Services,
    tokens: Option<Box<dyn TokenStore>>,
}

/// The services of a [`Server`]: tonic's routes, and the descriptors behind them.
#[derive(Debug)]
pub struct Services {
    routes: Routes,
    descriptors: Vec<&'static [u8]>,
    /// Service and probe.
    needs: Vec<(String, String)>,
}

impl Services {
    /// These services, without descriptors.
    #[must_use]
    pub fn new(routes: Routes) -> Services {
        Services { routes, descriptors: Vec::new(), needs: Vec::new() }
    }

    /// Adds an encoded `FileDescriptorSet` of the services. Reflection answers
    /// from it, if the configuration allows, and each service in it can be asked
    /// for by name in `grpc.health.v1`.
    #[must_use]
    pub fn reflection(mut self, file_descriptor_set: &'static [u8]) -> Services {
        self.descriptors.push(file_descriptor_set);
        self
    }

    /// Says that a service, such as `greeter.v1.Greeter`, cannot do its work while a probe of the
    /// process fails: `grpc.health.v1` says then that it does not serve, and that the others do.
    /// The service can be asked for by name, with or without a descriptor. Where the process has
    /// no probe of that name, it does not start.
    #[must_use]
    pub fn needs(mut self, service: impl Into<String>, probe: impl Into<String>) -> Services {
        self.needs.push((service.into(), probe.into()));
        self
    }

    /// Puts a layer of tower around the services that are here so far: the same layers as
    /// around anything else, or tonic's `InterceptorLayer`. One that is added later is outside of
    /// those before it. All of them stand inside of what the server puts around each call: they
    /// run in its context and its deadline, after it was let in, and the log and the metrics hold
    /// what they answer. Health and reflection are not behind them.
    ///
    /// What a layer fails with becomes a status: a [`Status`](tonic::Status) or an
    /// [`Error`](chassis_core::Error) itself, what a layer of chassis-resilience refuses
    /// `RESOURCE_EXHAUSTED`, its timeout `DEADLINE_EXCEEDED`, and anything else `INTERNAL`.
    #[must_use]
    pub fn layer<L, B>(self, layer: L) -> Services
    where
        L: Layer<Routes>,
        L::Service: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<http::Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<http::Request<Body>>>::Future: Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Services { routes: layers::routes(layer.layer(self.routes)), ..self }
    }

    /// The routes alone, to call them without a socket.
    #[must_use]
    pub fn into_routes(self) -> Routes {
        self.routes
    }
}

impl From<Routes> for Services {
    fn from(routes: Routes) -> Services {
        Services::new(routes)
    }
}

impl Server {
    /// A server for these services. It listens once it runs as a component.
    pub fn new(config: &ServerConfig, services: impl Into<Services>) -> Server {
        Server { config: config.clone(), services: services.into(), tokens: None }
    }

    /// Keeps the rate limit of each caller together with all instances that use this store; it
    /// is used only if `admission.rate_limit` is on.
    #[must_use]
    pub fn rate_limit_store(mut self, store: impl TokenStore) -> Server {
        self.tokens = Some(Box::new(store));
        self
    }

    /// The services with all that stands around each call, to be called without a socket: by a
    /// generated client in a test under a paused clock, say. `peer` is who calls; without it
    /// nobody is trusted and no rate limit holds. `grpc.health.v1` is not among them, nobody
    /// watches how long tasks wait for a processor (`shed.queue_delay`), and a call runs in the
    /// task of its caller.
    ///
    /// # Errors
    /// `INVALID_CONFIG` that names the setting and what is allowed.
    pub fn into_service(self, env: &Env, peer: Option<SocketAddr>) -> Result<InProcess> {
        self.config.validate("grpc")?;
        let reflects = self.reflects();
        let Services { mut routes, descriptors, .. } = self.services;
        if reflects {
            routes = routes.add_service(descriptors::reflection(&descriptors)?);
        }
        let door = door(&self.config, env, self.tokens)?;
        let calls = CallsFactory::new(routes.prepare(), env, &self.config, door);
        Ok(InProcess(calls.connection(peer, None)))
    }

    fn reflects(&self) -> bool {
        self.config.reflection && !self.services.descriptors.is_empty()
    }

    /// The calls, and what has to be polled beside them without end.
    fn assemble(
        self,
        env: &Env,
        shutdown: Shutdown,
    ) -> Result<(CallsFactory, BoxFuture<'static, ()>)> {
        let reflects = self.reflects();
        let Services { routes, descriptors, needs } = self.services;
        let names = descriptors::services(&descriptors)?;
        let (health, health_service) = health::Health::new(names, needs, env.health())?;
        let mut routes = routes.add_service(health_service);
        if reflects {
            routes = routes.add_service(descriptors::reflection(&descriptors)?);
        }
        let door = door(&self.config, env, self.tokens)?;
        let calls = CallsFactory::new(routes.prepare(), env, &self.config, door.clone());
        let health = health.follow(env.health().clone(), shutdown);
        let work = async move { tokio::join!(health, door.watch()) };
        Ok((calls, Box::pin(work.map(drop))))
    }

    async fn serve(self, env: Env, ready: Ready, shutdown: Shutdown) -> Result<()> {
        let config = self.config.clone();
        let (calls, work) = self.assemble(&env, shutdown.clone())?;
        let server = "grpc";
        let tls = Tls::load(&config.tls, "grpc.tls", server, &["h2"], &env)?;
        let (address, limits) = (config.address(), config.connections());
        let listening = Listening::bind(server, address, &config.socket, limits, tls, &env).await?;
        listening.announce(server, &env);
        ready.ready();

        let service = |peer: &_| PerConnection::new(&calls, peer);
        let http = config.http();
        tokio::select! {
            () = listening.serve(&http, service, shutdown) => {}
            () = work => {}
        }
        Ok(())
    }
}

/// On the port of an HTTP server. Of its own settings those of the socket, of connections and of
/// TLS mean nothing there.
impl Guest for Server {
    type Body = Body;

    fn protocol(&self) -> &'static str {
        "grpc"
    }

    fn describe(&self) -> String {
        let reflection = if self.reflects() { ", reflection" } else { "" };
        format!("gRPC, health{reflection}")
    }

    fn validate(&self) -> Result<()> {
        self.config.validate("grpc")
    }

    fn open(self, env: &Env, shutdown: Shutdown) -> Result<Opened<Body>> {
        let (calls, work) = self.assemble(env, shutdown)?;
        let connection = move |peer: &Peer| -> guest::Calls<Body> {
            let calls = PerConnection::new(&calls, peer);
            Box::new(move |request| calls.shared(request))
        };
        Ok(Opened { is_for: connections::is_grpc, connection: Box::new(connection), work })
    }
}

fn door(config: &ServerConfig, env: &Env, tokens: Option<Box<dyn TokenStore>>) -> Result<Door> {
    // Not `UNAVAILABLE`: to clients that is an endpoint to leave, and this one works.
    Door::new(&config.admission, env, "grpc", Code::ResourceExhausted, tokens)
}

/// What [`Server::into_service`] gives: the calls of a server without its socket. Cheap to
/// clone. Dropping the future of a call cancels it.
#[derive(Clone)]
pub struct InProcess(Calls);

impl<B> Service<http::Request<B>> for InProcess
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.0.call(request)
    }
}

impl Component for Server {
    fn name(&self) -> Cow<'static, str> {
        "grpc".into()
    }

    fn describe(&self) -> String {
        let reflection = if self.reflects() { ", reflection" } else { "" };
        let tls = if self.config.tls.is_on() { ", TLS" } else { "" };
        let place = self.config.socket.describe(self.config.address());
        format!("{place}, health{reflection}{tls}")
    }

    fn validate(&self) -> Result<()> {
        self.config.validate("grpc")
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(self.serve(env, ready, shutdown))
    }
}
