//! Where the API server is and who we are there.

use std::time::Duration;

use chassis_core::{Error, Result};
use hyper::Method;

use crate::config::invalid;
use crate::http::{Answer, Api, Call};
use crate::{KubernetesConfig, RegistryConfig, Target, TlsConfig};

/// What a pod finds in its file system.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// One cluster, one namespace.
pub(super) struct KubernetesApi {
    api: Api,
    namespace: String,
    name: String,
    port: String,
    token_file: String,
    pub(super) resync: Duration,
}

impl KubernetesApi {
    pub(super) fn new(
        config: &KubernetesConfig,
        registry: &RegistryConfig,
    ) -> Result<KubernetesApi> {
        let key = "discovery.kubernetes";
        let url = match config.url.is_empty() {
            true => in_cluster().ok_or_else(|| {
                invalid(format!(
                    "{key}.url is empty, and KUBERNETES_SERVICE_HOST and _PORT are not set"
                ))
            })?,
            false => config.url.clone(),
        };
        let namespace = match config.namespace.is_empty() {
            true => std::fs::read_to_string(format!("{ACCOUNT}/namespace"))
                .map_err(|_| invalid(format!("{key}.namespace is empty, and this is no pod")))?
                .trim()
                .to_owned(),
            false => config.namespace.clone(),
        };
        let mut tls: TlsConfig = config.tls.clone();
        if tls.ca_file.is_empty() {
            tls.ca_file = format!("{ACCOUNT}/ca.crt");
        }
        Ok(KubernetesApi {
            api: Api::new("kubernetes", key, &[url], &tls, registry.timeout)?,
            namespace,
            name: config.name.clone(),
            port: config.port.clone(),
            token_file: config.token_file.clone(),
            resync: registry.resync,
        })
    }

    /// The name of the port that a target stands for.
    pub(super) fn port(&self, target: &Target) -> String {
        fill(&self.port, target)
    }

    /// The path of the slices of a target's Service.
    pub(super) fn path(&self, target: &Target) -> String {
        // `=` and `/` of the label selector, as a query writes them.
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices\
             ?labelSelector=kubernetes.io%2Fservice-name%3D{}",
            self.namespace,
            fill(&self.name, target)
        )
    }

    pub(super) async fn get(&self, path: String) -> Result<Answer> {
        let mut call = Call::new(Method::GET, path);
        if !self.token_file.is_empty() {
            // A small file in memory; it is replaced about once an hour.
            let token = tokio::fs::read_to_string(&self.token_file).await.map_err(|error| {
                Error::unavailable(
                    "TOKEN_UNREADABLE",
                    "discovery.kubernetes.token_file cannot be read",
                )
                .with_source(error)
            })?;
            call = call.header("authorization", format!("Bearer {}", token.trim()));
        }
        self.api.call(call).await
    }
}

fn fill(pattern: &str, target: &Target) -> String {
    pattern.replace("{service}", &target.service).replace("{protocol}", &target.protocol)
}

/// The API server as every pod is told of it.
fn in_cluster() -> Option<String> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok().filter(|host| !host.is_empty())?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok().filter(|port| !port.is_empty())?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("https://{host}:{port}"))
}
