//! Recover: a device takes its place in a box by the box's recovery key, which signs it into the chain and may sign
//! others out of it.
//!
//! It runs at the node where it arrives; the box's partition does all of it in one command. Nobody vouches for the
//! caller but the signatures, so it looks first: nothing is written that changes nothing. What the recovery key
//! has not signed is answered like a box that is not there.

use bytes::Bytes;
use rossby_domain::chain::{KemKey, KeyRecord, Link, SigningPublicKey, verify_signature};
use rossby_domain::command::{MAX_RECOVERY_LINKS, Recover};
use rossby_domain::ids::{DeviceAddress, DeviceId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_domain::{Command, Outcome, statement};
use rossby_proto::v1;

use super::join_box::{bind, good_token, kem_key, welcome};
use super::lookup_recovery::record;
use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_outcome};

/// The number of `links` in `RecoverRequest`.
const LINKS_TAG: usize = 2;

/// A request that was read and whose device's signatures hold. Its links are judged by the chain.
pub(crate) struct Recovery {
    address: DeviceAddress,
    links: Vec<Link>,
    kem: KemKey,
}

pub(crate) async fn recover(service: &MailboxService, call: &Call) -> Result<Bytes, Failure> {
    let Recovery {
        address,
        links,
        kem,
    } = parse_and_verify(&call.message)?;
    let home = service.home(&address.box_id)?;
    let (home, _) = home.ok_or(Code::NotRecoverable)?;
    let before = record(service, call, home, address.box_id).await?;
    let command = Recover {
        device: address,
        links,
        kem: kem.clone(),
    };
    let standing = match check(&command, &before)? {
        Some(_) => None,
        None => good_token(service, call, home, address).await?,
    };
    let (record, generation) = match standing {
        Some(generation) => (before, generation),
        None => {
            bind(service, call, address).await?;
            let generation = take_place(service, call, home, command).await?;
            let record = record(service, call, home, address.box_id).await?;
            (record, generation)
        }
    };
    Ok(welcome(service, &address, &kem, (&record, generation))?)
}

pub(crate) fn parse_and_verify(message: &Bytes) -> Result<Recovery, ApiError> {
    if convert::count_fields(message, LINKS_TAG)? > MAX_RECOVERY_LINKS {
        return Err(ApiError::invalid(
            "there are more links than a recovery has",
        ));
    }
    let request: v1::RecoverRequest = convert::decode(message)?;
    let key: SigningPublicKey = convert::fixed(&request.signing_key, "signing_key is no key")?;
    let signature = convert::fixed(&request.signature, "signature is not 64 bytes")?;
    let kem = kem_key(&request.kem_key)?;
    let not_a_link = |_| ApiError::invalid("a link is not a chain's link");
    let links = request.links.iter().map(|link| Link::decode(link));
    let links = links.collect::<Result<_, _>>().map_err(not_a_link)?;
    let (box_id, device) = (convert::box_id(&request.box_id)?, DeviceId::of_key(&key));
    let signed = statement::recover(&box_id, &device, &kem.public);
    if !verify_signature(&key, &signed, &signature) || !kem.is_signed_by(&key) {
        return Err(Code::BadSignature.into());
    }
    let address = DeviceAddress { box_id, device };
    Ok(Recovery {
        address,
        links,
        kem,
    })
}

/// The record as it would be; `None` if it is so already.
fn check(command: &Recover, record: &KeyRecord) -> Result<Option<KeyRecord>, ApiError> {
    let recovery_key = &record.genesis().recovery_key;
    let signed = |link: &Link| {
        let Link {
            version,
            previous,
            change,
            signer,
            signature,
        } = link;
        let bytes = Link::signed_bytes(*version, previous, change, signer);
        verify_signature(recovery_key, &bytes, signature)
    };
    if command.links.is_empty() || !command.links.iter().all(signed) {
        return Err(Code::NotRecoverable.into());
    }
    command.over(record).map_err(|rejection| {
        // No time is told with any of these.
        let (unknown, now) = (Code::NotRecoverable, Timestamp::default());
        ApiError::of_rejection(&rejection, unknown, now)
    })
}

/// Gives the device its place; the generation of its token.
async fn take_place(
    service: &MailboxService,
    call: &Call,
    home: PartitionId,
    command: Recover,
) -> Result<u64, ApiError> {
    let command = Command::Recover(command);
    let changing = service.change(home, command, Code::NotRecoverable, call.deadline);
    match changing.await? {
        Outcome::BoxJoined { token_generation } => Ok(token_generation),
        other => Err(unexpected_outcome(&other)),
    }
}
