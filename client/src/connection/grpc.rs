//! The real wire: gRPC over HTTP/2, raw message bytes in and out.
//!
//! The generated client would encode a message out of our sight; Hawk signs the bytes that are
//! sent. So messages go through as they are.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::plain::{self, Accent};
use super::refusal::Refusal;
use super::server::ServerAddress;
use super::{Exchange, Wire, WireError, WireReply, WireStream};

/// While something is under way on a connection, the server is asked for a sign of life this often,
/// and given up when it gives none for so long: the other end may be gone without a goodbye.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A page of a box is about 1 MiB; one envelope is never larger than that.
const MAX_REPLY_BYTES: usize = 8 * 1024 * 1024;
const AUTHORIZATION: &str = "authorization";
const SERVER_AUTHORIZATION: &str = "server-authorization";
const LEADER: &str = "rossby-leader";

/// The way to one server.
#[derive(Clone)]
struct Line {
    channel: Channel,
    /// Of a server that is spoken to in plain text.
    accent: Option<Accent>,
}

/// Speaks gRPC to servers, over TLS unless they are on this machine.
pub struct GrpcWire {
    ca_pem: Option<String>,
    channels: Mutex<BTreeMap<String, Line>>,
}

impl GrpcWire {
    /// A wire that trusts servers whose certificate this authority (PEM) has signed.
    #[must_use]
    pub fn new(ca_pem: Option<String>) -> Self {
        Self {
            ca_pem,
            channels: Mutex::new(BTreeMap::new()),
        }
    }

    fn line(&self, server: &ServerAddress) -> Result<Line, WireError> {
        let name = server.as_str();
        let mut channels = self.channels.lock();
        if let Some(line) = channels.get(name) {
            return Ok(line.clone());
        }
        let untrusted = |what: &str| WireError::NotTheService(format!("{name}: {what}"));
        let mut endpoint = Endpoint::from(server.uri().clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .tcp_nodelay(true);
        if server.is_secure() {
            let ca = self.ca_pem.as_deref().ok_or_else(|| {
                untrusted("no certificate authority is known to trust it by (--ca)")
            })?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
            endpoint = endpoint
                .tls_config(tls)
                .map_err(|_| untrusted("the --ca file is not a certificate in PEM"))?;
        }
        let line = if server.is_secure() {
            Line {
                channel: endpoint.connect_lazy(),
                accent: None,
            }
        } else {
            let (channel, accent) = plain::channel(&endpoint);
            Line {
                channel,
                accent: Some(accent),
            }
        };
        channels.insert(name.to_owned(), line.clone());
        Ok(line)
    }
}

impl std::fmt::Debug for GrpcWire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GrpcWire")
    }
}

#[async_trait]
impl Wire for GrpcWire {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        let Line { channel, accent } = self.line(exchange.server)?;
        let name = exchange.server.as_str();
        let timeout = exchange.timeout;
        match tokio::time::timeout(timeout, unary(channel, exchange)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(status)) => Err(error_of(name, accent.as_ref(), &status)),
            Err(_) => Err(WireError::Lost(format!("{name}: no answer in time"))),
        }
    }

    async fn open(&self, exchange: Exchange<'_>) -> Result<Box<dyn WireStream>, WireError> {
        let Line { channel, accent } = self.line(exchange.server)?;
        let server = exchange.server.to_string();
        let timeout = exchange.timeout;
        match tokio::time::timeout(timeout, streaming(channel, exchange)).await {
            Ok(Ok(messages)) => Ok(Box::new(GrpcStream { server, messages })),
            Ok(Err(status)) => Err(error_of(&server, accent.as_ref(), &status)),
            Err(_) => Err(WireError::Lost(format!("{server}: no answer in time"))),
        }
    }
}

/// A stream from one server.
struct GrpcStream {
    server: String,
    messages: tonic::Streaming<Bytes>,
}

#[async_trait]
impl WireStream for GrpcStream {
    async fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        let next = self.messages.message().await;
        next.map_err(|status| error_of(&self.server, None, &status))
    }
}

type Client = tonic::client::Grpc<Channel>;

async fn prepare(
    channel: Channel,
    message: Bytes,
    authorization: Option<String>,
) -> Result<(Client, tonic::Request<Bytes>), tonic::Status> {
    let mut client = Client::new(channel).max_decoding_message_size(MAX_REPLY_BYTES);
    client
        .ready()
        .await
        .map_err(|error| tonic::Status::from_error(error.into()))?;
    let mut request = tonic::Request::new(message);
    if let Some(authorization) = authorization {
        let mut value = AsciiMetadataValue::try_from(authorization)
            .map_err(|_| tonic::Status::internal("the authorization is not ASCII"))?;
        // Each is used once: it had better not push what repeats out of the header tables.
        value.set_sensitive(true);
        request.metadata_mut().insert(AUTHORIZATION, value);
    }
    Ok((client, request))
}

async fn streaming(
    channel: Channel,
    exchange: Exchange<'_>,
) -> Result<tonic::Streaming<Bytes>, tonic::Status> {
    // No grpc-timeout: that would be the stream's whole time.
    let (mut client, request) = prepare(channel, exchange.message, exchange.authorization).await?;
    let path = PathAndQuery::from_static(exchange.path);
    let codec = RawCodec::sending(request.get_ref());
    let response = client.server_streaming(request, path, codec).await?;
    Ok(response.into_inner())
}

async fn unary(channel: Channel, exchange: Exchange<'_>) -> Result<WireReply, tonic::Status> {
    let (mut client, mut request) =
        prepare(channel, exchange.message, exchange.authorization).await?;
    request.set_timeout(exchange.timeout);
    let path = PathAndQuery::from_static(exchange.path);
    let codec = RawCodec::sending(request.get_ref());
    let response = client.unary(request, path, codec).await?;
    let told = |key| {
        let value = response.metadata().get(key);
        value
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (server_authorization, leader) = (told(SERVER_AUTHORIZATION), told(LEADER));
    Ok(WireReply {
        message: response.into_inner(),
        server_authorization,
        leader,
    })
}

fn error_of(server: &str, accent: Option<&Accent>, status: &tonic::Status) -> WireError {
    if let Some(refusal) = Refusal::of_status(status) {
        return WireError::Refused(Box::new(refusal));
    }
    if status.code() == tonic::Code::Unimplemented {
        let what = "it is no server for devices, or of another version";
        return WireError::NotTheService(format!("{server}: {what} ({})", status.message()));
    }
    let mut cause = status.source();
    let mut deepest = status.message().to_owned();
    let mut connected = true;
    while let Some(error) = cause {
        connected &= !error.is::<tonic::ConnectError>();
        deepest = error.to_string();
        if let Some(what) = mismatch(error) {
            return WireError::NotTheService(format!("{server}: {what} ({deepest})"));
        }
        cause = error.source();
    }
    if connected && let Some(what) = accent.and_then(Accent::mismatch) {
        return WireError::NotTheService(format!("{server}: {what}"));
    }
    let why = format!("{server}: {deepest}");
    if connected {
        WireError::Lost(why)
    } else {
        WireError::NotSent(why)
    }
}

/// Why the other end is no server that we trust, if that is what an error says: then nothing was sent
/// to it but a greeting.
fn mismatch(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let error = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(_) => {
            Some("its certificate is not one that the --ca file vouches for")
        }
        rustls::Error::InvalidMessage(_) => Some("it does not speak TLS"),
        _ => None,
    }
}

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
struct RawCodec {
    /// Bytes to make room for at first.
    buffer: usize,
}

/// In front of each message (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX_BYTES: usize = 5;
/// Room for the reply that most calls have. A longer one takes more as it comes.
const REPLY_BYTES: usize = 256;
/// How much is buffered of a stream of messages to the server, of which there is one only.
const YIELD_BYTES: usize = 32 * 1024;

impl RawCodec {
    fn sending(message: &Bytes) -> Self {
        Self {
            buffer: PREFIX_BYTES + message.len(),
        }
    }
}

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        Self {
            buffer: REPLY_BYTES,
        }
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        buffer.put(message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(self.buffer, YIELD_BYTES)
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(self.buffer, YIELD_BYTES)
    }
}
