//! Routes with their OpenAPI document: completed here, shown at the admin port.
//!
//! Which crate makes the document is not known here: whatever serialises to OpenAPI 3 will do,
//! so that no version of utoipa is a version of ours. What is added is what a service would
//! have to repeat for each route and would get wrong: who it is, and what a failure looks like.

use axum::Router;
use chassis_core::{Code, Env, Error, Result, ServiceInfo};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::problem::PROBLEM_JSON;

/// What a [`Server`](crate::Server) serves: a router, or a pair of a router and its OpenAPI
/// document, such as `OpenApiRouter::split_for_parts` of utoipa-axum gives.
///
/// The document is shown at `/openapi.json` of the admin port, completed: with name and version
/// of the service where it has no title or version, and with the problem document as answer to
/// every failure. What it says itself stays.
pub struct Routes {
    pub(crate) router: Router,
    pub(crate) document: Option<Document>,
}

/// A document as it was given, or why it is none.
pub(crate) struct Document(serde_json::Result<Value>);

impl From<Router> for Routes {
    fn from(router: Router) -> Routes {
        Routes { router, document: None }
    }
}

impl<D: Serialize> From<(Router, D)> for Routes {
    fn from((router, document): (Router, D)) -> Routes {
        Routes { router, document: Some(Document(serde_json::to_value(document))) }
    }
}

impl Document {
    /// # Errors
    /// `INVALID_OPENAPI` for what is no OpenAPI 3.
    pub(crate) fn validate(&self) -> Result<()> {
        let wrong = |what: String| Error::invalid_argument("INVALID_OPENAPI", what);
        let document = self.0.as_ref().map_err(|error| {
            wrong(format!("the OpenAPI document of the HTTP server is not JSON: {error}"))
        })?;
        let version = document["openapi"].as_str().unwrap_or_default();
        if version.starts_with("3.") && document["paths"].is_object() {
            return Ok(());
        }
        Err(wrong("the document of the HTTP server is not OpenAPI 3: `openapi` or `paths`".into()))
    }

    /// Lets the admin port show it under this name.
    ///
    /// # Errors
    /// `INVALID_OPENAPI`, or `OPENAPI_NAME_TAKEN` if another server has that name.
    pub(crate) fn offer(self, name: &str, env: &Env) -> Result<()> {
        self.validate()?;
        let document = complete(self.0.map_err(Error::internal)?, env.info());
        if names(env).iter().any(|taken| taken == name) {
            let message = format!(
                "two HTTP servers with an OpenAPI document are called `{name}`; call one of them \
                 otherwise: Server::named"
            );
            return Err(Error::invalid_argument("OPENAPI_NAME_TAKEN", message));
        }
        let operations = env.operations();
        operations.read(
            format!("openapi/{name}"),
            "Shows the OpenAPI document of an HTTP server.",
            move |_| std::future::ready(Ok(document.clone())),
        );
        Ok(())
    }
}

/// The servers whose documents can be shown.
fn names(env: &Env) -> Vec<String> {
    let operations = env.operations().list().into_iter();
    operations.filter_map(|one| Some(one.name.strip_prefix("openapi/")?.to_owned())).collect()
}

/// The document of this server, or of the only one that has one.
///
/// Dropping the future ends it; nothing is held.
///
/// # Errors
/// `OPENAPI_NOT_FOUND`, with what to do about it.
pub(crate) async fn shown(env: &Env, server: Option<&str>) -> Result<Value> {
    let names = names(env);
    let name =
        match (server, names.as_slice()) {
            (None, [one]) => one,
            (Some(server), names) if names.iter().any(|name| name == server) => server,
            (_, []) => return Err(not_found(
                "no HTTP server of this process has an OpenAPI document: give its routes together \
                 with one, as the pair (Router, OpenApi) that OpenApiRouter::split_for_parts of \
                 utoipa-axum makes"
                    .to_owned(),
            )),
            (None, _) => {
                return Err(not_found(format!(
                    "several HTTP servers have a document; say which: ?server={}",
                    names.join(", ?server=")
                )));
            }
            (Some(server), _) => {
                return Err(not_found(format!(
                    "no HTTP server with a document is called `{server}`; there is ?server={}",
                    names.join(", ?server=")
                )));
            }
        };
    env.operations().run(&format!("openapi/{name}"), Value::Null, false).await
}

fn not_found(message: String) -> Error {
    Error::not_found("OPENAPI_NOT_FOUND", message)
}

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

fn complete(mut document: Value, service: &ServiceInfo) -> Value {
    about(object(&mut document, &["info"]), service);
    let problem = json!({ PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } });
    if let Some(schemas) = object(&mut document, &["components", "schemas"]) {
        schemas.entry("Problem").or_insert_with(problem_schema);
    }
    if let Some(responses) = object(&mut document, &["components", "responses"]) {
        let failures = || json!({ "description": FAILURES, "content": problem });
        responses.entry("Problem").or_insert_with(failures);
    }
    if let Some(paths) = object(&mut document, &["paths"]) {
        // A capture of the rest of a path is written with a star in axum alone.
        let named = |(path, item): (String, Value)| (path.replace("{*", "{"), item);
        *paths = std::mem::take(paths).into_iter().map(named).collect();
        for item in paths.values_mut() {
            for method in METHODS {
                if let Some(operation) = item.get_mut(method) {
                    fail(object(operation, &["responses"]), &problem);
                }
            }
        }
    }
    document
}

fn about(info: Option<&mut Map<String, Value>>, service: &ServiceInfo) {
    let Some(info) = info else { return };
    // `OpenApiRouter::new` describes the crate that it is in, not ours.
    if info.get("title").is_some_and(|title| title == "utoipa-axum") {
        info.clear();
    }
    for (key, value) in [("title", &service.name), ("version", &service.version)] {
        if info.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
            info.insert(key.to_owned(), json!(value));
        }
    }
}

/// Says of the failures of an operation that they are problem documents.
fn fail(responses: Option<&mut Map<String, Value>>, problem: &Value) {
    let Some(responses) = responses else { return };
    for (status, response) in responses.iter_mut() {
        let is_bare = response.get("content").is_none() && response.get("$ref").is_none();
        if let Some(response) = response.as_object_mut()
            && is_bare
            && status.starts_with(['4', '5'])
        {
            response.insert("content".to_owned(), problem.clone());
        }
    }
    let any = || json!({ "$ref": "#/components/responses/Problem" });
    responses.entry("default").or_insert_with(any);
}

/// The object at a path, made where it is missing; none if something else is there.
fn object<'a>(mut at: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    for key in path {
        at = at.as_object_mut()?.entry(*key).or_insert_with(|| json!({}));
    }
    at.as_object_mut()
}

const FAILURES: &str = "Any failure, as a problem document (RFC 9457). On each path may come: \
    400 the request is not valid, 408 its body came too slowly, 413 it is too large, 414 its \
    target is too long, 415 its media type is not read, 429 too many requests, 431 its head is \
    too large, 500 an internal error, 503 no room or the service is ending, 504 out of time. \
    `Retry-After` says when it may be repeated, where that is known.";

/// The members of the document that a [`Problem`](crate::Problem) is answered with.
fn problem_schema() -> Value {
    let codes: Vec<_> = (1..=16).map(|number| Code::from_grpc(number).as_str()).collect();
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "description": "A problem document (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code", "reason"],
        "properties": {
            "type": text("Always about:blank."),
            "title": text("The words for the status."),
            "status": { "type": "integer", "format": "int32", "description": "The HTTP status." },
            "detail": text("What went wrong, for people."),
            "code": {
                "type": "string", "enum": codes,
                "description": "The kind of failure; those of gRPC."
            },
            "reason": text("What went wrong, for programs: it does not change."),
            "request_id": text("Under what this request is found in the logs."),
            "errors": {
                "type": "array",
                "description": "The fields that are wrong.",
                "items": {
                    "type": "object",
                    "required": ["field", "problem"],
                    "properties": {
                        "field": text("Its path in the request, such as lines[0].count."),
                        "problem": text("What is wrong with it."),
                    },
                },
            },
            "details": {
                "type": "object",
                "description": "Values that belong to the reason.",
                "additionalProperties": { "type": "string" },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use chassis_core::Context;

    use super::*;
    use crate::Problem;

    fn completed(document: Value) -> Value {
        complete(document, &ServiceInfo::new("ordering", "1.2.3"))
    }

    #[test]
    fn what_the_document_says_itself_stays() {
        let given = json!({
            "openapi": "3.1.0",
            "info": { "title": "Orders", "version": "" },
            "paths": {
                "/orders/{*rest}": {
                    "parameters": [],
                    "get": { "responses": {
                        "200": { "description": "All." },
                        "404": { "description": "None." },
                        "409": { "description": "Not now.", "content": { "text/plain": {} } },
                        "4XX": { "$ref": "#/components/responses/Mine" },
                    } },
                    "put": { "responses": { "default": { "description": "Mine." } } },
                    "post": {},
                },
            },
        });
        let document = completed(given);
        assert_eq!(document["info"], json!({ "title": "Orders", "version": "1.2.3" }));
        let item = &document["paths"]["/orders/{rest}"];
        let got = &item["get"]["responses"];
        let problem = json!({ "$ref": "#/components/responses/Problem" });
        assert_eq!(got["default"], problem);
        assert_eq!(got["200"], json!({ "description": "All." }));
        assert!(got["404"]["content"]["application/problem+json"].is_object());
        assert_eq!(got["409"]["content"], json!({ "text/plain": {} }));
        assert_eq!(got["4XX"], json!({ "$ref": "#/components/responses/Mine" }));
        assert_eq!(item["put"]["responses"]["default"], json!({ "description": "Mine." }));
        assert_eq!(item["post"]["responses"]["default"], problem);
        assert_eq!(item["parameters"], json!([]));
        // What `OpenApiRouter::new` says of another crate does not.
        let info = json!({ "title": "utoipa-axum", "version": "0.3.0", "license": {} });
        let document = completed(json!({ "openapi": "3.1.0", "info": info, "paths": {} }));
        assert_eq!(document["info"], json!({ "title": "ordering", "version": "1.2.3" }));
    }

    #[tokio::test]
    async fn the_schema_has_the_members_of_a_problem_and_no_others() {
        let env = Env::test("t");
        let full = Error::resource_exhausted("QUOTA", "too many")
            .with_detail("limit", "7")
            .with_field("lines", "too many");
        for (error, is_full) in [(full, true), (Error::not_found("GONE", "gone"), false)] {
            let answer = async { Problem::from(error).into_response() };
            let answer = if is_full {
                Context::background(&env).with_request_id("r-1").scope(answer).await
            } else {
                answer.await
            };
            let body = axum::body::to_bytes(answer.into_body(), 64 * 1024).await.unwrap();
            let body: Map<String, Value> = serde_json::from_slice(&body).unwrap();
            let schema = problem_schema();
            // A full one has all that is known, a bare one only what is required.
            let mut expected: Vec<_> = if is_full {
                schema["properties"].as_object().unwrap().keys().cloned().collect()
            } else {
                serde_json::from_value(schema["required"].clone()).unwrap()
            };
            expected.sort();
            let mut keys: Vec<_> = body.keys().cloned().collect();
            keys.sort();
            assert_eq!(keys, expected);
            let codes = schema["properties"]["code"]["enum"].as_array().unwrap();
            assert!(codes.contains(&body["code"]));
        }
    }

    #[test]
    fn what_is_no_openapi_is_refused() {
        for wrong in [json!("openapi"), json!({ "swagger": "2.0", "paths": {} }), json!({})] {
            let routes = Routes::from((Router::new(), wrong));
            assert_eq!(
                routes.document.unwrap().validate().unwrap_err().reason(),
                "INVALID_OPENAPI"
            );
        }
        let numbered = std::collections::BTreeMap::from([(vec![1], 1)]);
        let routes = Routes::from((Router::new(), numbered));
        assert!(routes.document.unwrap().validate().is_err());
    }
}
