//! One endpoint: one HTTP/2 connection, made when the first call needs it and
//! again after it broke.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Uri};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;
use tower::util::MapRequest;

use super::replay::Replay;

/// How often a silent server with calls under way is asked whether it is there.
/// Not below what servers tolerate (gRPC's minimum is ten seconds).
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long it has to answer.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The service of one endpoint.
pub(super) type Transport = MapRequest<Channel, fn(Request<Replay>) -> Request<Body>>;

pub(super) fn connect(address: SocketAddr, connect_timeout: Duration) -> Transport {
    // An address is always a valid authority. Should it ever not be, the empty
    // URI fails at the first call, with a connect error that names it.
    let uri = Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query("/")
        .build()
        .unwrap_or_default();
    Endpoint::from(uri)
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .connect_lazy()
        .map_request(|request: Request<Replay>| request.map(Body::new))
}
