//! The component that says where this process listens.
//!
//! Started last and stopped first, so that nobody is sent to a process that
//! does not serve yet or has begun to leave.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use chassis_core::{BoxFuture, Component, Env, Ready, Result, Shutdown};

use crate::observe::Observed;
use crate::{AdvertiseConfig, Endpoint, Registrar, Target};

/// Registers every listener but the admin port, and takes it back at the end.
pub struct Registration {
    registrar: Option<Arc<dyn Registrar>>,
    description: &'static str,
    advertise: AdvertiseConfig,
    remote: bool,
    observed: Arc<Observed>,
}

impl Registration {
    pub(crate) fn new(
        registrar: Option<Arc<dyn Registrar>>,
        description: &'static str,
        advertise: AdvertiseConfig,
        remote: bool,
        observed: Arc<Observed>,
    ) -> Registration {
        Registration { registrar, description, advertise, remote, observed }
    }

    fn endpoint(&self, env: &Env, address: SocketAddr) -> Result<Endpoint> {
        let address = match self.advertise.ip()? {
            Some(ip) => SocketAddr::new(ip, address.port()),
            None => reachable(address, self.remote),
        };
        let endpoint = Endpoint::new(address)
            .with_version(env.info().version.as_ref())
            .with_label("instance", &env.info().instance);
        Ok(self.advertise.describe(endpoint))
    }
}

impl Component for Registration {
    fn name(&self) -> Cow<'static, str> {
        "registration".into()
    }

    fn describe(&self) -> String {
        match self.registrar {
            Some(_) => format!("registers listeners ({})", self.description),
            None => format!("nothing to register with ({})", self.description),
        }
    }

    fn announces(&self) -> bool {
        true
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let by = Arc::new(());
            // Also when this future is dropped: nobody may be sent here then.
            let _gone = Deregister(&self.observed, &by);
            if let Some(registrar) = &self.registrar {
                for listener in env.listeners() {
                    if listener.protocol == "admin" {
                        continue;
                    }
                    let target = Target::new(env.info().name.as_ref(), listener.protocol);
                    let endpoint = self.endpoint(&env, listener.address)?;
                    let lease = registrar.register(target.clone(), endpoint).await?;
                    self.observed.registered(&by, target, lease);
                }
            }
            self.observed.show(&env);
            ready.ready();
            shutdown.requested().await;
            self.observed.deregister(&by).await;
            Ok(())
        })
    }
}

/// Lets go of the registrations when it is dropped.
struct Deregister<'a>(&'a Observed, &'a Arc<()>);

impl Drop for Deregister<'_> {
    fn drop(&mut self) {
        // It begins with the call; nobody is there to wait for the end.
        self.0.let_go(self.1);
    }
}

/// "Every address" is good to listen on, but nobody can call it.
fn reachable(address: SocketAddr, remote: bool) -> SocketAddr {
    let (loopback, elsewhere): (IpAddr, IpAddr) = match address.ip() {
        // Addresses for documentation (RFC 5737, RFC 3849): nobody has them, so
        // they are on the default route. Nothing is sent.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(192, 0, 2, 1).into())
        }
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
        }
        _ => return address,
    };
    let leads_out = || {
        let socket = UdpSocket::bind((address.ip(), 0)).ok()?;
        socket.connect((elsewhere, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let ip = if remote { leads_out() } else { None };
    SocketAddr::new(ip.unwrap_or(loopback), address.port())
}
