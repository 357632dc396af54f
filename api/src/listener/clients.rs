//! Serving clients: HTTP/2 straight to the mailbox, with nothing between that would look at each call.

use std::convert::Infallible;
use std::pin::pin;

use futures_util::{Stream, StreamExt as _};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic::transport::server::{Connected as _, TcpConnectInfo};
use tracing::debug;

use super::connection::Connection;
use super::shed::Shed;
use super::{CLIENT_STREAMS, HEADER_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use crate::call::RpcPath;
use crate::grpc::MailboxServer;

/// What clients find behind the listener.
#[derive(Clone)]
pub struct ClientServices {
    /// The mailbox.
    pub mailbox: Shed<MailboxServer>,
    /// Everything else: health, reflection.
    pub others: Routes,
}

impl ClientServices {
    async fn answer(
        mut self,
        mut request: http::Request<Incoming>,
        from: TcpConnectInfo,
    ) -> Result<http::Response<Body>, Infallible> {
        request.extensions_mut().insert(from);
        if RpcPath::is_of_service(request.uri().path()) {
            return self.mailbox.call(request).await;
        }
        self.others.call(request).await
    }
}

/// Serves connections until `stop`, then finishes the calls in flight.
pub(super) async fn serve(
    connections: impl Stream<Item = std::io::Result<Connection<TcpConnectInfo>>>,
    services: ClientServices,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let mut connections = pin!(connections.take_until(stop.clone().cancelled_owned()));
    while let Some(next) = connections.next().await {
        match next {
            Ok(connection) => {
                tasks.spawn(serve_one(connection, services.clone(), stop.clone()));
            }
            Err(error) => debug!(%error, "a connection could not be opened"),
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn serve_one(
    connection: Connection<TcpConnectInfo>,
    services: ClientServices,
    stop: CancellationToken,
) {
    let from = connection.connect_info();
    let service = service_fn(move |request| services.clone().answer(request, from.clone()));
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(CLIENT_STREAMS)
        .max_header_list_size(HEADER_BYTES)
        // Nobody reads it, and it is one more header for each answer.
        .auto_date_header(false);
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended");
    }
}
