//! What a device asks for, as the judges see it.

use bytes::Bytes;
use prost::Message as _;
use rossby_api::RpcPath;
use rossby_domain::chain::{Change, Link};
use rossby_domain::identifier::{Identifier, IdentifierHash};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Sequence};
use rossby_proto::v1;

use super::DeviceWire;
use crate::observe::{Digest, Request};

impl DeviceWire {
    /// What a request asks for: one for each envelope of a Send.
    pub(super) fn requests(&self, path: RpcPath, message: &Bytes) -> Vec<Request> {
        let read = match path {
            RpcPath::Send => self.sends(message),
            RpcPath::Fetch => self.fetch(message).map(|request| vec![request]),
            RpcPath::Acknowledge => self.acknowledge(message).map(|request| vec![request]),
            RpcPath::Authorize => self.verify(message).map(|request| vec![request]),
            RpcPath::KeepIdentifier => self.keep(message).map(|request| vec![request]),
            RpcPath::LookupKey => self.lookup(message).map(|request| vec![request]),
            RpcPath::SetTtl => self.set_ttl(message).map(|request| vec![request]),
            RpcPath::Block => self.block(message).map(|request| vec![request]),
            RpcPath::DeleteAccount => {
                let device = self.address.get().copied();
                device.map(|device| vec![Request::DeleteAccount { device }])
            }
            RpcPath::JoinBox => joins(path, message).map(|device| vec![Request::Join { device }]),
            RpcPath::Recover => recover(message),
            RpcPath::ExtendChain => self.revoke(message).map(|request| vec![request]),
            _ => None,
        };
        read.unwrap_or_else(|| vec![Request::Other(path.name().to_owned())])
    }

    fn sends(&self, message: &Bytes) -> Option<Vec<Request>> {
        let sender = *self.address.get()?;
        let request = v1::SendRequest::decode(message.clone()).ok()?;
        let one = |envelope: v1::OutgoingEnvelope| {
            Some(Request::Send {
                to: box_id(&envelope.recipient_box_id)?,
                id: EnvelopeId {
                    sender,
                    counter: Counter(envelope.counter),
                },
                text: Digest::of(&envelope.body),
                ttl_ms: envelope.ttl_ms,
            })
        };
        request.envelopes.into_iter().map(one).collect()
    }

    fn fetch(&self, message: &Bytes) -> Option<Request> {
        let request = v1::FetchRequest::decode(message.clone()).ok()?;
        Some(Request::Fetch {
            device: *self.address.get()?,
            after: Sequence(request.after),
        })
    }

    fn acknowledge(&self, message: &Bytes) -> Option<Request> {
        let request = v1::AcknowledgeRequest::decode(message.clone()).ok()?;
        Some(Request::Acknowledge {
            device: *self.address.get()?,
            upto: Sequence(request.upto),
        })
    }

    pub(super) fn verify(&self, message: &Bytes) -> Option<Request> {
        let request = v1::AuthorizeRequest::decode(message.clone()).ok()?;
        Some(Request::Verify {
            identifier: self.identifier(request.identifier?)?,
            box_id: box_id(&request.box_id)?,
            reset: request.reset,
        })
    }

    fn keep(&self, message: &Bytes) -> Option<Request> {
        let request = v1::KeepIdentifierRequest::decode(message.clone()).ok()?;
        Some(Request::Keep {
            device: *self.address.get()?,
            identifier: self.identifier(request.identifier?)?,
        })
    }

    fn block(&self, message: &Bytes) -> Option<Request> {
        let request = v1::BlockRequest::decode(message.clone()).ok()?;
        Some(Request::Block {
            device: *self.address.get()?,
            other: box_id(&request.box_id)?,
            blocked: request.blocked,
        })
    }

    fn set_ttl(&self, message: &Bytes) -> Option<Request> {
        let request = v1::SetTtlRequest::decode(message.clone()).ok()?;
        Some(Request::SetTtl {
            device: *self.address.get()?,
            ttl_ms: request.ttl_ms,
        })
    }

    fn lookup(&self, message: &Bytes) -> Option<Request> {
        use v1::lookup_key_request::By;
        let sender = *self.address.get()?;
        match v1::LookupKeyRequest::decode(message.clone()).ok()?.by? {
            By::Identifier(identifier) => Some(Request::Lookup {
                by: sender.box_id,
                identifier: self.identifier(identifier)?,
            }),
            By::BoxId(bytes) => Some(Request::KeyRecord {
                box_id: box_id(&bytes)?,
                sender,
            }),
            By::DeviceId(_) => None,
        }
    }

    /// A link that removes a device.
    fn revoke(&self, message: &Bytes) -> Option<Request> {
        let request = v1::ExtendChainRequest::decode(message.clone()).ok()?;
        match Link::decode(&request.link).ok()?.change {
            Change::RemoveDevice { device } => Some(Request::Revoke {
                device: DeviceAddress {
                    box_id: self.address.get()?.box_id,
                    device,
                },
            }),
            Change::AddDevice { .. } => None,
        }
    }

    fn identifier(&self, identifier: v1::Identifier) -> Option<IdentifierHash> {
        use v1::identifier::Kind;
        let identifier = match identifier.kind? {
            Kind::Phone(text) => Identifier::phone(&text).ok()?,
            Kind::Email(text) => Identifier::email(&text).ok()?,
        };
        Some(self.common.secrets.identifier_hash(&identifier))
    }
}

/// The device that asks for a place in a box, if that is what is asked for.
pub(super) fn joins(path: RpcPath, message: &Bytes) -> Option<DeviceId> {
    let key = match path {
        RpcPath::JoinBox => {
            let request = v1::JoinBoxRequest::decode(message.clone()).ok()?;
            request.signing_key
        }
        RpcPath::Recover => {
            let request = v1::RecoverRequest::decode(message.clone()).ok()?;
            request.signing_key
        }
        _ => return None,
    };
    Some(DeviceId::of_key(&key[..].try_into().ok()?))
}

/// The removals by a recovery key, and then the place of the device that it adds.
fn recover(message: &Bytes) -> Option<Vec<Request>> {
    let device = joins(RpcPath::Recover, message)?;
    let request = v1::RecoverRequest::decode(message.clone()).ok()?;
    let box_id = box_id(&request.box_id)?;
    let mut requests = Vec::new();
    for link in request.links {
        if let Change::RemoveDevice { device } = Link::decode(&link).ok()?.change {
            let device = DeviceAddress { box_id, device };
            requests.push(Request::Revoke { device });
        }
    }
    requests.push(Request::Join { device });
    Some(requests)
}

pub(super) fn box_id(bytes: &[u8]) -> Option<BoxId> {
    BoxId::from_bytes(bytes.try_into().ok()?).ok()
}
