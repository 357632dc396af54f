//! What Register and AddIdentifier have in common: the identifier, sealed for the box's own profile, and its
//! claim with a code that waits for the courier.

use bytes::Bytes;
use rossby_domain::command::{OpenClaim, OpenReset};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::BoxId;
use rossby_domain::{Command, Outcome};

use super::code::{self, SealedCode, code_context};
use crate::call::Call;
use crate::courier::Kind;
use crate::error::{ApiError, Code};
use crate::mailbox::{MailboxService, unexpected_outcome};
use crate::secrets::SealPurpose;

/// Refuses an identifier that no courier reaches, before anything is promised.
pub(super) fn check_reach(
    service: &MailboxService,
    identifier: &Identifier,
) -> Result<(), ApiError> {
    let kind = Kind::of(identifier);
    if service.config.courier.name(kind).is_some() {
        return Ok(());
    }
    let detail = match kind {
        Kind::Phone => "this service can't send codes to phones; register an email address",
        Kind::Email => "this service can't send codes by email; register a phone number",
    };
    Err(ApiError::from(Code::NoCourier).with_detail(detail))
}

/// Counts that somebody asks for a code, with a box or without. Where a call comes from is not always known.
pub(super) fn count_code(
    service: &MailboxService,
    asker: Option<&BoxId>,
    call: &Call,
) -> Result<(), ApiError> {
    let counted = service.rates.code(asker, call.remote.map(Into::into));
    counted.map_err(|too_often| service.too_often(too_often, Code::TooManyCodes))
}

/// The identifier as a box lists it: the service can read it, its tables can't.
pub(super) fn seal_identifier(
    service: &MailboxService,
    identifier: &Identifier,
    box_id: &BoxId,
) -> Result<Bytes, ApiError> {
    let config = &service.config;
    let hash = config.secrets.identifier_hash(identifier);
    config
        .secrets
        .seal(
            config.random.as_ref(),
            SealPurpose::Identifier,
            &code_context(&hash, box_id),
            identifier.as_str().as_bytes(),
        )
        .map_err(|error| ApiError::internal(error.to_string()))
}

/// Opens the claim, with a new code that waits for the courier; with `reset`, also to what may be another box's.
pub(super) async fn open_claim(
    service: &MailboxService,
    call: &Call,
    (identifier, discoverable): (&Identifier, bool),
    box_id: BoxId,
    reset: bool,
) -> Result<(), ApiError> {
    let config = &service.config;
    let random = config.random.as_ref();
    let hash = config.secrets.identifier_hash(identifier);
    let code = code::draw(random)
        .map_err(|error| ApiError::internal(error.to_string()))?
        .ok_or_else(|| ApiError::internal("the source of randomness is stuck"))?;
    let sealed = SealedCode {
        identifier: identifier.clone(),
        code,
    };
    let context = code_context(&hash, &box_id);
    let sealed_code = config
        .secrets
        .seal(random, SealPurpose::Code, &context, &sealed.encode())
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let command = OpenClaim {
        identifier: hash,
        box_id,
        discoverable,
        code: config.secrets.code_mac(&hash, &box_id, &sealed.code),
        sealed_code,
    };
    let partition = hash.partition(config.partitions);
    let command = if reset {
        Command::OpenReset(OpenReset(command))
    } else {
        Command::OpenClaim(command)
    };
    let changing = service.change(partition, command, Code::Internal, call.deadline);
    match changing.await? {
        Outcome::ClaimOpened => Ok(()),
        other => Err(unexpected_outcome(&other)),
    }
}
