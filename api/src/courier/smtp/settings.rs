//! What an operator says of the relay.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::courier::{SettingsError, dial};

/// How the way to the relay is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    /// TLS from the first byte (port 465).
    #[default]
    Tls,
    /// TLS after STARTTLS (port 587), without which nothing is sent.
    Starttls,
    /// None: to a relay on this machine only (port 25).
    Plain,
}

/// The relay that mails go through. There is none without a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmtpSettings {
    /// The relay's host name, as in its certificate.
    pub host: Option<String>,
    /// Its port; by default the one that goes with the security.
    pub port: Option<u16>,
    /// How the way there is protected.
    pub security: SmtpSecurity,
    /// The address that mails are from, without a name.
    pub from: Option<String>,
    /// Who logs in; without it nobody does.
    pub user: Option<String>,
    /// The file with the password, mode 0600.
    pub password_file: Option<PathBuf>,
    /// The authorities that the relay's certificate must come from, PEM; by default those of the web.
    pub ca: Option<PathBuf>,
    /// How we greet; by default with the domain of `from`.
    pub hello: Option<String>,
    /// How long each step may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for SmtpSettings {
    fn default() -> Self {
        Self {
            host: None,
            port: None,
            security: SmtpSecurity::Tls,
            from: None,
            user: None,
            password_file: None,
            ca: None,
            hello: None,
            timeout_ms: 10_000,
        }
    }
}

impl SmtpSettings {
    /// The port in use.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.security {
            SmtpSecurity::Tls => 465,
            SmtpSecurity::Starttls => 587,
            SmtpSecurity::Plain => 25,
        })
    }

    /// The host, if the settings that need no file make sense together.
    pub(super) fn checked_host(&self) -> Result<&str, SettingsError> {
        let host = self.host.as_deref().ok_or(SettingsError::Missing {
            key: "smtp.host",
            why: "the mail relay's host is missing",
        })?;
        let invalid = |key, why: &str| SettingsError::Invalid {
            key,
            why: why.to_owned(),
        };
        if rustls::pki_types::ServerName::try_from(host).is_err() {
            return Err(invalid(
                "smtp.host",
                "not a host name (the port is courier.smtp.port)",
            ));
        }
        if self.security == SmtpSecurity::Plain && !dial::is_loopback(host) {
            let why = "plain text is for a relay on this machine only (127.0.0.1, ::1 or \
                       localhost): whoever listens on the way reads the codes";
            return Err(invalid("smtp.security", why));
        }
        let domain = |text: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-[]:".contains(&b);
            !text.is_empty() && text.len() <= 255 && text.bytes().all(allowed)
        };
        if !self.hello.as_deref().is_none_or(domain) {
            return Err(invalid("smtp.hello", "not a host name"));
        }
        if self.port == Some(0) {
            return Err(invalid("smtp.port", "must be 1 to 65535"));
        }
        timeout_in_bounds("smtp.timeout_ms", self.timeout_ms)?;
        if self.password_file.is_some() && self.user.is_none() {
            return Err(invalid("smtp.user", "a password without a user"));
        }
        Ok(host)
    }
}

/// A step that takes longer than a code lives is of no use.
pub(in crate::courier) fn timeout_in_bounds(
    key: &'static str,
    timeout_ms: u64,
) -> Result<(), SettingsError> {
    if (100..=120_000).contains(&timeout_ms) {
        return Ok(());
    }
    let why = format!("{timeout_ms} is not between 100 and 120000");
    Err(SettingsError::Invalid { key, why })
}
