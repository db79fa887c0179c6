//! The part of etcd's API that discovery needs.
//!
//! The gateway writes 64-bit numbers as texts and bytes as base64, and leaves
//! out what is zero or empty.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chassis_core::{Code, Result, Secret};
use hyper::Method;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::http::{Answer, Api, Call};
use crate::{EtcdConfig, RegistryConfig, Target};

/// A connection-less client of one cluster.
pub(super) struct EtcdApi {
    api: Api,
    prefix: String,
    user: String,
    password: Secret,
    /// The token of the login, while it is good.
    token: Mutex<Option<String>>,
    pub(super) resync: Duration,
}

impl EtcdApi {
    pub(super) fn new(config: &EtcdConfig, registry: &RegistryConfig) -> Result<EtcdApi> {
        let key = "discovery.etcd";
        Ok(EtcdApi {
            api: Api::new("etcd", key, &config.urls, &config.tls, registry.timeout)?,
            prefix: config.prefix.clone(),
            user: config.user.clone(),
            password: config.password.clone(),
            token: Mutex::new(None),
            resync: registry.resync,
        })
    }

    /// The beginning of the keys of a target.
    pub(super) fn prefix(&self, target: &Target) -> String {
        format!("{}/{}/{}/", self.prefix, target.service, target.protocol)
    }

    /// One request with one answer. A token that ran out is renewed once.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> Result<T> {
        match self.stream(path, &body).await {
            Err(error) if error.code() == Code::Unauthenticated && !self.user.is_empty() => {
                *self.token.lock() = None;
                self.stream(path, &body).await?.json().await
            }
            other => other?.json().await,
        }
    }

    /// One request whose answer is a stream of lines.
    pub(super) async fn stream(&self, path: &str, body: &Value) -> Result<Answer> {
        let mut call = Call::new(Method::POST, path)
            .json(body)
            // A member that has lost its cluster must say so, not keep silent.
            .header("grpc-metadata-hasleader", "true");
        if let Some(token) = self.token().await? {
            call = call.header("authorization", token);
        }
        self.api.call(call).await
    }

    async fn token(&self) -> Result<Option<String>> {
        if self.user.is_empty() {
            return Ok(None);
        }
        let known = self.token.lock().clone();
        if known.is_some() {
            return Ok(known);
        }
        let body = json!({ "name": self.user, "password": self.password.expose() });
        let call = Call::new(Method::POST, "/v3/auth/authenticate").json(&body);
        let login: Login = self.api.call(call).await?.json().await?;
        *self.token.lock() = Some(login.token.clone());
        Ok(Some(login.token))
    }
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

/// Bytes as the gateway writes them.
pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The end of the range of all keys with this prefix, as etcd counts: the prefix
/// with its last byte one higher. Ours end with `/`, which has a successor.
pub(super) fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// A key and its value.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
}

/// What comes with every answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) revision: i64,
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// A 64-bit number, as text or as number.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(i64),
    }
    match Either::deserialize(deserializer)? {
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
        Either::Number(number) => Ok(number),
    }
}
