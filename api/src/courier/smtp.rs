//! Mail, through a relay that the operator trusts.
//!
//! ```text
//!   TCP ─► TLS ─► greeting ─► login ─► MAIL FROM ─► RCPT TO ─► DATA ─► QUIT      a connection per mail
//!     └─ STARTTLS: greeting, EHLO, STARTTLS in the clear, then the same
//! ```
//!
//! TLS is ours (`dial.rs`), so that every step can be told apart; the dialogue and the message are
//! lettre's. Plain text goes no further than this machine. Only what the relay says of the recipient
//! or of the message is final; what it says of us, the operator can mend while the code lives.

mod channel;
mod settings;
mod starttls;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, Message};
use rossby_domain::identifier::Identifier;
use rustls::ClientConfig;
use tokio::time::timeout;
use zeroize::Zeroizing;

use self::channel::Channel;
use super::dial::{self, Peer, Wire};
use super::{
    Courier, CourierError, Kind, Problem, SettingsError, Step, Steps, Text, printable, secret_file,
};

pub(super) use self::settings::timeout_in_bounds;
pub use self::settings::{SmtpSecurity, SmtpSettings};

/// The environment variable with the relay's password, if it is in no file.
pub const PASSWORD_VARIABLE: &str = "ROSSBY_COURIER_SMTP_PASSWORD";

/// Sends codes by mail.
pub struct Smtp {
    peer: Peer,
    security: SmtpSecurity,
    tls: Arc<ClientConfig>,
    hello: ClientId,
    from: Address,
    login: Option<(String, Zeroizing<String>)>,
    text: Text,
}

impl std::fmt::Debug for Smtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smtp")
            .field("host", &self.peer.host)
            .finish_non_exhaustive()
    }
}

impl Smtp {
    /// A courier with these settings. Reads the files that they name; connects to nobody.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(settings: &SmtpSettings, text: Text) -> Result<Self, SettingsError> {
        let host = settings.checked_host()?;
        let from = settings.from.as_deref().ok_or(SettingsError::Missing {
            key: "smtp.from",
            why: "the address that mails are from is missing",
        })?;
        let from: Address = from.parse().map_err(|_| SettingsError::Invalid {
            key: "smtp.from",
            why: "not an email address (without a name)".to_owned(),
        })?;
        let hello = settings
            .hello
            .clone()
            .unwrap_or_else(|| from.domain().to_owned());
        Ok(Self {
            peer: Peer {
                host: host.to_owned(),
                port: settings.port(),
                patience: Duration::from_millis(settings.timeout_ms),
            },
            security: settings.security,
            tls: dial::client_config("smtp.ca", settings.ca.as_deref())?,
            hello: ClientId::Domain(hello),
            from,
            login: login(settings)?,
            text,
        })
    }

    /// Sends a mail with a code and tells each step that succeeds.
    ///
    /// # Errors
    /// [`CourierError::Gateway`].
    pub async fn send(
        &self,
        email: &str,
        code: &str,
        steps: Steps<'_>,
    ) -> Result<(), CourierError> {
        let message = self.message(email, code)?;
        let mut relay = self.open(steps).await?;
        let sent = self.hand_over(&mut relay, email, &message, steps).await;
        // The mail's fate is settled: how the relay takes leave changes nothing.
        let _ = timeout(self.peer.patience, relay.quit()).await;
        sent
    }

    /// The mail, headers and all. Addresses stand bare: no name that somebody chose gets in.
    fn message(&self, email: &str, code: &str) -> Result<Zeroizing<Vec<u8>>, CourierError> {
        let unusable = |what| CourierError::Gateway {
            step: Step::Message,
            problem: Problem::Unexpected(what),
            permanent: true,
        };
        let to: Address = email
            .parse()
            .map_err(|_| unusable("no address for a mail"))?;
        let body = self.text.body(code);
        let message = Message::builder()
            .from(self.from.clone().into())
            .to(to.into())
            .subject(self.text.subject())
            .message_id(None)
            .header(ContentType::TEXT_PLAIN)
            .body(body.as_str().to_owned())
            .map_err(|_| unusable("the mail can't be put together"))?;
        Ok(Zeroizing::new(message.formatted()))
    }

    async fn open(&self, steps: Steps<'_>) -> Result<AsyncSmtpConnection, CourierError> {
        let Peer { host, port, .. } = &self.peer;
        let stream = self.peer.connect().await?;
        steps(format!("connected to {host}:{port}"));
        let channel = match self.security {
            SmtpSecurity::Plain => Channel::new(Wire::Plain(stream)),
            SmtpSecurity::Tls => {
                let wire = self.peer.secure(stream, &self.tls).await?;
                steps(format!("TLS: the certificate is right for {host}"));
                Channel::new(wire)
            }
            SmtpSecurity::Starttls => {
                let asking = starttls::ask(stream, &self.hello);
                let stream = self.within(Step::Tls, asking).await?;
                let wire = self.peer.secure(stream, &self.tls).await?;
                steps(format!("STARTTLS: the certificate is right for {host}"));
                Channel::greeted(wire)
            }
        };
        let greeting = AsyncSmtpConnection::connect_with_transport(Box::new(channel), &self.hello);
        let mut relay = self.talk(Step::Greeting, greeting).await?;
        steps("the relay has greeted".to_owned());
        if let Some((user, password)) = &self.login {
            let credentials = Credentials::new(user.clone(), password.as_str().to_owned());
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            self.talk(Step::Login, relay.auth(&mechanisms, &credentials))
                .await?;
            steps(format!("logged in as {user}"));
        }
        Ok(relay)
    }

    async fn hand_over(
        &self,
        relay: &mut AsyncSmtpConnection,
        email: &str,
        message: &[u8],
        steps: Steps<'_>,
    ) -> Result<(), CourierError> {
        let to: Address = email.parse().map_err(|_| {
            CourierError::passing(Step::Recipient, Problem::Unexpected("no address"))
        })?;
        let mail = Mail::new(Some(self.from.clone()), Vec::new());
        self.talk(Step::Sender, relay.command(mail)).await?;
        steps(format!("the relay takes mail from {}", self.from));
        self.talk(Step::Recipient, relay.command(Rcpt::new(to, Vec::new())))
            .await?;
        steps("the relay takes mail for the recipient".to_owned());
        self.talk(Step::Message, relay.command(Data)).await?;
        let response = self.talk(Step::Message, relay.message(message)).await?;
        let words = response.first_line().unwrap_or_default();
        steps(format!(
            "accepted: {} {}",
            response.code(),
            printable(words)
        ));
        Ok(())
    }

    /// One step of lettre's, in time, with what it says put into our words.
    async fn talk<T>(
        &self,
        step: Step,
        talking: impl Future<Output = Result<T, lettre::transport::smtp::Error>>,
    ) -> Result<T, CourierError> {
        match timeout(self.peer.patience, talking).await {
            Err(_) => Err(CourierError::passing(step, Problem::TimedOut)),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(judge(step, &error)),
        }
    }

    async fn within<T>(
        &self,
        step: Step,
        doing: impl Future<Output = Result<T, CourierError>>,
    ) -> Result<T, CourierError> {
        let late = |_| CourierError::passing(step, Problem::TimedOut);
        timeout(self.peer.patience, doing).await.map_err(late)?
    }
}

#[async_trait]
impl Courier for Smtp {
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError> {
        match identifier {
            Identifier::Email(email) => self.send(email.as_str(), code, &mut |_| {}).await,
            Identifier::Phone(_) => Err(CourierError::NotServed),
        }
    }

    fn name(&self, kind: Kind) -> Option<&'static str> {
        (kind == Kind::Email).then_some("smtp")
    }
}

fn login(settings: &SmtpSettings) -> Result<Option<(String, Zeroizing<String>)>, SettingsError> {
    let Some(user) = &settings.user else {
        return Ok(None);
    };
    let key = "smtp.password_file";
    let password = match &settings.password_file {
        Some(path) => first_line(key, path)?,
        None => Zeroizing::new(std::env::var(PASSWORD_VARIABLE).unwrap_or_default()),
    };
    if password.is_empty() {
        let why = "smtp.user needs a password: name a file of mode 0600, or set \
                   ROSSBY_COURIER_SMTP_PASSWORD";
        return Err(SettingsError::Missing { key, why });
    }
    Ok(Some((user.clone(), password)))
}

fn first_line(key: &'static str, path: &Path) -> Result<Zeroizing<String>, SettingsError> {
    let text = secret_file::read(key, path)?;
    Ok(Zeroizing::new(
        text.lines().next().unwrap_or_default().to_owned(),
    ))
}

/// What an error of lettre's means for the code. Its own text may repeat what the relay said, and the
/// relay may repeat the address: only the number is kept for the log.
fn judge(step: Step, error: &lettre::transport::smtp::Error) -> CourierError {
    use std::error::Error as _;
    if let Some(code) = error.status() {
        let words = error.source().map(ToString::to_string).unwrap_or_default();
        return CourierError::Gateway {
            step,
            problem: Problem::Refused {
                code: code.into(),
                words: printable(&words),
            },
            permanent: error.is_permanent() && matches!(step, Step::Recipient | Step::Message),
        };
    }
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>());
    let problem = match io {
        Some(io) => Problem::Io(io.kind().into()),
        None if step == Step::Login => {
            Problem::Unexpected("the relay offers no login that is known here (PLAIN, LOGIN)")
        }
        None => Problem::Unexpected("the relay broke off, or does not speak SMTP"),
    };
    CourierError::passing(step, problem)
}
