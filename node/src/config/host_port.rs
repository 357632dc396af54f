//! Addresses that others are told.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A host name or address with a port, as others reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort(String);

/// Not a host with a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST:PORT, for example node1.example.org:7470 or [2001:db8::1]:7470")]
pub struct HostPortError;

impl FromStr for HostPort {
    type Err = HostPortError;
    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError)?;
        let port: u16 = port.parse().map_err(|_| HostPortError)?;
        if port == 0 || !is_host(host) {
            return Err(HostPortError);
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;
    fn try_from(text: String) -> Result<Self, HostPortError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> Self {
        address.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_ports_are_taken() {
        for good in [
            "a:1",
            "10.0.0.1:7470",
            "node-1.example.org:65535",
            "[::1]:7470",
        ] {
            assert_eq!(good.parse::<HostPort>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "", "a", ":1", "a:", "a:0", "a:65536", "::1:7470", "[::1]", "a b:1", "a/b:1",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad:?} was taken");
        }
    }
}
