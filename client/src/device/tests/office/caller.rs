//! Hawk at the office's end: who calls, and that it is the office that answers.

use std::time::Duration;

use hawk::{Header, Key, PayloadHasher, RequestBuilder, ResponseBuilder, SHA256};
use rossby_domain::ids::DeviceAddress;
use rossby_domain::{Answer, Query};
use rossby_seams::clock::Clock as _;

use super::{Office, refusal, refused};
use crate::connection::{Exchange, Refusal, Retry, WireError};

/// The office's name, as all sign for it.
pub(super) const HOST: &str = "rossby";
/// How far a caller's clock may be off.
const WINDOW_MS: u64 = 60_000;

/// Who calls.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) address: Option<DeviceAddress>,
    header: Option<Header>,
    token: Vec<u8>,
}

impl Caller {
    /// The office's own header over its reply, if the caller can check one.
    pub(super) fn vouch(&self, path: &str, reply: &[u8], number: Option<u64>) -> Option<String> {
        let header = self.header.as_ref()?;
        let hash = PayloadHasher::hash("application/grpc", SHA256, reply).unwrap();
        let number = number.map(|number| number.to_string());
        let response = ResponseBuilder::from_request_header(header, "POST", HOST, 443, path)
            .hash(&hash[..])
            .ext(number.as_deref())
            .response();
        let key = Key::new(&self.token, SHA256).unwrap();
        Some(format!("Hawk {}", response.make_header(&key).unwrap()))
    }
}

impl Office {
    pub(super) fn wrong_time(&self) -> WireError {
        WireError::Refused(Box::new(Refusal {
            server_time: Some(self.clock.now()),
            ..refusal("UNAUTHENTICATED", Retry::Changed)
        }))
    }

    /// Who calls, by their Hawk header, held against the office's own clock.
    pub(super) fn admit(&self, exchange: &Exchange<'_>) -> Result<Caller, WireError> {
        let unauthenticated = || refused("UNAUTHENTICATED", Retry::Changed);
        let Some(text) = &exchange.authorization else {
            return Ok(Caller {
                address: None,
                header: None,
                token: Vec::new(),
            });
        };
        let header: Header = text.strip_prefix("Hawk ").unwrap().parse().unwrap();
        let address: DeviceAddress = header.id.clone().unwrap().parse().unwrap();
        let token = self
            .state
            .lock()
            .tokens
            .get(&address)
            .cloned()
            .ok_or_else(unauthenticated)?;
        if self.ask(&Query::DeviceAuth(address)) == Answer::DeviceAuth(None) {
            return Err(unauthenticated());
        }
        let hash = PayloadHasher::hash("application/grpc", SHA256, &exchange.message).unwrap();
        let request = RequestBuilder::new("POST", HOST, 443, exchange.path)
            .hash(&hash[..])
            .request();
        let key = Key::new(&token, SHA256).unwrap();
        if !request.validate_header(&header, &key, Duration::MAX) {
            return Err(unauthenticated());
        }
        let signed_at = header
            .ts
            .unwrap()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let now = self.clock.now();
        let off_by = now
            .as_millis()
            .abs_diff(u64::try_from(signed_at.as_millis()).unwrap());
        if off_by > WINDOW_MS {
            return Err(self.wrong_time());
        }
        Ok(Caller {
            address: Some(address),
            header: Some(header),
            token,
        })
    }
}
