//! SMS, through the HTTP door of a gateway: every provider has one, and no two are alike, so the
//! request is a template.
//!
//! One HTTP/1.1 request over a connection of its own, with hyper, which gRPC has brought along
//! already. Redirects are not followed: they would lead the secrets elsewhere. What the gateway
//! answers beside its status is neither kept nor logged.

mod request;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rossby_domain::identifier::Identifier;
use rustls::ClientConfig;
use tokio::time::timeout;

use self::request::Template;
use super::dial::{self, Peer, Wire};
use super::{Courier, CourierError, Kind, Problem, SettingsError, Step, Steps, Text};

pub use self::settings::{WebhookFormat, WebhookMethod, WebhookSettings};

/// Of an answer's body, which tells an operator's trial why, no more is read.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Sends codes by SMS.
pub struct Webhook {
    peer: Peer,
    tls: Option<Arc<ClientConfig>>,
    template: Template,
    secrets: HeaderMap,
    text: Text,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("host", &self.peer.host)
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// A courier with these settings. Reads the files that they name; connects to nobody.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: &WebhookSettings, text: Text) -> Result<Self, SettingsError> {
        let template = Template::new(settings)?;
        let target = template.target(settings)?;
        let tls = match target.secure {
            true => Some(dial::client_config("webhook.ca", settings.ca.as_deref())?),
            false => None,
        };
        Ok(Self {
            peer: Peer {
                host: target.host,
                port: target.port,
                patience: Duration::from_millis(settings.timeout_ms),
            },
            tls,
            template,
            secrets: settings.headers()?,
            text,
        })
    }

    /// Sends a code and tells each step that succeeds.
    ///
    /// # Errors
    /// [`CourierError::Gateway`].
    pub async fn send(
        &self,
        phone: &str,
        code: &str,
        steps: Steps<'_>,
    ) -> Result<(), CourierError> {
        let words = self.text.body(code);
        let mut request = self.template.fill(phone, &words, code).ok_or_else(|| {
            CourierError::passing(
                Step::Message,
                Problem::Unexpected("the request can't be made"),
            )
        })?;
        request.headers_mut().extend(self.secrets.clone());
        let wire = self.open(steps).await?;
        let asking = self.ask(wire, request, steps);
        let late = |_| CourierError::passing(Step::Message, Problem::TimedOut);
        timeout(self.peer.patience, asking).await.map_err(late)?
    }

    async fn open(&self, steps: Steps<'_>) -> Result<Wire, CourierError> {
        let Peer { host, port, .. } = &self.peer;
        let stream = self.peer.connect().await?;
        steps(format!("connected to {host}:{port}"));
        let Some(tls) = &self.tls else {
            return Ok(Wire::Plain(stream));
        };
        let wire = self.peer.secure(stream, tls).await?;
        steps(format!("TLS: the certificate is right for {host}"));
        Ok(wire)
    }

    async fn ask(
        &self,
        wire: Wire,
        request: Request<Full<Bytes>>,
        steps: Steps<'_>,
    ) -> Result<(), CourierError> {
        // hyper's own words are not shown: none of them helps an operator.
        let broken = |_| {
            let what = "the gateway broke off, or does not speak HTTP";
            CourierError::passing(Step::Message, Problem::Unexpected(what))
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(wire))
            .await
            .map_err(broken)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            if status.is_success() {
                steps(format!("accepted: {status}"));
                return Ok(());
            }
            Err(refused(status, response.into_body()).await)
        };
        // The connection ends with the exchange, whatever else the gateway would say.
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // The gateway has closed it; what came before that is still to be read.
            _ = &mut connection => exchange.await,
        }
    }
}

/// Which refusals are about this number or this message, and final; the others are about us, or about
/// the gateway's state, and may pass.
fn is_permanent(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        400 | 404 | 406 | 410 | 413 | 414 | 415 | 422
    )
}

async fn refused(status: StatusCode, body: Incoming) -> CourierError {
    let read = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let words = read.map(|body| body.to_bytes()).unwrap_or_default();
    CourierError::Gateway {
        step: Step::Message,
        problem: Problem::Refused {
            code: status.as_u16(),
            words: super::printable(&String::from_utf8_lossy(&words)),
        },
        permanent: is_permanent(status),
    }
}

#[async_trait]
impl Courier for Webhook {
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError> {
        match identifier {
            Identifier::Phone(phone) => self.send(phone.as_str(), code, &mut |_| {}).await,
            Identifier::Email(_) => Err(CourierError::NotServed),
        }
    }

    fn name(&self, kind: Kind) -> Option<&'static str> {
        (kind == Kind::Phone).then_some("webhook")
    }
}
