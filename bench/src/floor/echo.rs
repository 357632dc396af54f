//! How many gRPC calls this machine can carry: the SDK's wire to a server that gives back what it gets.
//! No authentication, no disk, no peers.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use rossby_client::connection::{Exchange, GrpcWire, ServerAddress, Wire as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::BenchError;
use crate::drive::{Client, Fault, Plan, drive};
use crate::summary::Latency;

const PATH: &str = "/rossby.bench.Echo/Echo";
const TIMEOUT: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_millis(500);

/// What the echo came to.
#[derive(Debug, Clone, Copy)]
pub struct Echoed {
    /// Calls a second.
    pub per_second: f64,
    /// How long they took.
    pub latency: Latency,
}

/// So many clients, over so many connections, have a message of this size echoed for so long. The server
/// has a thread of its own.
///
/// # Errors
/// If no server can be had on this machine.
pub async fn measure(
    clients: usize,
    connections: usize,
    bytes: usize,
    duration: Duration,
) -> Result<Echoed, BenchError> {
    let (server, _stop) = serve().await?;
    let server = server.to_string();
    let server: Arc<ServerAddress> = Arc::new(server.parse().map_err(|_| BenchError::BrokeOff)?);
    let wires: Vec<_> = (0..connections.max(1))
        .map(|_| Arc::new(GrpcWire::new(None)))
        .collect();
    let message: Bytes = vec![0xff; bytes].into();
    let callers = wires.iter().cycle().take(clients).map(|wire| Caller {
        wire: Arc::clone(wire),
        server: Arc::clone(&server),
        message: message.clone(),
    });
    let plan = Plan::from_now(WARM_UP, duration);
    let tally = drive(callers.collect(), plan).await?;
    if !tally.faults.is_empty() {
        let faults = tally.faults.iter();
        let faults: Vec<String> = faults
            .map(|(code, count)| format!("{code} {count}"))
            .collect();
        return Err(BenchError::Echo {
            faults: faults.join(", "),
        });
    }
    let latency = Latency::of(&tally.samples);
    if latency.count == 0 {
        return Err(BenchError::Echo {
            faults: "none ended in time".to_owned(),
        });
    }
    Ok(Echoed {
        per_second: latency.count as f64 / duration.as_secs_f64(),
        latency,
    })
}

/// Runs a server until the sender is dropped.
async fn serve() -> Result<(SocketAddr, oneshot::Sender<()>), BenchError> {
    let (tell, told) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await else {
                return;
            };
            let Ok(address) = listener.local_addr() else {
                return;
            };
            let _ = tell.send(address);
            // Without it, small answers wait for an acknowledgement of 40 ms.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let serving = Server::builder().add_service(Echo);
            let _ = serving
                .serve_with_incoming_shutdown(incoming, async {
                    let _ = stopped.await;
                })
                .await;
        });
    });
    let address = told.await.map_err(|_| BenchError::BrokeOff)?;
    Ok((address, stop))
}

/// A client of the echo.
struct Caller {
    wire: Arc<GrpcWire>,
    server: Arc<ServerAddress>,
    message: Bytes,
}

impl Client for Caller {
    async fn step(&mut self) -> Result<(), Fault> {
        let exchange = Exchange {
            server: &self.server,
            path: PATH,
            message: self.message.clone(),
            authorization: None,
            timeout: TIMEOUT,
        };
        match self.wire.exchange(exchange).await {
            Ok(reply) if reply.message == self.message => Ok(()),
            Ok(_) => Err(Fault("BAD_REPLY".into())),
            Err(_) => Err(Fault("LOST".into())),
        }
    }
}

/// Gives back what it gets.
#[derive(Debug, Clone, Copy)]
struct Echo;

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "rossby.bench.Echo";
}

type Answering =
    Pin<Box<dyn Future<Output = Result<http::Response<tonic::body::Body>, Infallible>> + Send>>;

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async {
            let mut grpc = tonic::server::Grpc::new(RawCodec);
            Ok(grpc.unary(Echo, request).await)
        })
    }
}

impl tonic::server::UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

/// Messages as they are.
#[derive(Debug, Clone, Copy)]
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
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_comes_back() {
        // A slow machine gets more time for its first call.
        for millis in [200, 2_000, 20_000] {
            match measure(3, 2, 1024, Duration::from_millis(millis)).await {
                Ok(echoed) => {
                    assert!(echoed.latency.count > 0 && echoed.per_second > 0.0);
                    return;
                }
                Err(error) => assert!(error.to_string().contains("none ended"), "{error}"),
            }
        }
        panic!("not one call was echoed");
    }
}
