//! The other side of [`super::Guard`]: signing a request and checking its reply. For tests and
//! tools; a device's own half is in the crate `client`.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use rossby_domain::ids::DeviceAddress;

use super::{METHOD, PORT, payload_hash};
use crate::call::RpcPath;
use crate::secrets::KEY_BYTES;

/// A request can't be signed.
#[derive(Debug, thiserror::Error)]
#[error("can't sign the request: {0}")]
pub struct SignError(#[from] hawk::Error);

/// What a request is signed with.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// Who signs.
    pub address: DeviceAddress,
    /// With this token.
    pub token: &'a [u8; KEY_BYTES],
    /// The cluster's name.
    pub host: &'a str,
    /// The method that is called.
    pub path: RpcPath,
    /// Seconds since the Unix epoch.
    pub ts_secs: u64,
    /// Never used before by this device.
    pub nonce: &'a str,
}

impl SignedRequest<'_> {
    /// The `authorization` header for a message.
    ///
    /// # Errors
    /// [`SignError`] if the cryptography underneath fails.
    pub fn authorization(&self, message: &[u8]) -> Result<String, SignError> {
        let hash = payload_hash(message)?;
        let credentials = hawk::Credentials {
            id: self.address.to_string(),
            key: self.key()?,
        };
        let header = hawk::RequestBuilder::new(METHOD, self.host, PORT, self.path.as_str())
            .hash(&hash[..])
            .request()
            .make_header_full(&credentials, self.time(), self.nonce)?;
        Ok(format!("Hawk {header}"))
    }

    /// Whether a `server-authorization` header vouches for this reply to this request.
    #[must_use]
    pub fn is_vouched(&self, reply: &Bytes, server_authorization: &str) -> bool {
        self.try_is_vouched(reply, server_authorization, None)
            .unwrap_or(false)
    }

    /// Whether a header vouches for this message at this place of the stream that answers this
    /// request.
    #[must_use]
    pub fn is_nth_vouched(&self, message: &Bytes, server_authorization: &str, number: u64) -> bool {
        self.try_is_vouched(message, server_authorization, Some(&number.to_string()))
            .unwrap_or(false)
    }

    fn try_is_vouched(
        &self,
        reply: &Bytes,
        header: &str,
        ext: Option<&str>,
    ) -> Result<bool, hawk::Error> {
        let Some(header) = header.strip_prefix("Hawk ") else {
            return Ok(false);
        };
        let header: hawk::Header = header.parse()?;
        // The crate checks the MAC with whatever ext the header has.
        if header.ext.as_deref() != ext {
            return Ok(false);
        }
        let request = hawk::Header::new(
            None,
            Some(self.time()),
            Some(self.nonce.to_owned()),
            None,
            None,
            None,
            None,
            None,
        )?;
        let hash = payload_hash(reply)?;
        let response = hawk::ResponseBuilder::from_request_header(
            &request,
            METHOD,
            self.host,
            PORT,
            self.path.as_str(),
        )
        .hash(&hash[..])
        .response();
        Ok(response.validate_header(&header, &self.key()?))
    }

    fn key(&self) -> Result<hawk::Key, hawk::Error> {
        hawk::Key::new(self.token, hawk::SHA256)
    }

    fn time(&self) -> std::time::SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.ts_secs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::{BoxId, DeviceId, GroupId, PartitionId};
    use rossby_domain::time::Timestamp;
    use rossby_seams::random::SeededRandom;

    use super::*;
    use crate::hawk::{Credentials, Guard, GuardConfig, HawkRefusal, Presented, Reign};
    use crate::secrets::ClusterSecrets;

    const HOST: &str = "test.rossby";
    const NOW_SECS: u64 = 1_700_000_000;
    const REIGN: Reign = Reign {
        group: GroupId(1),
        term: 1,
        since: Timestamp::from_millis((NOW_SECS - 600) * 1000),
        covered: Timestamp::from_millis(NOW_SECS * 1000),
    };

    fn address() -> DeviceAddress {
        let box_id = BoxId::derive(PartitionId::new(3).unwrap(), &[7; 32]);
        DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([9; 16]),
        }
    }

    fn secrets() -> ClusterSecrets {
        ClusterSecrets::generate(&SeededRandom::new(1)).unwrap()
    }

    fn guard() -> Guard {
        let host = HOST.to_owned();
        Guard::new(GuardConfig {
            host,
            window_ms: 60_000,
            ahead_ms: 5_000,
            nonces: 1000,
        })
    }

    /// As the service does it: from the address that the caller claims.
    fn credentials(address: &DeviceAddress, known: bool) -> Credentials {
        Credentials {
            tokens: secrets().accepted_tokens(address, 1).collect(),
            known,
        }
    }

    struct Try<'a> {
        guard: &'a Guard,
        header: String,
        path: RpcPath,
        message: &'a [u8],
        reign: Reign,
        now_secs: u64,
        known: bool,
    }

    impl<'a> Try<'a> {
        fn at(guard: &'a Guard, ts_secs: u64, nonce: &str, message: &'a [u8]) -> Self {
            let token = secrets().token(&address(), 1);
            let header = SignedRequest {
                address: address(),
                token: token.as_bytes(),
                host: HOST,
                path: RpcPath::Send,
                ts_secs,
                nonce,
            }
            .authorization(message)
            .unwrap();
            Self {
                guard,
                header,
                path: RpcPath::Send,
                message,
                reign: REIGN,
                now_secs: NOW_SECS,
                known: true,
            }
        }

        fn admit(&self) -> Result<crate::hawk::Caller, HawkRefusal> {
            let presented =
                Presented::parse(&self.header).map_err(|_| HawkRefusal::NotAuthenticated)?;
            let credentials = credentials(presented.address(), self.known);
            self.guard.admit(
                presented,
                self.path,
                self.message,
                credentials,
                self.reign,
                Timestamp::from_millis(self.now_secs * 1000),
            )
        }
    }

    #[test]
    fn a_signed_request_is_admitted_once_and_its_reply_vouched_for() {
        let guard = guard();
        let request = Try::at(&guard, NOW_SECS, "nonce-number-1", b"message");
        let caller = request.admit().unwrap();
        assert_eq!(caller.address(), address());
        assert_eq!(request.admit().unwrap_err(), HawkRefusal::Replayed);

        let reply = Bytes::from_static(b"reply");
        let header = guard.vouch(&caller, &reply).unwrap();
        let token = secrets().token(&address(), 1);
        let signed = SignedRequest {
            address: address(),
            token: token.as_bytes(),
            host: HOST,
            path: RpcPath::Send,
            ts_secs: NOW_SECS,
            nonce: "nonce-number-1",
        };
        assert!(signed.is_vouched(&reply, &header));
        assert!(!signed.is_vouched(&Bytes::from_static(b"Reply"), &header));
        assert!(
            !SignedRequest {
                nonce: "another-nonce",
                ..signed
            }
            .is_vouched(&reply, &header)
        );
    }

    #[test]
    fn an_unknown_device_with_the_right_token_gets_what_a_wrong_token_gets() {
        let guard = guard();
        let mut unknown = Try::at(&guard, NOW_SECS, "nonce-number-1", b"message");
        unknown.known = false;
        let mut wrong = Try::at(&guard, NOW_SECS, "nonce-number-2", b"message");
        wrong.header = wrong.header.replace("mac=\"", "mac=\"A");
        assert_eq!(unknown.admit().unwrap_err(), HawkRefusal::NotAuthenticated);
        assert_eq!(wrong.admit().unwrap_err(), HawkRefusal::NotAuthenticated);
        assert_eq!(guard.nonces(), 0, "only a right MAC leaves a trace");
    }

    #[test]
    fn another_body_or_method_is_refused() {
        let guard = guard();
        let mut tampered = Try::at(&guard, NOW_SECS, "nonce-number-1", b"message");
        tampered.message = b"messagE";
        assert_eq!(tampered.admit().unwrap_err(), HawkRefusal::NotAuthenticated);
        let mut other_method = Try::at(&guard, NOW_SECS, "nonce-number-1", b"message");
        other_method.path = RpcPath::Acknowledge;
        assert_eq!(
            other_method.admit().unwrap_err(),
            HawkRefusal::NotAuthenticated
        );
    }

    #[test]
    fn a_stale_or_early_request_learns_the_time() {
        let guard = guard();
        for ts in [NOW_SECS - 61, NOW_SECS + 6, 0, 99_999_999_999] {
            let refused = Try::at(&guard, ts, "nonce-number-1", b"message")
                .admit()
                .unwrap_err();
            let server_time = Timestamp::from_millis(NOW_SECS * 1000);
            assert_eq!(
                refused,
                HawkRefusal::WrongTime {
                    server_time,
                    wait: Duration::ZERO
                }
            );
        }
        for ts in [NOW_SECS - 60, NOW_SECS + 5] {
            assert!(
                Try::at(&guard, ts, "nonce-number-1", b"message")
                    .admit()
                    .is_ok()
            );
        }
    }

    #[test]
    fn a_new_leader_refuses_what_the_old_one_may_have_admitted() {
        let guard = guard();
        let reign_2 = Reign {
            term: 2,
            since: Timestamp::from_millis(NOW_SECS * 1000),
            covered: Timestamp::from_millis((NOW_SECS + 1) * 1000),
            ..REIGN
        };
        // As far ahead as the old leader admits.
        let mut captured = Try::at(&guard, NOW_SECS + 5, "nonce-number-1", b"message");
        assert!(captured.admit().is_ok());
        captured.reign = reign_2;
        let refused = captured.admit().unwrap_err();
        let server_time = Timestamp::from_millis((NOW_SECS + 6) * 1000);
        assert_eq!(
            refused,
            HawkRefusal::WrongTime {
                server_time,
                wait: Duration::from_secs(1)
            }
        );
        // Whoever does as told is admitted.
        let mut told = Try::at(&guard, NOW_SECS + 6, "nonce-number-2", b"message");
        (told.reign, told.now_secs) = (reign_2, NOW_SECS + 1);
        assert!(told.admit().is_ok());
        // For as long as the window is open, the captured request stays refused.
        for later in 0..=70 {
            captured.now_secs = NOW_SECS + later;
            assert!(captured.admit().is_err());
        }
    }

    #[test]
    fn a_call_that_was_late_from_an_earlier_reign_makes_no_nonce_forgotten() {
        let guard = guard();
        let mut seen = Try::at(&guard, NOW_SECS, "nonce-number-1", b"message");
        seen.reign.term = 2;
        assert!(seen.admit().is_ok());
        let late = Try::at(&guard, NOW_SECS, "nonce-number-2", b"message");
        assert_eq!(late.admit().unwrap_err(), HawkRefusal::ReignOver);
        assert_eq!(seen.admit().unwrap_err(), HawkRefusal::Replayed);
    }

    proptest! {
        #[test]
        fn any_single_changed_byte_is_refused(at in 0_usize..1000, flip in 1_u8..=127) {
            let guard = guard();
            let mut request = Try::at(&guard, NOW_SECS, "nonce-number-1", b"message");
            let mut bytes = request.header.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            request.header = String::from_utf8(bytes).unwrap_or_default();
            prop_assert!(request.admit().is_err());
            prop_assert_eq!(guard.nonces(), 0);
        }

        #[test]
        fn any_single_removed_or_doubled_byte_is_refused(at in 0_usize..1000, double: bool) {
            let guard = guard();
            let mut request = Try::at(&guard, NOW_SECS, "nonce-number-1", b"message");
            let at = at % request.header.len();
            let byte = request.header.remove(at);
            if double {
                request.header.insert(at, byte);
                request.header.insert(at, byte);
            }
            prop_assert!(request.admit().is_err());
        }
    }
}
