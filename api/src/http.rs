//! Metrics and health over HTTP/1.1, for operators and their machines.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The media type of the exposition format (OpenMetrics 1.0).
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a node can serve.
pub trait Readiness: Send + Sync + 'static {
    /// `Ok` if it belongs to a cluster and sees a leader.
    ///
    /// # Errors
    /// Why it can't, in words for an operator.
    fn ready(&self) -> Result<(), String>;
}

/// What the pages are made of.
#[derive(Clone)]
pub struct Pages {
    registry: Arc<Registry>,
    readiness: Arc<dyn Readiness>,
}

impl Pages {
    /// Pages over these figures and this state.
    #[must_use]
    pub fn new(registry: Arc<Registry>, readiness: Arc<dyn Readiness>) -> Self {
        Self {
            registry,
            readiness,
        }
    }

    /// The pages: `/metrics`, `/livez`, `/readyz`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(self)
    }
}

/// The listener for the pages.
#[derive(Debug)]
pub struct HttpListener {
    socket: TcpListener,
    address: SocketAddr,
}

impl HttpListener {
    /// Binds it.
    ///
    /// # Errors
    /// The system's error.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address, with the port that the system chose if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// The system's error.
    pub async fn serve(self, pages: Pages, stop: CancellationToken) -> std::io::Result<()> {
        axum::serve(self.socket, pages.router())
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let mut body = String::new();
    match text::encode(&mut body, &pages.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The process answers: that is all that is asked here.
async fn livez() -> &'static str {
    "alive\n"
}

async fn readyz(State(pages): State<Pages>) -> (StatusCode, String) {
    match pages.readiness.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    struct Fixed(Result<(), String>);

    impl Readiness for Fixed {
        fn ready(&self) -> Result<(), String> {
            self.0.clone()
        }
    }

    async fn page(state: Result<(), String>, path: &str) -> (StatusCode, String) {
        let mut registry = Registry::default();
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register("rossby_test", "A figure", counter.clone());
        counter.inc();
        let pages = Pages::new(Arc::new(registry), Arc::new(Fixed(state)));
        let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
        let response = pages.router().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_says_why_and_is_alive_all_the_same() {
        let waiting = Err("no cluster yet".to_owned());
        let (status, body) = page(waiting.clone(), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "not ready: no cluster yet\n");
        assert_eq!(page(waiting, "/livez").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_ready_node_says_so_and_shows_its_figures() {
        assert_eq!(
            page(Ok(()), "/readyz").await,
            (StatusCode::OK, "ready\n".to_owned())
        );
        let (status, body) = page(Ok(()), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            body.contains("rossby_test_total 1\n") && body.ends_with("# EOF\n"),
            "{body}"
        );
    }
}
