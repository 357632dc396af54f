//! What an operator says of the SMS gateway.

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};

use crate::courier::{SettingsError, secret_file};

/// The method of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WebhookMethod {
    /// With a body.
    #[default]
    Post,
    /// With a body.
    Put,
    /// All in the URL, and no body.
    Get,
}

/// The form of the body; what is filled in is escaped for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookFormat {
    /// `application/json`.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
}

/// The gateway that SMS go through. There is none without a URL. In `url` and `body`, `{number}` is the
/// phone number (with its `+`), `{text}` the whole message, `{code}` the code alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where the request goes: https, or http on this machine only.
    pub url: Option<String>,
    /// Its method.
    pub method: WebhookMethod,
    /// The form of its body.
    pub format: WebhookFormat,
    /// Its body.
    pub body: String,
    /// A file of mode 0600 with a header on each line (`Authorization: Bearer ..`).
    pub headers_file: Option<PathBuf>,
    /// The authorities that the gateway's certificate must come from, PEM; by default those of the
    /// web.
    pub ca: Option<PathBuf>,
    /// How long each step may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            url: None,
            method: WebhookMethod::Post,
            format: WebhookFormat::Json,
            body: r#"{"to":"{number}","text":"{text}"}"#.to_owned(),
            headers_file: None,
            ca: None,
            timeout_ms: 10_000,
        }
    }
}

impl WebhookSettings {
    /// The headers in the file.
    pub(super) fn headers(&self) -> Result<HeaderMap, SettingsError> {
        let key = "webhook.headers_file";
        let mut headers = HeaderMap::new();
        let Some(path) = &self.headers_file else {
            return Ok(headers);
        };
        let text = secret_file::read(key, path)?;
        for (line, number) in text.lines().zip(1..) {
            if line.trim().is_empty() {
                continue;
            }
            let (name, value) = header(line).ok_or_else(|| SettingsError::File {
                key,
                path: path.clone(),
                why: format!("line {number} is not a header (Name: value) that may be set"),
            })?;
            headers.append(name, value);
        }
        Ok(headers)
    }
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name: HeaderName = name.trim().parse().ok()?;
    let ours = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
    ];
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    (!ours.contains(&name)).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_those_of_the_connection_refused() {
        let (name, value) = header("Authorization: Bearer s3cret ").unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("authorization", "Bearer s3cret")
        );
        assert!(!format!("{value:?}").contains("s3cret"));
        for bad in [
            "no colon",
            "Host: x",
            "content-length: 3",
            "a b: c",
            ": x",
            "X: a\u{7}",
        ] {
            assert!(header(bad).is_none(), "{bad:?}");
        }
    }
}
