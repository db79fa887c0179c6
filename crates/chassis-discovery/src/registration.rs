//! The component that says where this process listens.
//!
//! Started last and stopped first, so that nobody is sent to a process that
//! does not serve yet or has begun to leave.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use chassis_core::{BoxFuture, Component, Env, Ready, Result, Shutdown};

use crate::{Endpoint, Registrar, Target};

/// Registers every listener but the admin port, and takes it back at the end.
pub struct Registration {
    registrar: Option<Arc<dyn Registrar>>,
    description: &'static str,
}

impl Registration {
    pub(crate) fn new(
        registrar: Option<Arc<dyn Registrar>>,
        description: &'static str,
    ) -> Registration {
        Registration { registrar, description }
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
            let mut leases = Vec::new();
            if let Some(registrar) = &self.registrar {
                for listener in env.listeners() {
                    if listener.protocol == "admin" {
                        continue;
                    }
                    let target = Target::new(env.info().name.as_ref(), listener.protocol);
                    let endpoint = Endpoint::new(reachable(listener.address));
                    leases.push(registrar.register(target, endpoint).await?);
                }
            }
            ready.ready();
            shutdown.requested().await;
            drop(leases);
            Ok(())
        })
    }
}

/// "Every address" is good to listen on, but nobody can call it.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}
