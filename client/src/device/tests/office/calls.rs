//! What the office does when it is called, by the real rules.

use bytes::Bytes;
use prost::Message as _;
use rossby_domain::Rejection;
use rossby_domain::chain::{Change, KemKey, KeyRecord, Link};
use rossby_domain::claim::CodeMac;
use rossby_domain::command::{self, Command, EnvelopeDigest, Outcome};
use rossby_domain::contest::ResetNote;
use rossby_domain::identifier::{Identifier, IdentifierHash};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Sequence};
use rossby_domain::query::{Answer, Query};
use rossby_domain::statement;
use rossby_domain::tables::ReadTables as _;
use rossby_proto::v1::{self, identifier::Kind, lookup_key_request::By, send_outcome};
use rossby_seams::random::SeededRandom;

use super::caller::{Caller, HOST};
use super::{Office, Rate, partition, refusal, refused};
use crate::connection::{Exchange, Retry, WireError};
use crate::crypto::kem::seal;
use crate::crypto::token::TOKEN_INFO;

pub(super) const PEPPER: [u8; 32] = [7; 32];
/// How long the owner of an identifier has to say no.
/// From the proof on: the time for telling the old box, and the delay.
pub const RESET_DELAY_MS: u64 = 7 * 24 * 60 * 60 * 1000 + 10 * 60 * 1000;

fn box_of(bytes: &[u8]) -> BoxId {
    BoxId::from_bytes(bytes.try_into().unwrap()).unwrap()
}

fn identifier_of(identifier: Option<v1::Identifier>) -> Identifier {
    match identifier.unwrap().kind.unwrap() {
        Kind::Phone(text) => Identifier::phone(&text).unwrap(),
        Kind::Email(text) => Identifier::email(&text).unwrap(),
    }
}

impl Office {
    fn register(&self, request: v1::RegisterRequest) -> Result<Vec<u8>, WireError> {
        let record = KeyRecord::decode(&request.key_record).unwrap();
        let identifier = identifier_of(request.identifier);
        let kem = &record.devices().next().unwrap().kem.public;
        let genesis_hash = record.genesis_hash();
        let discoverable = request.discoverable;
        let statement =
            rossby_domain::statement::register(&genesis_hash, &identifier, discoverable, kem);
        let signature = request.signature[..].try_into().unwrap();
        let key = record.genesis().device_key;
        assert!(rossby_domain::chain::verify_signature(
            &key, &statement, &signature
        ));
        let box_id = BoxId::derive(partition(), &genesis_hash);
        let hash = IdentifierHash::of(&PEPPER, &identifier);
        let device = record.genesis().device();
        self.apply(Command::ClaimDevice(command::ClaimDevice {
            device,
            box_id,
        }))
        .unwrap();
        let create = command::CreateBox {
            box_id,
            record,
            identifier: hash,
            sealed_identifier: Bytes::copy_from_slice(identifier.as_str().as_bytes()),
            discoverable,
        };
        self.apply(Command::CreateBox(create)).unwrap();
        let code = format!("{:08}", 12_345_678);
        let open = command::OpenClaim {
            identifier: hash,
            box_id,
            discoverable,
            code: CodeMac::of(&PEPPER, &hash, &box_id, &code),
            sealed_code: Bytes::new(),
        };
        let open = match request.reset {
            true => Command::OpenReset(command::OpenReset(open)),
            false => Command::OpenClaim(open),
        };
        match self.apply(open) {
            Ok(_) => {}
            Err(Rejection::TooManyCodes { .. }) => {
                return Err(refused("TOO_MANY_CODES", Retry::Same));
            }
            Err(_) => return Err(refused("IDENTIFIER_TAKEN", Retry::No)),
        }
        self.state.lock().codes.insert(box_id, code);
        let box_id = Bytes::copy_from_slice(box_id.as_bytes());
        Ok(v1::RegisterResponse {
            box_id,
            code_ttl_ms: 600_000,
        }
        .encode_to_vec())
    }

    /// Sees to it that the caller's own key has signed.
    fn assert_signed(&self, caller: DeviceAddress, signed: &[u8], signature: &Bytes) {
        let record = self.state.lock().tables.key_record(&caller.box_id).unwrap();
        let key = *record.unwrap().signing_key(&caller.device).unwrap();
        let signature = signature[..].try_into().unwrap();
        assert!(rossby_domain::chain::verify_signature(
            &key, signed, &signature
        ));
    }

    fn add_identifier(
        &self,
        caller: DeviceAddress,
        request: v1::AddIdentifierRequest,
    ) -> Result<Vec<u8>, WireError> {
        let (identifier, discoverable) = (identifier_of(request.identifier), request.discoverable);
        let (box_id, device) = (caller.box_id, caller.device);
        let signed =
            rossby_domain::statement::add_identifier(&box_id, &device, &identifier, discoverable);
        self.assert_signed(caller, &signed, &request.signature);
        let hash = IdentifierHash::of(&PEPPER, &identifier);
        let add = command::AddIdentifier {
            device: caller,
            identifier: hash,
            sealed_identifier: Bytes::copy_from_slice(identifier.as_str().as_bytes()),
            discoverable,
        };
        if let Err(Rejection::TooManyIdentifiers { .. }) = self.apply(Command::AddIdentifier(add)) {
            return Err(refused("TOO_MANY_IDENTIFIERS", Retry::No));
        }
        let code = format!("{:08}", 87_654_321);
        let open = command::OpenClaim {
            identifier: hash,
            box_id,
            discoverable,
            code: CodeMac::of(&PEPPER, &hash, &box_id, &code),
            sealed_code: Bytes::new(),
        };
        match self.apply(Command::OpenClaim(open)) {
            Ok(_) => {}
            Err(Rejection::TooManyCodes { .. }) => {
                return Err(refused("TOO_MANY_CODES", Retry::Same));
            }
            Err(_) => return Err(refused("IDENTIFIER_TAKEN", Retry::No)),
        }
        self.state.lock().codes.insert(box_id, code);
        Ok(v1::AddIdentifierResponse {
            code_ttl_ms: 600_000,
        }
        .encode_to_vec())
    }

    fn set_profile(
        &self,
        caller: DeviceAddress,
        request: v1::SetProfileRequest,
    ) -> Result<Vec<u8>, WireError> {
        let (version, sealed) = (request.version, request.sealed_profile);
        let (box_id, device) = (caller.box_id, caller.device);
        let signed = rossby_domain::statement::set_profile(&box_id, &device, version, &sealed);
        self.assert_signed(caller, &signed, &request.signature);
        let set = command::SetProfile {
            device: caller,
            version,
            sealed,
        };
        match self.apply(Command::SetProfile(set)) {
            Ok(_) => Ok(v1::SetProfileResponse {}.encode_to_vec()),
            Err(Rejection::ProfileVersionUsed { current }) => {
                let mut refusal = refusal("PROFILE_VERSION_USED", Retry::Changed);
                let figure = ("current_version".to_owned(), current.to_string());
                refusal.figures = [figure].into();
                Err(WireError::Refused(Box::new(refusal)))
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn remove_identifier(
        &self,
        caller: DeviceAddress,
        request: v1::RemoveIdentifierRequest,
    ) -> Result<Vec<u8>, WireError> {
        let (identifier, generation) = (identifier_of(request.identifier), request.generation);
        let (box_id, device) = (caller.box_id, caller.device);
        let signed =
            rossby_domain::statement::remove_identifier(&box_id, &device, &identifier, generation);
        self.assert_signed(caller, &signed, &request.signature);
        let identifier = IdentifierHash::of(&PEPPER, &identifier);
        let remove = command::RemoveIdentifier {
            device: caller,
            identifier,
            generation,
        };
        match self.apply(Command::RemoveIdentifier(remove)) {
            Ok(_) => {}
            Err(Rejection::LastIdentifier) => return Err(refused("LAST_IDENTIFIER", Retry::No)),
            Err(_) => return Err(refused("IDENTIFIER_CHANGED", Retry::Changed)),
        }
        let release = command::ReleaseClaim {
            identifier,
            box_id,
            generation,
        };
        self.apply(Command::ReleaseClaim(release)).unwrap();
        let drop = command::DropIdentifier {
            box_id,
            identifier,
            generation,
        };
        self.apply(Command::DropIdentifier(drop)).unwrap();
        Ok(v1::RemoveIdentifierResponse {}.encode_to_vec())
    }

    fn list_identifiers(&self, caller: DeviceAddress) -> Vec<u8> {
        let box_id = caller.box_id;
        let Answer::Identifiers(listed) = self.ask(&Query::Identifiers(box_id)) else {
            panic!("not an answer to the query")
        };
        let Answer::Resets(resets) = self.ask(&Query::Resets(box_id)) else {
            panic!("not an answer to the query")
        };
        let own = listed.into_iter().map(|listed| {
            let mut told = resets.iter().filter(|(hash, _)| *hash == listed.hash);
            let reset = told.next().map(|(_, note)| *note);
            let text = String::from_utf8(listed.sealed.to_vec()).unwrap();
            let identifier = listed.hash;
            let Answer::Discoverable(found) = self.ask(&Query::Discoverable { identifier, box_id })
            else {
                panic!("not an answer to the query")
            };
            v1::OwnIdentifier {
                identifier: Some(v1::Identifier {
                    kind: Some(match text.contains('@') {
                        true => Kind::Email(text),
                        false => Kind::Phone(text),
                    }),
                }),
                verified: found.is_some(),
                discoverable: found.unwrap_or(listed.discoverable),
                uncertain: false,
                generation: listed.named_generation(),
                reset_at_ms: reset.map(|reset| reset.completes_at.as_millis()),
                reset_serial: reset.map_or(0, |reset| reset.serial),
            }
        });
        v1::ListIdentifiersResponse {
            identifiers: own.collect(),
        }
        .encode_to_vec()
    }

    fn authorize(&self, request: v1::AuthorizeRequest) -> Result<Vec<u8>, WireError> {
        let box_id = box_of(&request.box_id);
        let device = DeviceId::from_bytes(request.device_id[..].try_into().unwrap());
        let identifier = identifier_of(request.identifier);
        let hash = IdentifierHash::of(&PEPPER, &identifier);
        let code = CodeMac::of(&PEPPER, &hash, &box_id, &request.code);
        let verify = command::VerifyClaim {
            identifier: hash,
            box_id,
            code,
        };
        let verify = match request.reset {
            true => Command::ProveReset(command::ProveReset {
                identifier: hash,
                box_id,
                code,
            }),
            false => Command::VerifyClaim(verify),
        };
        let generation = match self.apply(verify) {
            Ok(Outcome::ClaimVerified { generation }) => generation,
            Ok(Outcome::ResetWaits { owner, note, .. }) => {
                return Err(self.begin_reset((hash, box_id), owner, note));
            }
            Err(Rejection::ResetVetoed { .. }) => {
                return Err(refused("RESET_VETOED", Retry::Changed));
            }
            _ => return Err(refused("WRONG_CODE", Retry::Changed)),
        };
        let former = self.ask(&Query::FormerOwner {
            identifier: hash,
            box_id,
        });
        if let Answer::FormerOwner(Some(former)) = former {
            let lose = command::LoseIdentifier {
                box_id: former.box_id,
                identifier: hash,
                generation: former.generation,
            };
            self.apply(Command::LoseIdentifier(lose)).unwrap();
        }
        let activate = command::ActivateBox {
            box_id,
            device,
            identifier: hash,
            generation,
        };
        self.apply(Command::ActivateBox(activate)).unwrap();
        let (_, encapsulated_key, sealed_token) = self.issue(DeviceAddress { box_id, device });
        let response = v1::AuthorizeResponse {
            encapsulated_key,
            sealed_token,
            hawk_host: HOST.to_owned(),
        };
        Ok(response.encode_to_vec())
    }

    /// Tells the owner of a reset, and lets its delay run.
    fn begin_reset(
        &self,
        (identifier, box_id): (IdentifierHash, BoxId),
        owner: BoxId,
        note: ResetNote,
    ) -> WireError {
        let (serial, until) = (note.serial, note.stands_until());
        let tell = command::NoteReset {
            box_id: owner,
            identifier,
            note,
        };
        self.apply(Command::NoteReset(tell)).unwrap();
        let keep = command::AwaitReset { box_id, until };
        self.apply(Command::AwaitReset(keep)).unwrap();
        let start = command::StartReset {
            identifier,
            box_id,
            serial,
        };
        match self.apply(Command::StartReset(start)) {
            Ok(Outcome::ResetWaits { note, .. }) => {
                let mut waits = refusal("RESET_WAITS", Retry::Same);
                let at = note.completes_at.as_millis().to_string();
                waits.figures.insert("completes_at_ms".to_owned(), at);
                WireError::Refused(Box::new(waits))
            }
            other => panic!("{other:?}"),
        }
    }

    fn keep_identifier(
        &self,
        caller: DeviceAddress,
        request: v1::KeepIdentifierRequest,
    ) -> Result<Vec<u8>, WireError> {
        let (identifier, serial) = (identifier_of(request.identifier), request.reset_serial);
        let (box_id, device) = (caller.box_id, caller.device);
        let signed =
            rossby_domain::statement::keep_identifier(&box_id, &device, &identifier, serial);
        self.assert_signed(caller, &signed, &request.signature);
        let identifier = IdentifierHash::of(&PEPPER, &identifier);
        let veto = command::VetoReset {
            identifier,
            box_id,
            serial,
        };
        if self.apply(Command::VetoReset(veto)).is_err() {
            return Err(refused("IDENTIFIER_CHANGED", Retry::Changed));
        }
        let forget = command::ForgetReset {
            box_id,
            identifier,
            serial,
        };
        self.apply(Command::ForgetReset(forget)).unwrap();
        Ok(v1::KeepIdentifierResponse {}.encode_to_vec())
    }

    /// The box's record, and a token for its device, sealed.
    fn issue(&self, address: DeviceAddress) -> (KeyRecord, Bytes, Bytes) {
        let DeviceAddress { box_id, device } = address;
        let token = vec![device.as_bytes()[0]; 32];
        let mut state = self.state.lock();
        state.tokens.insert(address, token.clone());
        let record = state.tables.key_record(&box_id).unwrap().unwrap();
        let public = record.device(&device).unwrap().kem.public.clone();
        let aad = address.to_string();
        let random = SeededRandom::new(5);
        let sealed = seal(&random, &public, TOKEN_INFO, aad.as_bytes(), &token).unwrap();
        let key = Bytes::copy_from_slice(&sealed.encapsulated_key);
        (record, key, sealed.ciphertext.into())
    }

    fn extend_chain(
        &self,
        caller: DeviceAddress,
        request: v1::ExtendChainRequest,
    ) -> Result<Vec<u8>, WireError> {
        let link = Link::decode(&request.link).unwrap();
        let box_id = caller.box_id;
        if let Change::AddDevice { key } = link.change {
            let device = DeviceId::of_key(&key);
            let bound = self.ask(&Query::BoundDevice(device));
            let free = [Some(box_id), None].map(Answer::ResolvedDevice);
            if !free.contains(&bound) {
                return Err(refused("KEY_ALREADY_REGISTERED", Retry::No));
            }
        }
        let extend = command::ExtendChain { box_id, link };
        match self.apply(Command::ExtendChain(extend)) {
            Ok(Outcome::ChainExtended { version }) => {
                if let Change::AddDevice { key } = link.change {
                    let device = DeviceId::of_key(&key);
                    let offer = command::OfferDevice { device, box_id };
                    self.apply(Command::OfferDevice(offer)).unwrap();
                }
                Ok(v1::ExtendChainResponse { version }.encode_to_vec())
            }
            Err(Rejection::ChainChanged { .. }) => Err(refused("CHAIN_CHANGED", Retry::Changed)),
            Err(Rejection::LinkRefused(_)) => Err(refused("LINK_NOT_ALLOWED", Retry::No)),
            other => panic!("{other:?}"),
        }
    }

    fn join_box(&self, request: v1::JoinBoxRequest) -> Result<Vec<u8>, WireError> {
        let key = request.signing_key[..].try_into().unwrap();
        let device = DeviceId::of_key(&key);
        let kem = KemKey::decode(&request.kem_key).unwrap();
        let statement = rossby_domain::statement::join_box(&device, &kem.public);
        let signature = request.signature[..].try_into().unwrap();
        assert!(rossby_domain::chain::verify_signature(
            &key, &statement, &signature
        ));
        let not_linked = || refused("NOT_LINKED", Retry::Same);
        let Answer::ResolvedDevice(Some(box_id)) = self.ask(&Query::ResolveDevice(device)) else {
            return Err(not_linked());
        };
        let address = DeviceAddress { box_id, device };
        let join = command::JoinBox {
            device: address,
            kem,
        };
        match self.apply(Command::JoinBox(join)) {
            Ok(Outcome::BoxJoined { .. }) => {
                let claim = command::ClaimDevice { device, box_id };
                self.apply(Command::ClaimDevice(claim)).unwrap();
            }
            Err(Rejection::DeviceRevoked) => return Err(refused("DEVICE_REVOKED", Retry::No)),
            Err(Rejection::KeyCounterUsed { current }) => {
                let mut used = refusal("KEY_COUNTER_USED", Retry::Changed);
                let current = current.to_string();
                used.figures.insert("current_counter".to_owned(), current);
                return Err(WireError::Refused(Box::new(used)));
            }
            Err(Rejection::UnknownBox)
                if self.ask(&Query::IsDeleted(box_id)) == Answer::IsDeleted(true) =>
            {
                return Err(refused("BOX_DELETED", Retry::No));
            }
            Err(Rejection::UnknownDevice | Rejection::UnknownBox) => return Err(not_linked()),
            other => panic!("{other:?}"),
        }
        Ok(self.welcome(address))
    }

    fn lookup_recovery(&self, request: v1::LookupRecoveryRequest) -> Result<Vec<u8>, WireError> {
        use rossby_domain::statement::{Recoverable, lookup_recovery};
        use v1::lookup_recovery_request::By;
        let not_recoverable = || refused("NOT_RECOVERABLE", Retry::No);
        let (box_id, signed) = match request.by.unwrap() {
            By::BoxId(bytes) => {
                let box_id = box_of(&bytes);
                (Some(box_id), lookup_recovery(Recoverable::Box(&box_id)))
            }
            By::Identifier(wire) => {
                let identifier = identifier_of(Some(wire));
                let hash = IdentifierHash::of(&PEPPER, &identifier);
                let Answer::VerifiedClaim(claim) = self.ask(&Query::VerifiedClaim(hash)) else {
                    panic!("not an answer to the query")
                };
                let signed = lookup_recovery(Recoverable::Identifier(&identifier));
                (claim.map(|(box_id, _)| box_id), signed)
            }
        };
        let key = request.recovery_key[..].try_into().unwrap();
        let signature = request.signature[..].try_into().unwrap();
        assert!(rossby_domain::chain::verify_signature(
            &key, &signed, &signature
        ));
        let box_id = box_id.ok_or_else(not_recoverable)?;
        let record = self.state.lock().tables.key_record(&box_id).unwrap();
        let record = record.filter(|record| record.genesis().recovery_key == key);
        Ok(v1::LookupRecoveryResponse {
            box_id: Bytes::copy_from_slice(box_id.as_bytes()),
            key_record: record.ok_or_else(not_recoverable)?.encode().into(),
        }
        .encode_to_vec())
    }

    fn recover(&self, request: v1::RecoverRequest) -> Result<Vec<u8>, WireError> {
        let key = request.signing_key[..].try_into().unwrap();
        let (box_id, device) = (box_of(&request.box_id), DeviceId::of_key(&key));
        let kem = KemKey::decode(&request.kem_key).unwrap();
        let statement = rossby_domain::statement::recover(&box_id, &device, &kem.public);
        let signature = request.signature[..].try_into().unwrap();
        assert!(rossby_domain::chain::verify_signature(
            &key, &statement, &signature
        ));
        let address = DeviceAddress { box_id, device };
        let links = request.links.iter();
        let links = links.map(|link| Link::decode(link).unwrap()).collect();
        let recover = command::Recover {
            device: address,
            links,
            kem,
        };
        match self.apply(Command::Recover(recover)) {
            Ok(Outcome::BoxJoined { .. }) => {
                let claim = command::ClaimDevice { device, box_id };
                self.apply(Command::ClaimDevice(claim)).unwrap();
                Ok(self.welcome(address))
            }
            Err(Rejection::ChainChanged { .. }) => Err(refused("CHAIN_CHANGED", Retry::Changed)),
            Err(Rejection::DeviceRevoked) => Err(refused("DEVICE_REVOKED", Retry::No)),
            other => panic!("{other:?}"),
        }
    }

    fn delete_account(&self, caller: DeviceAddress, request: &v1::DeleteAccountRequest) -> Vec<u8> {
        let box_id = caller.box_id;
        let signed = rossby_domain::statement::delete_account(&box_id, &caller.device);
        self.assert_signed(caller, &signed, &request.signature);
        let delete = command::DeleteBox { device: caller };
        let Ok(Outcome::BoxDeleted { leaving }) = self.apply(Command::DeleteBox(delete)) else {
            panic!("not deleted")
        };
        for (identifier, generation) in leaving {
            let release = command::ReleaseClaim {
                identifier,
                box_id,
                generation,
            };
            self.apply(Command::ReleaseClaim(release)).unwrap();
            let drop = command::DropIdentifier {
                box_id,
                identifier,
                generation,
            };
            self.apply(Command::DropIdentifier(drop)).unwrap();
        }
        v1::DeleteAccountResponse {}.encode_to_vec()
    }

    /// What a device is told that has its place.
    fn welcome(&self, address: DeviceAddress) -> Vec<u8> {
        let (record, encapsulated_key, sealed_token) = self.issue(address);
        let response = v1::JoinBoxResponse {
            box_id: Bytes::copy_from_slice(address.box_id.as_bytes()),
            key_record: record.encode().into(),
            encapsulated_key,
            sealed_token,
            hawk_host: HOST.to_owned(),
        };
        response.encode_to_vec()
    }

    fn lookup(
        &self,
        caller: DeviceAddress,
        request: v1::LookupKeyRequest,
    ) -> Result<Vec<u8>, WireError> {
        let box_id = match request.by.unwrap() {
            By::Identifier(identifier) => {
                let hash = IdentifierHash::of(&PEPPER, &identifier_of(Some(identifier)));
                let led = self.state.lock().led.get(&hash).copied();
                match self.ask(&Query::ResolveIdentifier(hash)) {
                    Answer::ResolvedIdentifier(found) => led.or(found),
                    other => panic!("{other:?}"),
                }
            }
            By::DeviceId(device) => {
                let device = DeviceId::from_bytes(device[..].try_into().unwrap());
                match self.ask(&Query::ResolveDevice(device)) {
                    Answer::ResolvedDevice(found) => found,
                    other => panic!("{other:?}"),
                }
            }
            By::BoxId(box_id) => Some(box_of(&box_id)),
        };
        let no_user = || refused("NO_USER", Retry::No);
        let box_id = box_id.ok_or_else(no_user)?;
        let Answer::KeyRecord(found) = self.ask(&Query::KeyRecord {
            box_id,
            sender: caller,
        }) else {
            panic!("not an answer to the query")
        };
        let found = found.ok_or_else(no_user)?;
        let record = self
            .state
            .lock()
            .shown
            .get(&box_id)
            .cloned()
            .unwrap_or(found.record);
        let claimed = self.state.lock().next_counter;
        let profile = request.profile_after.and_then(|after| {
            let sender = caller.box_id;
            let query = Query::SealedProfile {
                box_id,
                sender,
                after,
            };
            match self.ask(&query) {
                Answer::SealedProfile(found) => found,
                other => panic!("{other:?}"),
            }
        });
        let profile = self.state.lock().profile_shown.clone().or(profile);
        let response = v1::LookupKeyResponse {
            box_id: Bytes::copy_from_slice(box_id.as_bytes()),
            key_record: record.encode().into(),
            next_counter: claimed.unwrap_or(found.next_counter.0),
            profile_version: profile.as_ref().map_or(0, |shown| shown.version),
            sealed_profile: profile.map(|shown| shown.sealed).unwrap_or_default(),
        };
        Ok(response.encode_to_vec())
    }

    fn send(&self, caller: DeviceAddress, request: v1::SendRequest) -> Vec<u8> {
        let outcomes = request.envelopes.into_iter().map(|envelope| {
            let recipient = box_of(&envelope.recipient_box_id);
            let chain_version = envelope.chain_version;
            let ttl_ms = envelope.ttl_ms;
            let digest = EnvelopeDigest::of(&recipient, chain_version, ttl_ms, &envelope.body);
            let counter = Counter(envelope.counter);
            let enqueue = command::Enqueue {
                recipient,
                id: EnvelopeId {
                    sender: caller,
                    counter,
                },
                chain_version,
                ttl_ms,
                digest,
                body: envelope.body,
            };
            let counted = self.state.lock().rate.as_mut().map_or(Ok(()), Rate::count);
            let result = match counted.map(|()| self.apply(Command::Enqueue(enqueue))) {
                Ok(Ok(Outcome::Enqueued { sequence })) => {
                    send_outcome::Result::Sequence(sequence.0)
                }
                Ok(Ok(other)) => panic!("{other:?}"),
                Ok(Err(rejection)) => {
                    send_outcome::Result::Refusal(self.outcome(&recipient, &rejection))
                }
                Err(wait) => send_outcome::Result::Refusal(v1::Refusal {
                    code: "RATE_LIMITED".to_owned(),
                    retry: v1::Retry::Same.into(),
                    retry_after_ms: u64::try_from(wait.as_millis()).ok(),
                    ..Default::default()
                }),
            };
            v1::SendOutcome {
                recipient_box_id: envelope.recipient_box_id,
                counter: counter.0,
                result: Some(result),
            }
        });
        v1::SendResponse {
            outcomes: outcomes.collect(),
        }
        .encode_to_vec()
    }

    fn outcome(&self, recipient: &BoxId, rejection: &Rejection) -> v1::Refusal {
        let (code, retry, next) = match rejection {
            Rejection::UnknownBox => ("UNKNOWN_RECIPIENT", v1::Retry::No, None),
            Rejection::StaleKeyRecord { .. } => ("STALE_KEY_RECORD", v1::Retry::Changed, None),
            Rejection::CounterReused { next } => ("COUNTER_REUSED", v1::Retry::Changed, Some(next)),
            Rejection::NotAccepted { next } => ("NOT_ACCEPTED", v1::Retry::Changed, Some(next)),
            Rejection::CounterForgotten { next } => {
                ("COUNTER_FORGOTTEN", v1::Retry::Changed, Some(next))
            }
            Rejection::QueueFull => ("QUEUE_FULL", v1::Retry::Same, None),
            Rejection::SenderShareFull => ("SENDER_SHARE_FULL", v1::Retry::Same, None),
            other => panic!("{other:?}"),
        };
        let record = self.state.lock().tables.key_record(recipient).unwrap();
        let key_record = record.filter(|_| code == "STALE_KEY_RECORD");
        v1::Refusal {
            code: code.to_owned(),
            message: code.to_lowercase(),
            retry: retry.into(),
            retry_after_ms: None,
            key_record: key_record.map(|record| record.encode().into()),
            next_counter: next.map(|counter| counter.0),
        }
    }

    pub(super) fn fetch(&self, caller: DeviceAddress, request: &v1::FetchRequest) -> Vec<u8> {
        let (max_envelopes, tampering) = {
            let state = self.state.lock();
            (state.page, state.tampering.clone())
        };
        let after = Sequence(request.after);
        let query = Query::Fetch {
            device: caller,
            after,
            max_envelopes,
            max_bytes: 1 << 20,
        };
        let Answer::Page(Some(page)) = self.ask(&query) else {
            panic!("no page")
        };
        let envelopes = page.envelopes.into_iter().map(|envelope| v1::Envelope {
            sequence: envelope.sequence.0,
            sender_box_id: Bytes::copy_from_slice(envelope.id.sender.box_id.as_bytes()),
            sender_device_id: Bytes::copy_from_slice(envelope.id.sender.device.as_bytes()),
            counter: envelope.id.counter.0,
            enqueued_at_ms: envelope.enqueued_at.as_millis(),
            expires_at_ms: envelope.expires_at.as_millis(),
            body: envelope.body,
        });
        let status = v1::QueueStatus {
            depth: page.status.depth,
            last: page.status.last.0,
            cursor: page.status.cursor.0,
            bytes: page.status.bytes,
            oldest_at_ms: page.status.oldest.map(|at| at.as_millis()),
            expired_total: page.status.expired_total,
            ttl_ms: page.status.ttl_ms,
            suspended: page.status.suspended,
            reset_at_ms: page.status.reset_at.map(|at| at.as_millis()),
            ttl_number: page.status.ttl_number,
        };
        let envelopes = envelopes.collect();
        let mut response = v1::FetchResponse {
            envelopes,
            signals: Vec::new(),
            more: page.more,
            status: Some(status),
        };
        if let Some(tampering) = tampering {
            tampering(&mut response);
        }
        response.encode_to_vec()
    }

    /// Does what is asked, and answers.
    pub(super) fn dispatch(
        &self,
        call: &Caller,
        exchange: &Exchange<'_>,
    ) -> Result<Vec<u8>, WireError> {
        let message = exchange.message.clone();
        let name = exchange.path.rsplit('/').next().unwrap();
        let caller = || {
            call.address
                .ok_or_else(|| refused("UNAUTHENTICATED", Retry::Changed))
        };
        Ok(match name {
            "Register" => self.register(v1::RegisterRequest::decode(message).unwrap())?,
            "Authorize" => self.authorize(v1::AuthorizeRequest::decode(message).unwrap())?,
            "JoinBox" => self.join_box(v1::JoinBoxRequest::decode(message).unwrap())?,
            "LookupRecovery" => {
                let request = v1::LookupRecoveryRequest::decode(message).unwrap();
                self.lookup_recovery(request)?
            }
            "Recover" => self.recover(v1::RecoverRequest::decode(message).unwrap())?,
            "ExtendChain" => {
                let request = v1::ExtendChainRequest::decode(message).unwrap();
                self.extend_chain(caller()?, request)?
            }
            "LookupKey" => {
                self.lookup(caller()?, v1::LookupKeyRequest::decode(message).unwrap())?
            }
            "AddIdentifier" => {
                let request = v1::AddIdentifierRequest::decode(message).unwrap();
                self.add_identifier(caller()?, request)?
            }
            "RemoveIdentifier" => {
                let request = v1::RemoveIdentifierRequest::decode(message).unwrap();
                self.remove_identifier(caller()?, request)?
            }
            "SetProfile" => {
                let request = v1::SetProfileRequest::decode(message).unwrap();
                self.set_profile(caller()?, request)?
            }
            "Notify" => self.notify(caller()?, v1::NotifyRequest::decode(message).unwrap()),
            "ListIdentifiers" => self.list_identifiers(caller()?),
            "KeepIdentifier" => {
                let request = v1::KeepIdentifierRequest::decode(message).unwrap();
                self.keep_identifier(caller()?, request)?
            }
            "DeleteAccount" => {
                let request = v1::DeleteAccountRequest::decode(message).unwrap();
                self.delete_account(caller()?, &request)
            }
            "Send" => self.send(caller()?, v1::SendRequest::decode(message).unwrap()),
            "Fetch" => self.fetch(caller()?, &v1::FetchRequest::decode(message).unwrap()),
            "Acknowledge" => {
                let upto = Sequence(v1::AcknowledgeRequest::decode(message).unwrap().upto);
                let acknowledge = command::Acknowledge {
                    device: caller()?,
                    upto,
                };
                match self.apply(Command::Acknowledge(acknowledge)) {
                    Ok(Outcome::Acknowledged { cursor, .. }) => {
                        v1::AcknowledgeResponse { cursor: cursor.0 }.encode_to_vec()
                    }
                    _ => return Err(refused("BEYOND_QUEUE", Retry::No)),
                }
            }
            "UpdateKey" => {
                let request = v1::UpdateKeyRequest::decode(message).unwrap();
                let update = command::UpdateKey {
                    device: caller()?,
                    kem: KemKey::decode(&request.kem_key).unwrap(),
                };
                match self.apply(Command::UpdateKey(update)) {
                    Ok(Outcome::KeyUpdated { last }) => {
                        v1::UpdateKeyResponse { last: last.0 }.encode_to_vec()
                    }
                    Err(Rejection::KeyCounterUsed { .. }) => {
                        return Err(refused("KEY_COUNTER_USED", Retry::Changed));
                    }
                    other => panic!("{other:?}"),
                }
            }
            "Block" => {
                let request = v1::BlockRequest::decode(message).unwrap();
                let (box_id, other) = (caller()?.box_id, box_of(&request.box_id));
                let block = command::Block {
                    box_id,
                    other,
                    blocked: request.blocked,
                };
                self.apply(Command::Block(block)).unwrap();
                v1::BlockResponse {}.encode_to_vec()
            }
            "SetTtl" => {
                let request = v1::SetTtlRequest::decode(message).unwrap();
                let caller = caller()?;
                let DeviceAddress { box_id, device } = caller;
                let (ttl_ms, number) = (request.ttl_ms, request.number);
                let signed = statement::set_ttl(&box_id, &device, ttl_ms, number);
                self.assert_signed(caller, &signed, &request.signature);
                let set = command::SetTtl {
                    box_id,
                    longest_ms: request.ttl_ms,
                    number: request.number,
                };
                match self.apply(Command::SetTtl(set)) {
                    Ok(Outcome::TtlSet { ttl_ms }) => v1::SetTtlResponse { ttl_ms }.encode_to_vec(),
                    Err(Rejection::TtlNumberUsed { .. }) => {
                        return Err(refused("TTL_NUMBER_USED", Retry::Changed));
                    }
                    other => panic!("{other:?}"),
                }
            }
            "Accept" => {
                let request = v1::AcceptRequest::decode(message).unwrap();
                let boxes = |listed: Vec<Bytes>| listed.iter().map(|one| box_of(one)).collect();
                let accept = command::Accept {
                    box_id: caller()?.box_id,
                    contacts_only: request.contacts_only,
                    allow: boxes(request.allow),
                    disallow: boxes(request.disallow),
                };
                match self.apply(Command::Accept(accept)) {
                    Ok(Outcome::AcceptChanged { contacts_only }) => {
                        v1::AcceptResponse { contacts_only }.encode_to_vec()
                    }
                    _ => return Err(refused("TOO_MANY_ALLOWED", Retry::No)),
                }
            }
            other => panic!("{other}"),
        })
    }
}
