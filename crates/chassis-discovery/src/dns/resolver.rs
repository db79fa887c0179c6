//! The skin: one task per target that asks, publishes and waits.
//!
//! hickory's own cache is off. What is cached here is the set of endpoints, and
//! two caches on top of each other would only make an answer older than its
//! TTL. AAAA is asked only where there is no A record: a host that has both is
//! reachable by the first, and half of a pool that is not routed would only
//! feed the circuit breakers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{BoxError, Error, Result};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, Record};
use tokio::time::Instant;

use super::location::Location;
use super::refresh::Refresh;
use crate::source::Watched;
use crate::{DnsConfig, Endpoint, Feed, Resolver, Target, Updates};

/// Resolves targets with DNS.
#[derive(Clone)]
pub struct Dns {
    shared: Arc<Shared>,
    watched: Arc<Watched>,
}

struct Shared {
    resolver: TokioResolver,
    config: DnsConfig,
    places: BTreeMap<Target, Vec<Location>>,
}

impl Dns {
    /// A resolver that finds a target by the pattern of the configuration.
    ///
    /// # Errors
    /// `INVALID_CONFIG` for a setting that makes no sense, or when the system's
    /// resolver configuration is needed and cannot be read.
    pub fn new(config: &DnsConfig) -> Result<Dns> {
        Dns::with_places(config, BTreeMap::new())
    }

    /// The same with places for single targets that go before the pattern.
    pub(crate) fn with_places(
        config: &DnsConfig,
        places: BTreeMap<Target, Vec<Location>>,
    ) -> Result<Dns> {
        config.validate()?;
        let mut builder = if config.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| {
                Error::failed_precondition(
                    "INVALID_CONFIG",
                    "the system's DNS configuration cannot be read; \
                     name the servers in discovery.dns.servers",
                )
                .with_source(error)
            })?
        } else {
            let servers = config.server_addresses()?;
            let servers = servers.into_iter().map(name_server).collect();
            TokioResolver::builder_with_config(
                ResolverConfig::from_parts(None, Vec::new(), servers),
                TokioRuntimeProvider::default(),
            )
        };
        let options = builder.options_mut();
        options.timeout = config.timeout;
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        let resolver = builder.build().map_err(Error::internal)?;
        Ok(Dns {
            shared: Arc::new(Shared { resolver, config: config.clone(), places }),
            watched: Arc::default(),
        })
    }
}

impl Resolver for Dns {
    fn watch(&self, target: &Target) -> Updates {
        self.watched.watch(target, |target, feed| match self.shared.places(&target) {
            Ok(places) => {
                let shared = Arc::clone(&self.shared);
                tokio::spawn(shared.follow(target, places, feed));
            }
            Err(error) => {
                tracing::error!(sought = %target, error = error.chain(), "no DNS name");
                feed.failed(Instant::now());
            }
        })
    }
}

impl Shared {
    fn places(&self, target: &Target) -> Result<Vec<Location>> {
        match self.places.get(target) {
            Some(places) => Ok(places.clone()),
            None => self.config.place(target).map(|place| vec![place]),
        }
    }

    /// Lives until nobody reads the feed.
    async fn follow(self: Arc<Self>, target: Target, places: Vec<Location>, feed: Feed) {
        let mut refresh = Refresh::new(self.config.min_ttl, self.config.max_ttl);
        let work = async {
            loop {
                let asked = Instant::now();
                let wait = match self.lookup(&places).await {
                    Ok((endpoints, ttl)) => {
                        if refresh.is_failing() {
                            tracing::info!(sought = %target, "DNS answers again");
                        }
                        feed.publish(endpoints);
                        refresh.after_answer(ttl, fastrand::f64())
                    }
                    Err(error) => {
                        feed.failed(Instant::now());
                        if !refresh.is_failing() {
                            tracing::warn!(
                                sought = %target,
                                error = error.to_string(),
                                "DNS lookup failed, the last known endpoints stay"
                            );
                        }
                        refresh.after_failure(fastrand::f64())
                    }
                };
                // Who finds an endpoint gone need not wait for the end of the TTL.
                let sooner = async {
                    tokio::time::sleep_until(asked + self.config.min_ttl).await;
                    feed.refresh_wanted().await;
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = sooner, if !refresh.is_failing() => {}
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = feed.closed() => {}
        }
    }

    /// All endpoints of all places, and how long the answer holds.
    async fn lookup(&self, places: &[Location]) -> Result<(Vec<Endpoint>, Duration), BoxError> {
        let mut endpoints = Vec::new();
        let mut ttl = Duration::MAX;
        for place in places {
            match place {
                Location::Address(address) => endpoints.push(Endpoint::new(*address)),
                Location::Host { name, port } => {
                    ttl = ttl.min(self.host(name, *port, 1, &mut endpoints).await?);
                }
                Location::Srv(name) => ttl = ttl.min(self.srv(name, &mut endpoints).await?),
            }
        }
        if endpoints.is_empty() {
            return Err("the answer holds no address".into());
        }
        Ok((endpoints, ttl))
    }

    async fn host(
        &self,
        name: &str,
        port: u16,
        weight: u32,
        into: &mut Vec<Endpoint>,
    ) -> Result<Duration, BoxError> {
        let answer = self.resolver.lookup_ip(name).await?;
        into.extend(
            answer.iter().map(|ip| Endpoint::new(SocketAddr::new(ip, port)).with_weight(weight)),
        );
        Ok(shortest_ttl(answer.as_lookup().answers()))
    }

    /// RFC 2782: the records of the lowest priority that has a reachable host. A
    /// host that cannot be looked up does not take the others with it.
    async fn srv(&self, name: &str, into: &mut Vec<Endpoint>) -> Result<Duration, BoxError> {
        let answer = self.resolver.srv_lookup(name).await?;
        let mut ttl = shortest_ttl(answer.answers());
        let mut priorities: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for record in answer.answers() {
            if let RData::SRV(srv) = &record.data {
                priorities.entry(srv.priority).or_default().push(srv);
            }
        }
        let mut problem: BoxError = "the answer holds no SRV record".into();
        for records in priorities.into_values() {
            let before = into.len();
            for srv in records {
                let host = srv.target.to_utf8();
                match self.host(&host, srv.port, u32::from(srv.weight), into).await {
                    Ok(valid) => ttl = ttl.min(valid),
                    Err(error) => {
                        // It may be back before the others change.
                        ttl = self.config.min_ttl;
                        problem = error;
                    }
                }
            }
            if into.len() > before {
                return Ok(ttl);
            }
        }
        Err(problem)
    }
}

fn shortest_ttl(records: &[Record]) -> Duration {
    let seconds = records.iter().map(|record| record.ttl).min().unwrap_or(0);
    Duration::from_secs(seconds.into())
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
        .map(|mut connection| {
            connection.port = address.port();
            connection
        })
        .to_vec();
    NameServerConfig::new(address.ip(), true, connections)
}
