//! Hawk: each request is signed over its own bytes, and each reply must be signed in return.
//!
//! What is fixed: method `POST`, the gRPC path, the cluster's name as host, port 443, SHA-256,
//! payload hash over the protobuf message with content type `application/grpc`, no `ext`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hawk::{Credentials, Header, Key, PayloadHasher, RequestBuilder, ResponseBuilder, SHA256};
use rossby_domain::ids::DeviceAddress;
use rossby_domain::time::Timestamp;

use crate::crypto::secret::SecretBytes;

const METHOD: &str = "POST";
const PORT: u16 = 443;
const CONTENT_TYPE: &str = "application/grpc";
/// A reply's header is two digests and their names.
const MAX_HEADER_BYTES: usize = 256;
const DIGEST_BYTES: usize = 32;

/// Who signs, and with what.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The device.
    pub address: DeviceAddress,
    /// Its token.
    pub token: SecretBytes,
    /// The cluster's name.
    pub host: String,
}

/// A signed request: what to send, and what its reply will be held against.
pub struct SignedRequest {
    /// The `authorization` metadata.
    pub authorization: String,
    pub(super) at: Timestamp,
    path: &'static str,
    nonce: String,
    host: String,
    key: Key,
}

fn time_of(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(at.as_secs())
}

impl std::fmt::Debug for SignedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedRequest")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs a request over its bytes, for a time and with a nonce that was never used before.
    ///
    /// # Errors
    /// [`hawk::Error`] if the cryptography underneath fails.
    pub fn sign(
        &self,
        path: &'static str,
        message: &[u8],
        at: Timestamp,
        nonce: &[u8; 16],
    ) -> Result<SignedRequest, hawk::Error> {
        let nonce = URL_SAFE_NO_PAD.encode(nonce);
        let hash = PayloadHasher::hash(CONTENT_TYPE, SHA256, message)?;
        let credentials = Credentials {
            id: self.address.to_string(),
            key: Key::new(self.token.expose(), SHA256)?,
        };
        let header = RequestBuilder::new(METHOD, &self.host, PORT, path)
            .hash(&hash[..])
            .request()
            .make_header_full(&credentials, time_of(at), nonce.clone())?;
        let authorization = format!("Hawk {header}");
        Ok(SignedRequest {
            authorization,
            at,
            path,
            nonce,
            host: self.host.clone(),
            key: credentials.key,
        })
    }
}

impl SignedRequest {
    /// Whether a `server-authorization` header vouches for this reply to this request.
    #[must_use]
    pub fn is_vouched(&self, header: &str, reply: &[u8]) -> bool {
        self.vouches(header, reply, None)
    }

    /// Whether a header vouches for this message at this place of the stream that answers this
    /// request.
    pub(super) fn is_nth_vouched(&self, header: &str, message: &[u8], number: u64) -> bool {
        self.vouches(header, message, Some(&number.to_string()))
    }

    fn vouches(&self, header: &str, reply: &[u8], ext: Option<&str>) -> bool {
        parse_reply_header(header, ext)
            .is_some_and(|header| self.try_is_vouched(&header, reply).unwrap_or(false))
    }

    fn try_is_vouched(&self, header: &Header, reply: &[u8]) -> Result<bool, hawk::Error> {
        let (at, nonce) = (Some(time_of(self.at)), Some(self.nonce.clone()));
        let request = Header::new(None, at, nonce, None, None, None, None, None)?;
        let hash = PayloadHasher::hash(CONTENT_TYPE, SHA256, reply)?;
        let host = &self.host;
        let response =
            ResponseBuilder::from_request_header(&request, METHOD, host, PORT, self.path)
                .hash(&hash[..])
                .response();
        Ok(response.validate_header(header, &self.key))
    }
}

/// Reads `Hawk mac="..", hash=".."` and nothing else, or with exactly this `ext` in any place: the
/// crate's own reader can be made to panic.
pub(super) fn parse_reply_header(text: &str, ext: Option<&str>) -> Option<Header> {
    if text.len() > MAX_HEADER_BYTES {
        return None;
    }
    let (mut mac, mut hash) = (None, None);
    let mut wanted = ext;
    for field in text.strip_prefix("Hawk ")?.split(", ") {
        let (name, value) = field.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        if name == "ext" {
            if wanted.take() != Some(value) {
                return None;
            }
            continue;
        }
        let value = STANDARD.decode(value).ok()?;
        let slot = match name {
            "mac" => &mut mac,
            "hash" => &mut hash,
            _ => return None,
        };
        if value.len() != DIGEST_BYTES || slot.replace(value).is_some() {
            return None;
        }
    }
    if wanted.is_some() {
        return None;
    }
    let none = || None::<String>;
    let (mac, hash) = (Some(mac?.into()), Some(hash?));
    let ext = ext.map(str::to_owned);
    Header::new(none(), None, none(), mac, ext, hash, none(), none()).ok()
}

/// What we know of the difference between our clock and the service's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Skew {
    /// What to add to our clock, in milliseconds.
    offset_ms: i64,
    /// No request may carry an earlier time.
    floor: Timestamp,
}

/// A difference up to this is not our clock's fault: a new leader asks for times this far ahead of
/// its own, to be past everything that the one before may have admitted.
const LEADER_AHEAD_MS: i64 = 15_000;

impl Skew {
    /// The time to sign at when our clock shows `now`.
    pub(super) fn correct(&self, now: Timestamp) -> Timestamp {
        self.shift(now).max(self.floor)
    }

    /// The service's time when our clock shows `now`.
    pub(super) fn shift(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis().saturating_add_signed(self.offset_ms))
    }

    /// A request that was signed at `signed` should have carried `wanted`.
    pub(super) fn learn(&mut self, signed: Timestamp, wanted: Timestamp) {
        let millis = |at: Timestamp| i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        let difference = millis(wanted).saturating_sub(millis(signed));
        if !(0..=LEADER_AHEAD_MS).contains(&difference) {
            self.offset_ms = self.offset_ms.saturating_add(difference);
        }
        self.floor = wanted;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use rossby_domain::ids::{BoxId, DeviceId, PartitionId};

    const PATH: &str = "/rossby.v1.Mailbox/Fetch";

    fn signer() -> Signer {
        let box_id = BoxId::derive(PartitionId::new(1).unwrap(), &[1; 32]);
        let device = DeviceId::from_bytes([2; 16]);
        let token = SecretBytes::new(vec![3; 32]);
        Signer {
            address: DeviceAddress { box_id, device },
            token,
            host: "rossby".to_owned(),
        }
    }

    fn signed() -> SignedRequest {
        let at = Timestamp::from_millis(1_700_000_000_500);
        signer().sign(PATH, b"request", at, &[7; 16]).unwrap()
    }

    /// The reply header of a server that knows this token, to a Fetch.
    pub(in crate::connection) fn vouch(authorization: &str, token: &[u8], reply: &[u8]) -> String {
        vouch_with(authorization, token, reply, None)
    }

    /// The reply header of a server that knows this token.
    fn vouch_with(authorization: &str, token: &[u8], reply: &[u8], ext: Option<&str>) -> String {
        let request: Header = authorization
            .strip_prefix("Hawk ")
            .unwrap()
            .parse()
            .unwrap();
        let hash = PayloadHasher::hash(CONTENT_TYPE, SHA256, reply).unwrap();
        let response = ResponseBuilder::from_request_header(&request, METHOD, "rossby", PORT, PATH)
            .hash(&hash[..])
            .ext(ext)
            .response();
        format!(
            "Hawk {}",
            response
                .make_header(&Key::new(token, SHA256).unwrap())
                .unwrap()
        )
    }

    #[test]
    fn a_request_is_one_that_a_server_with_the_token_accepts() {
        let header: Header = signed()
            .authorization
            .strip_prefix("Hawk ")
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(header.id, Some(signer().address.to_string()));
        let key = Key::new([3; 32], SHA256).unwrap();
        let validate = |message: &[u8]| {
            let hash = PayloadHasher::hash(CONTENT_TYPE, SHA256, message).unwrap();
            RequestBuilder::new(METHOD, "rossby", PORT, PATH)
                .hash(&hash[..])
                .request()
                .validate_header(&header, &key, Duration::MAX)
        };
        assert!(validate(b"request"));
        assert!(!validate(b"another request"));
    }

    #[test]
    fn only_a_reply_by_the_service_to_this_request_is_vouched_for() {
        let signed = signed();
        let header = vouch(&signed.authorization, &[3; 32], b"reply");
        assert!(signed.is_vouched(&header, b"reply"));
        assert!(!signed.is_vouched(&header, b"another reply"));
        assert!(!signed.is_vouched(&vouch(&signed.authorization, &[4; 32], b"reply"), b"reply"));
        let at = signed.at;
        let other = signer().sign(PATH, b"request", at, &[8; 16]).unwrap();
        assert!(!signed.is_vouched(&vouch(&other.authorization, &[3; 32], b"reply"), b"reply"));
    }

    #[test]
    fn a_message_of_a_stream_is_vouched_for_at_its_own_place_only() {
        let signed = signed();
        let header = vouch_with(&signed.authorization, &[3; 32], b"page", Some("7"));
        assert!(signed.is_nth_vouched(&header, b"page", 7));
        assert!(!signed.is_nth_vouched(&header, b"page", 8));
        assert!(!signed.is_nth_vouched(&header, b"another page", 7));
        assert!(
            !signed.is_vouched(&header, b"page"),
            "a stream's for a reply"
        );
        let renumbered = header.replace("ext=\"7\"", "ext=\"8\"");
        assert_ne!(renumbered, header);
        assert!(!signed.is_nth_vouched(&renumbered, b"page", 8));
        let reply = vouch(&signed.authorization, &[3; 32], b"page");
        assert!(
            !signed.is_nth_vouched(&reply, b"page", 0),
            "a reply's for a stream"
        );
    }

    #[test]
    fn a_reply_header_in_any_other_form_is_refused() {
        let signed = signed();
        let header = vouch(&signed.authorization, &[3; 32], b"reply");
        let mac = header.split(", ").next().unwrap();
        for bad in [
            "",
            "Hawk ",
            "Hawk mac=\"\", hash=\"\"",
            mac,
            &format!("{header}, ts=\"18446744073709551615\""),
            &format!("{header}, {}", mac.strip_prefix("Hawk ").unwrap()),
            &header.replace("Hawk", "hawk"),
        ] {
            assert!(!signed.is_vouched(bad, b"reply"), "{bad}");
        }
    }

    #[test]
    fn a_wrong_clock_is_corrected_and_a_new_leaders_wish_is_met() {
        let at = Timestamp::from_millis;
        let mut skew = Skew::default();
        assert_eq!(skew.correct(at(100_000)), at(100_000));
        // Five minutes slow.
        skew.learn(at(100_000), at(400_000));
        assert_eq!(skew.correct(at(101_000)), at(401_000));
        // A new leader wants six seconds more: no earlier, but the clock is not moved again.
        skew.learn(at(401_000), at(407_000));
        assert_eq!(skew.correct(at(102_000)), at(407_000));
        assert_eq!(skew.correct(at(200_000)), at(500_000));
        // A clock that runs ahead.
        let mut skew = Skew::default();
        skew.learn(at(900_000), at(100_000));
        assert_eq!(skew.correct(at(901_000)), at(101_000));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(text in ".{0,300}", prefixed: bool) {
            let text = if prefixed { format!("Hawk {text}") } else { text };
            prop_assert!(!signed().is_vouched(&text, b"reply"));
        }

        #[test]
        fn no_times_make_the_skew_panic(a: u64, b: u64, c: u64) {
            let mut skew = Skew::default();
            skew.learn(Timestamp::from_millis(a), Timestamp::from_millis(b));
            prop_assert!(skew.correct(Timestamp::from_millis(c)) >= Timestamp::from_millis(b));
        }
    }
}
