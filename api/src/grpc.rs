//! The public gRPC service over raw bytes.
//!
//! The generated server decodes a message before anybody sees it, but Hawk vouches for the bytes
//! that were sent. So this server hands on each message as it came and routes by the path alone; what
//! the bytes mean is read behind the check ([`crate::mailbox`]).

mod message;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::Body as HttpBody;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;

use crate::call::{Call, CallReply, Door, RpcPath};
use crate::error::ApiError;
use crate::limits::DoorLimits;
use message::{Messages, Reply};

/// The metadata key of a Hawk request header.
pub const AUTHORIZATION: &str = "authorization";
/// The metadata key of a Hawk response header.
pub const SERVER_AUTHORIZATION: &str = "server-authorization";
/// The full name of the service.
pub const SERVICE_NAME: &str = "rossby.v1.Mailbox";
/// The content type of every answer.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The public service, ready to be served by HTTP/2.
#[derive(Clone)]
pub struct MailboxServer {
    door: Arc<dyn Door>,
    limits: DoorLimits,
}

impl MailboxServer {
    /// A server that hands each call to `door`.
    #[must_use]
    pub fn new(door: Arc<dyn Door>, limits: DoorLimits) -> Self {
        Self { door, limits }
    }
}

impl tonic::server::NamedService for MailboxServer {
    const NAME: &'static str = SERVICE_NAME;
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<B> tonic::codegen::Service<http::Request<B>> for MailboxServer
where
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<tonic::codegen::StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Ok(path) = request.uri().path().parse::<RpcPath>() else {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        };
        let method = Method {
            door: Arc::clone(&self.door),
            path,
            deadline: Instant::now() + patience(request.headers(), &self.limits),
            limit: usize::try_from(self.limits.request_bytes).unwrap_or(usize::MAX),
        };
        Box::pin(async move {
            let answer = method.answer(request).await;
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

/// How long the caller waits: what it says in `grpc-timeout`, at most what we allow, less a margin
/// in which our typed answer can reach it before its own timer fires.
fn patience(headers: &HeaderMap, limits: &DoorLimits) -> Duration {
    let asked = headers
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok());
    let asked = asked.and_then(parse_grpc_timeout).unwrap_or(Duration::MAX);
    let allowed = limits.call_timeout().min(asked);
    allowed - (allowed / 10).min(Duration::from_millis(100))
}

/// Reads `grpc-timeout`: up to 8 digits and a unit (gRPC over HTTP/2, "Requests").
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// One call on its way to the door.
struct Method {
    door: Arc<dyn Door>,
    path: RpcPath,
    deadline: Instant,
    limit: usize,
}

impl Method {
    async fn answer<B>(self, request: http::Request<B>) -> Result<http::Response<Body>, Status>
    where
        B: HttpBody,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let call = self.receive(request).await?;
        if self.path.is_stream() {
            let messages = self.door.subscribe(call).await?;
            return Ok(response(Body::new(Messages::new(messages))));
        }
        let CallReply {
            message,
            server_authorization,
        } = self.door.call(call).await?;
        let mut response = response(Body::new(Reply::new(message)));
        if let Some(header) = server_authorization {
            response
                .headers_mut()
                .insert(SERVER_AUTHORIZATION, unique(header)?);
        }
        Ok(response)
    }

    /// Takes the request in.
    async fn receive<B>(&self, request: http::Request<B>) -> Result<Call, Status>
    where
        B: HttpBody,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let (head, body) = request.into_parts();
        message::refuse_compression(&head.headers)?;
        let message = tokio::time::timeout_at(self.deadline, message::receive(body, self.limit))
            .await
            // Nothing was done: the request never arrived whole.
            .map_err(|_| ApiError::unavailable("a request did not arrive in time"))??;
        Ok(Call {
            path: self.path,
            authorization: sole_authorization(&head.headers),
            message,
            deadline: self.deadline,
            remote: remote(&head.extensions),
            relayed: false,
        })
    }
}

fn response(body: Body) -> http::Response<Body> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// A header's value that no other message has: said to be one that HTTP/2 need not remember, so that it
/// does not push what repeats out of the tables of both ends (RFC 7541, section 6.2.3).
fn unique(header: String) -> Result<HeaderValue, ApiError> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from(header))
        .map_err(|_| ApiError::internal("a server-authorization header is not ASCII"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where the connection came from, as the listener saw it.
fn remote(extensions: &http::Extensions) -> Option<IpAddr> {
    let info = extensions.get::<TcpConnectInfo>()?;
    info.remote_addr().map(|address| address.ip())
}

/// The `authorization` metadata if it is there once. Twice is as good as none: two readers could
/// take different ones.
fn sole_authorization(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let first = all.next()?;
    if all.next().is_some() {
        return None;
    }
    first.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_read_in_every_unit_and_refused_otherwise() {
        assert_eq!(parse_grpc_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse_grpc_timeout("150m"), Some(Duration::from_millis(150)));
        assert_eq!(
            parse_grpc_timeout("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        for bad in ["", "S", "123456789S", "-1S", "1 S", "1s", "1é", "é"] {
            assert_eq!(parse_grpc_timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_smaller_of_both_timeouts_counts() {
        let limits = DoorLimits::default();
        let mut headers = HeaderMap::new();
        assert_eq!(patience(&headers, &limits), Duration::from_millis(2900));
        headers.insert("grpc-timeout", "500m".parse().unwrap());
        assert_eq!(patience(&headers, &limits), Duration::from_millis(450));
        headers.insert("grpc-timeout", "1H".parse().unwrap());
        assert_eq!(patience(&headers, &limits), Duration::from_millis(2900));
    }

    #[test]
    fn authorization_counts_only_if_it_is_there_once() {
        let mut headers = HeaderMap::new();
        assert_eq!(sole_authorization(&headers), None);
        headers.append(AUTHORIZATION, "Hawk a".parse().unwrap());
        assert_eq!(sole_authorization(&headers).as_deref(), Some("Hawk a"));
        headers.append(AUTHORIZATION, "Hawk b".parse().unwrap());
        assert_eq!(sole_authorization(&headers), None);
    }
}
