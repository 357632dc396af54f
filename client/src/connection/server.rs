//! Where a server is, and whether it may be spoken to in the open.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

/// The port of a server if none is given.
pub const DEFAULT_PORT: u16 = 7470;

/// Why a text is not a server's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL of a host.
    #[error("a server is given as https://host:port, or http://127.0.0.1:port on this machine")]
    Form,
    /// Plain text to another machine.
    #[error("plain http is for this machine only; give https:// and the cluster's --ca file")]
    PlainTextBeyondLoopback,
}

/// A server's address: `https://host:port`, or `http://` on this machine.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerAddress {
    uri: Uri,
    /// The URI without the path.
    text: String,
    secure: bool,
}

impl ServerAddress {
    /// The address as a URI, with its port.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    /// Reads an address. Without a scheme, this machine is spoken to in plain text and every other
    /// over TLS.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
            Some(_) => return Err(AddressError::Form),
            None => (None, text),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let parsed: http::uri::Authority = authority.parse().map_err(|_| AddressError::Form)?;
        if parsed.host().is_empty() || authority.contains('@') {
            return Err(AddressError::Form);
        }
        let loopback = is_loopback(parsed.host());
        let secure = scheme.map_or(!loopback, |scheme| scheme == "https");
        if !secure && !loopback {
            return Err(AddressError::PlainTextBeyondLoopback);
        }
        let scheme = if secure { "https" } else { "http" };
        let port = match parsed.port_u16() {
            Some(port) => port,
            // A colon with something behind it that is not a port.
            None if authority.len() > parsed.host().len() => return Err(AddressError::Form),
            None => DEFAULT_PORT,
        };
        let text = format!("{scheme}://{}:{port}", parsed.host());
        Ok(Self {
            uri: text.parse().map_err(|_| AddressError::Form)?,
            text,
            secure,
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_read_with_sensible_defaults() {
        for (text, meant) in [
            ("https://rossby.example:9000", "https://rossby.example:9000"),
            ("https://rossby.example", "https://rossby.example:7470"),
            ("rossby.example:9000/", "https://rossby.example:9000"),
            ("127.0.0.1:7470", "http://127.0.0.1:7470"),
            ("localhost", "http://localhost:7470"),
            ("http://[::1]:7470", "http://[::1]:7470"),
            ("https://127.0.0.1:7470", "https://127.0.0.1:7470"),
        ] {
            assert_eq!(
                text.parse::<ServerAddress>().unwrap().to_string(),
                meant,
                "{text}"
            );
        }
    }

    #[test]
    fn plain_text_goes_no_further_than_this_machine() {
        for text in [
            "http://rossby.example:1",
            "http://10.0.0.1:1",
            "http://[2001:db8::1]:1",
        ] {
            let refused = Err(AddressError::PlainTextBeyondLoopback);
            assert_eq!(text.parse::<ServerAddress>(), refused, "{text}");
        }
        for text in [
            "",
            "https://",
            "ftp://a",
            "https://a/b",
            "https://u@a",
            "a b",
            "a:99999",
        ] {
            assert_eq!(
                text.parse::<ServerAddress>(),
                Err(AddressError::Form),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_to_be_read_again(text in ".{0,40}") {
            if let Ok(address) = text.parse::<ServerAddress>() {
                prop_assert_eq!(address.to_string().parse::<ServerAddress>(), Ok(address));
            }
        }
    }
}
