//! A service as generated code would make it, with a handler for each test.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use chassis_core::BoxFuture;
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

/// The only message: it asks and it answers.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hello {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

pub(crate) fn hello(text: impl Into<String>) -> Hello {
    Hello { text: text.into() }
}

type Items = tokio_stream::wrappers::ReceiverStream<Result<Hello, Status>>;
type Handle<T> =
    Arc<dyn Fn(Request<Hello>) -> BoxFuture<'static, Result<Response<T>, Status>> + Send + Sync>;

type Chat = Arc<
    dyn Fn(Request<Streaming<Hello>>) -> BoxFuture<'static, Result<Response<Items>, Status>>
        + Send
        + Sync,
>;

#[derive(Clone)]
pub(crate) struct Greeter {
    greet: Handle<Hello>,
    list: Handle<Items>,
    chat: Chat,
    reads: Option<usize>,
}

pub(crate) const GREET: &str = "test.Greeter/Greet";
pub(crate) const CHAT: &str = "test.Greeter/Chat";
pub(crate) const LIST: &str = "test.Greeter/List";

impl Greeter {
    pub(crate) fn new<F>(greet: impl Fn(String) -> F + Send + Sync + 'static) -> Greeter
    where
        F: Future<Output = Result<String, Status>> + Send + 'static,
    {
        Greeter {
            greet: Arc::new(move |request| {
                let answer = greet(request.into_inner().text);
                Box::pin(async move { Ok(Response::new(hello(answer.await?))) })
            }),
            list: Arc::new(|_| Box::pin(async { Err(Status::unimplemented("no list")) })),
            chat: Arc::new(|_| Box::pin(async { Err(Status::unimplemented("no chat")) })),
            reads: None,
        }
    }

    /// Answers each message of a conversation with the same one; both end with the first failure.
    pub(crate) fn echoing(mut self) -> Greeter {
        self.chat = Arc::new(|request| {
            let mut asked = request.into_inner();
            let (sender, receiver) = tokio::sync::mpsc::channel(8);
            tokio::spawn(async move {
                while let Some(next) = asked.message().await.transpose() {
                    let failed = next.is_err();
                    if sender.send(next).await.is_err() || failed {
                        break;
                    }
                }
            });
            Box::pin(async move { Ok(Response::new(receiver.into())) })
        });
        self
    }

    /// The limit of tonic itself, as `max_decoding_message_size` of generated code.
    pub(crate) fn reads(mut self, bytes: usize) -> Greeter {
        self.reads = Some(bytes);
        self
    }

    pub(crate) fn list(mut self, items: impl Fn() -> Items + Send + Sync + 'static) -> Greeter {
        self.list = Arc::new(move |_| {
            let items = items();
            Box::pin(async move { Ok(Response::new(items)) })
        });
        self
    }
}

impl NamedService for Greeter {
    const NAME: &'static str = "test.Greeter";
}

impl Service<http::Request<Body>> for Greeter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Greeter { greet, list, chat, reads } = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Hello, Hello>::default())
                .apply_max_message_size_config(reads, None);
            Ok(match &request.uri().path()[1..] {
                GREET => {
                    let service = tower::service_fn(move |request| greet(request));
                    grpc.unary(service, request).await
                }
                LIST => {
                    let service = tower::service_fn(move |request| list(request));
                    grpc.server_streaming(service, request).await
                }
                CHAT => {
                    let service = tower::service_fn(move |request| chat(request));
                    grpc.streaming(service, request).await
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Calls `Greet`, or another unary method by its path.
pub(crate) async fn unary<T>(
    channel: T,
    method: &str,
    request: impl tonic::IntoRequest<Hello>,
) -> Result<Response<Hello>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<chassis_core::BoxError>,
{
    let path: PathAndQuery = format!("/{method}").parse().unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    grpc.unary(request.into_request(), path, ProstCodec::<Hello, Hello>::default()).await
}

pub(crate) async fn greet<T>(
    channel: T,
    request: impl tonic::IntoRequest<Hello>,
) -> Result<String, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<chassis_core::BoxError>,
{
    Ok(unary(channel, GREET, request).await?.into_inner().text)
}

pub(crate) async fn list<T>(
    channel: T,
    request: impl tonic::IntoRequest<Hello>,
) -> Result<Streaming<Hello>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<chassis_core::BoxError>,
{
    let path: PathAndQuery = format!("/{LIST}").parse().unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<Hello, Hello>::default();
    Ok(grpc.server_streaming(request.into_request(), path, codec).await?.into_inner())
}

/// Calls `Chat`: what goes in as it is taken from the channel, and what comes out.
pub(crate) async fn chat<T>(
    channel: T,
    asked: tokio::sync::mpsc::Receiver<Hello>,
) -> Result<Streaming<Hello>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<chassis_core::BoxError>,
{
    let path: PathAndQuery = format!("/{CHAT}").parse().unwrap();
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<Hello, Hello>::default();
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    Ok(grpc.streaming(Request::new(asked), path, codec).await?.into_inner())
}
