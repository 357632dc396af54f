//! The public gRPC service over raw bytes.
//!
//! The generated server decodes a message before anybody sees it, but Hawk vouches for the bytes
//! that were sent. So this server hands on each message as it came and routes by the path alone; what
//! the bytes mean is read behind the check ([`crate::mailbox`]).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::HeaderMap;
use http_body::Body as HttpBody;
use tokio::time::Instant;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Response, Status, Streaming};

use crate::call::{Call, CallReply, CallStream, Door, RpcPath};
use crate::error::{ApiError, Code};
use crate::limits::DoorLimits;

/// The metadata key of a Hawk request header.
pub const AUTHORIZATION: &str = "authorization";
/// The metadata key of a Hawk response header.
pub const SERVER_AUTHORIZATION: &str = "server-authorization";
/// The metadata key of the address where a caller's next call need not be relayed.
pub const LEADER: &str = "rossby-leader";
/// Room for a message at first, in bytes: enough for most requests, and for most answers. Longer ones take
/// more as they come.
const REQUEST_BUFFER_BYTES: usize = 2 * 1024;
const ANSWER_BUFFER_BYTES: usize = 256;
/// How much of a stream of answers is gathered before it is sent.
const GATHERED_BYTES: usize = 32 * 1024;
/// The full name of the service.
pub const SERVICE_NAME: &str = "rossby.v1.Mailbox";

/// The public service, ready to be added to a tonic server.
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
    B::Error: Into<tonic::codegen::StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
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
        };
        let limit = usize::try_from(self.limits.request_bytes).unwrap_or(usize::MAX);
        Box::pin(async move {
            // The wire form of one message is the same as that of a stream of one, and read as a
            // stream its refusals can be given our codes.
            let mut grpc = tonic::server::Grpc::new(RawCodec)
                .max_decoding_message_size(limit)
                .max_encoding_message_size(usize::MAX);
            if method.path.is_stream() {
                return Ok(grpc.streaming(method, request).await);
            }
            Ok(grpc.client_streaming(method, request).await)
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
#[derive(Clone)]
struct Method {
    door: Arc<dyn Door>,
    path: RpcPath,
    deadline: Instant,
}

impl Method {
    /// Takes the request in.
    async fn receive(&self, request: Request<Streaming<Bytes>>) -> Result<Call, Status> {
        let remote = request.remote_addr().map(|address| address.ip());
        let (metadata, _, mut stream) = request.into_parts();
        let message = tokio::time::timeout_at(self.deadline, only_message(&mut stream))
            .await
            // Nothing was done: the request never arrived whole.
            .map_err(|_| ApiError::unavailable("a request did not arrive in time"))??;
        Ok(Call {
            path: self.path,
            authorization: sole_authorization(&metadata),
            message,
            deadline: self.deadline,
            remote,
            relayed: false,
        })
    }
}

impl tonic::server::ClientStreamingService<Bytes> for Method {
    type Response = Bytes;
    type Future = BoxFuture<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            let call = method.receive(request).await?;
            method.door.call(call).await.and_then(into_response)
        })
    }
}

impl tonic::server::StreamingService<Bytes> for Method {
    type Response = Bytes;
    type ResponseStream = CallStream;
    type Future = BoxFuture<Result<Response<CallStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            let call = method.receive(request).await?;
            method.door.subscribe(call).await.map(Response::new)
        })
    }
}

/// The one message of a unary call.
async fn only_message(stream: &mut Streaming<Bytes>) -> Result<Bytes, Status> {
    let typed = |status: Status| match status.code() {
        tonic::Code::OutOfRange => ApiError::from(Code::RequestTooLarge).into(),
        tonic::Code::Internal => ApiError::invalid("the gRPC message can't be read").into(),
        _ => status,
    };
    let missing = || Status::from(ApiError::invalid("the request has no message"));
    let message = stream.message().await.map_err(typed)?.ok_or_else(missing)?;
    match stream.message().await.map_err(typed)? {
        None => Ok(message),
        Some(_) => Err(ApiError::invalid("the request has more than one message").into()),
    }
}

/// The `authorization` metadata if it is there once. Twice is as good as none: two readers could
/// take different ones.
fn sole_authorization(metadata: &MetadataMap) -> Option<String> {
    let mut all = metadata.get_all(AUTHORIZATION).iter();
    let first = all.next()?;
    if all.next().is_some() {
        return None;
    }
    first.to_str().ok().map(str::to_owned)
}

fn into_response(reply: CallReply) -> Result<Response<Bytes>, Status> {
    let mut response = Response::new(reply.message);
    if let Some(header) = reply.server_authorization {
        let mut value = AsciiMetadataValue::try_from(header)
            .map_err(|_| ApiError::internal("a server-authorization header is not ASCII"))?;
        // No two are the same: remembered, they would push what repeats out of the header tables of
        // both ends (RFC 7541, section 6.2.3).
        value.set_sensitive(true);
        response.metadata_mut().insert(SERVER_AUTHORIZATION, value);
    }
    // A help only: what can't be said is left out.
    if let Some(Ok(leader)) = reply.leader.map(AsciiMetadataValue::try_from) {
        response.metadata_mut().insert(LEADER, leader);
    }
    Ok(response)
}

/// Messages as they are.
#[derive(Debug, Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ANSWER_BUFFER_BYTES, GATHERED_BYTES)
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(REQUEST_BUFFER_BYTES, GATHERED_BYTES)
    }
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
        let mut metadata = MetadataMap::new();
        assert_eq!(sole_authorization(&metadata), None);
        metadata.append(AUTHORIZATION, "Hawk a".parse().unwrap());
        assert_eq!(sole_authorization(&metadata).as_deref(), Some("Hawk a"));
        metadata.append(AUTHORIZATION, "Hawk b".parse().unwrap());
        assert_eq!(sole_authorization(&metadata), None);
    }
}
