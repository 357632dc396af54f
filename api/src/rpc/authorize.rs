//! Authorize: proves the identifier with the code; the answer holds the device's token, sealed.
//!
//! Two idempotent commands: the claim is verified in the identifier's partition, then the box is
//! activated in its own. They may be in two groups; it runs at the node where it arrives. If the second
//! is lost, a retry at any node or the finisher does it. A box that is active has one more identifier then
//! ([`super::add_identifier()`]); its devices' tokens stay what they are. An identifier that comes from another box
//! takes its time ([`super::resetting`]), and comes only to a box that is not active yet: to one that is, `reset` says
//! nothing.

use bytes::Bytes;
use rossby_domain::chain::{KeyRecord, verify_signature};
use rossby_domain::command::{ActivateBox, VerifyClaim};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{DeviceAddress, PartitionId};
use rossby_domain::query::BoxStateAnswer;
use rossby_domain::{Answer, Command, Outcome, Query, statement};
use rossby_proto::v1;

use super::resetting::Resetting;
use super::token;
use crate::call::Call;
use crate::convert;
use crate::error::{ApiError, Code};
use crate::mailbox::{Failure, MailboxService, unexpected_answer, unexpected_outcome};

/// Longer than any code, short enough to hash.
const MAX_CODE_BYTES: usize = 16;

struct Authorization {
    address: DeviceAddress,
    home: PartitionId,
    identifier: Identifier,
    code: String,
    signature: [u8; 64],
    reset: bool,
}

pub(crate) async fn authorize(service: &MailboxService, call: &Call) -> Result<Bytes, Failure> {
    let authorization = parse(service, convert::decode(&call.message)?)?;
    let BoxStateAnswer { record, active } = verify(service, call, &authorization).await?;
    check_listed(service, call, &authorization).await?;
    let generation = verify_claim(service, call, &authorization, active).await?;
    let token_generation = activate(service, call, &authorization, generation).await?;
    if authorization.reset {
        let (secrets, box_id) = (&service.config.secrets, authorization.address.box_id);
        let identifier = secrets.identifier_hash(&authorization.identifier);
        // The box has it, whatever comes of this.
        let _ = Resetting { identifier, box_id }.settle(service, call).await;
    }
    let address = &authorization.address;
    Ok(seal_token(service, address, &record, token_generation)?)
}

fn parse(
    service: &MailboxService,
    request: v1::AuthorizeRequest,
) -> Result<Authorization, ApiError> {
    let address = DeviceAddress {
        box_id: convert::box_id(&request.box_id)?,
        device: convert::device_id(&request.device_id)?,
    };
    if request.code.len() > MAX_CODE_BYTES {
        return Err(ApiError::invalid("code is longer than a code can be"));
    }
    let home = service.home(&address.box_id)?;
    let (home, _) = home.ok_or(Code::NoCodeRequested)?;
    Ok(Authorization {
        address,
        home,
        identifier: convert::identifier(request.identifier.as_ref())?,
        code: request.code,
        signature: convert::fixed(&request.signature, "signature is not 64 bytes")?,
        reset: request.reset,
    })
}

/// The box's key record, and whether it is active, once the device has shown that it is one of the record's. That there is no
/// such box, that it has no such device, and that another has signed are one answer: nobody else
/// learns whether a box is there, least of all whom it blocks.
async fn verify(
    service: &MailboxService,
    call: &Call,
    authorization: &Authorization,
) -> Result<BoxStateAnswer, ApiError> {
    let Authorization {
        address,
        home,
        identifier,
        code,
        signature,
        reset,
    } = authorization;
    let query = Query::BoxState(address.box_id);
    let Answer::BoxState(state) = service.ask(*home, query, call.deadline).await? else {
        return Err(unexpected_answer("BoxState"));
    };
    let state = state.ok_or(Code::NoCodeRequested)?;
    let key = state
        .record
        .signing_key(&address.device)
        .ok_or(Code::NoCodeRequested)?;
    let says = if *reset {
        statement::reset
    } else {
        statement::authorize
    };
    let signed = says(&address.box_id, &address.device, identifier, code);
    if !verify_signature(key, &signed, signature) {
        return Err(Code::NoCodeRequested.into());
    }
    Ok(state)
}

/// Refuses an identifier that the box does not list (any more), which the box could not be said to have.
async fn check_listed(
    service: &MailboxService,
    call: &Call,
    authorization: &Authorization,
) -> Result<(), ApiError> {
    let secrets = &service.config.secrets;
    let identifier = secrets.identifier_hash(&authorization.identifier);
    let query = Query::Identifiers(authorization.address.box_id);
    match service
        .ask(authorization.home, query, call.deadline)
        .await?
    {
        Answer::Identifiers(listed) if listed.iter().any(|listed| listed.hash == identifier) => {
            Ok(())
        }
        Answer::Identifiers(_) => Err(Code::NoCodeRequested.into()),
        _ => Err(unexpected_answer("Identifiers")),
    }
}

/// Checks the code; the generation of the verified claim.
async fn verify_claim(
    service: &MailboxService,
    call: &Call,
    authorization: &Authorization,
    is_active: bool,
) -> Result<u64, ApiError> {
    let (secrets, box_id) = (&service.config.secrets, authorization.address.box_id);
    let identifier = secrets.identifier_hash(&authorization.identifier);
    let code = secrets.code_mac(&identifier, &box_id, &authorization.code);
    if authorization.reset && !is_active {
        let resetting = Resetting { identifier, box_id };
        return resetting.prove(service, call, code).await;
    }
    let command = Command::VerifyClaim(VerifyClaim {
        identifier,
        box_id,
        code,
    });
    let partition = identifier.partition(service.config.partitions);
    let changing = service.change(partition, command, Code::NoCodeRequested, call.deadline);
    match changing.await? {
        Outcome::ClaimVerified { generation } => Ok(generation),
        other => Err(unexpected_outcome(&other)),
    }
}

/// Authorises box and device; the generation of the device's token.
async fn activate(
    service: &MailboxService,
    call: &Call,
    authorization: &Authorization,
    generation: u64,
) -> Result<u64, ApiError> {
    let command = Command::ActivateBox(ActivateBox {
        box_id: authorization.address.box_id,
        device: authorization.address.device,
        identifier: service
            .config
            .secrets
            .identifier_hash(&authorization.identifier),
        generation,
    });
    let home = authorization.home;
    let changing = service.change(home, command, Code::NoCodeRequested, call.deadline);
    match changing.await? {
        Outcome::BoxActivated { token_generation } => Ok(token_generation),
        other => Err(unexpected_outcome(&other)),
    }
}

fn seal_token(
    service: &MailboxService,
    address: &DeviceAddress,
    record: &KeyRecord,
    generation: u64,
) -> Result<Bytes, ApiError> {
    let config = &service.config;
    let keys = record.device(&address.device);
    let keys = keys.ok_or_else(|| ApiError::internal("a box's device has no KEM key"))?;
    let token = config.secrets.token(address, generation);
    let sealed = token::seal(config.random.as_ref(), &keys.kem.public, address, &token)?;
    Ok(convert::encode(&v1::AuthorizeResponse {
        encapsulated_key: sealed.encapsulated_key,
        sealed_token: sealed.ciphertext,
        hawk_host: config.cluster_name.clone(),
    }))
}
