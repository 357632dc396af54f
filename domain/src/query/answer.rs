//! Answering.

use bytes::Bytes;

use super::{
    Answer, BoxStateAnswer, BoxView, KeyRecordAnswer, OutboxItem, Page, PendingBox, Query,
    QueueStatus, REPORTS_COUNTED, ReportedBox,
};
use crate::envelope::Envelope;
use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, DeviceAddress, Sequence};
use crate::planted::{Bug, planted};
use crate::profile::{DeviceState, Profile, SealedProfile};
use crate::tables::{InboxKey, Meta, QueueState, ReadTables};
use crate::time::Timestamp;

/// How many envelopes are read at a time while looking for those that have not expired.
const READ_ENVELOPES: u32 = 256;
/// How many bytes of bodies are read at a time.
const READ_BYTES: u64 = 1024 * 1024;

/// Answers a query from a partition's tables, as of `now` or the partition's clocks, whichever is
/// later: what a replica once told has expired never comes back there. Envelopes go by the expiry
/// clock; while expiry is blocked the caller's clock is in doubt, and `now` must be zero.
///
/// # Errors
/// What the tables report: the replica can not go on.
pub fn answer<T: ReadTables>(
    tables: &T,
    now: Timestamp,
    query: &Query,
) -> Result<Answer, T::Error> {
    let meta = tables.meta()?;
    Ok(match query {
        Query::ResolveIdentifier(identifier) => {
            let claim = tables.claim(&InboxKey::Identifier(*identifier))?;
            let found = claim.filter(|claim| claim.discoverable);
            Answer::ResolvedIdentifier(found.map(|claim| claim.box_id))
        }
        Query::ResolveDevice(device) => {
            let claim = tables.claim(&InboxKey::Device(*device))?;
            Answer::ResolvedDevice(claim.map(|claim| claim.box_id))
        }
        Query::BoundDevice(device) => {
            let claim = tables.claim(&InboxKey::Device(*device))?;
            let bound = claim.filter(|claim| !claim.is_offer());
            Answer::ResolvedDevice(bound.map(|claim| claim.box_id))
        }
        Query::KeyRecord { box_id, sender } => {
            Answer::KeyRecord(key_record(tables, box_id, sender)?)
        }
        Query::BoxState(box_id) => Answer::BoxState(box_state(tables, box_id)?),
        Query::DeviceAuth(device) => Answer::DeviceAuth(device_auth(tables, &meta, device)?),
        Query::Fetch {
            device,
            after,
            max_envelopes,
            max_bytes,
        } => {
            let bounds = Bounds {
                envelopes: *max_envelopes,
                bytes: (*max_bytes).into(),
            };
            let expired_by = now.max(meta.expiry_clock);
            Answer::Page(fetch(tables, &meta, expired_by, device, *after, &bounds)?)
        }
        Query::Outbox { after, limit, .. } => {
            let now = now.max(meta.clock);
            Answer::Outbox(outbox(tables, now, after.as_ref(), *limit)?)
        }
        Query::PendingBoxes { after, limit, .. } => {
            Answer::PendingBoxes(pending(tables, &meta, after.as_ref(), *limit)?)
        }
        Query::VerifiedClaim(identifier) => {
            let claim = tables.claim(&InboxKey::Identifier(*identifier))?;
            Answer::VerifiedClaim(claim.map(|claim| (claim.box_id, claim.generation)))
        }
        Query::Ownership(_) => Answer::Ownership {
            epoch: meta.epoch,
            clock: meta.clock,
        },
        Query::NextDue(_) => {
            let first = tables
                .due(Timestamp::from_millis(u64::MAX), 1)?
                .into_iter()
                .next();
            Answer::NextDue(first.map(|(at, _)| at))
        }
        Query::Map => Answer::Map(tables.cluster_map()?.unwrap_or_default()),
        Query::MapHistory { after, limit } => {
            Answer::MapHistory(tables.map_changes(*after, *limit)?)
        }
        Query::Identifiers(box_id) => {
            let profile = tables.profile(box_id)?.unwrap_or_default();
            let mut listed = profile.identifiers;
            listed.retain(|known| !profile.leaving.contains(&known.hash));
            Answer::Identifiers(listed)
        }
        Query::Discoverable { identifier, box_id } => {
            let claim = tables.claim(&InboxKey::Identifier(*identifier))?;
            let own = claim.filter(|claim| claim.box_id == *box_id);
            Answer::Discoverable(own.map(|own| own.discoverable))
        }
        Query::HasHeardFrom { box_id, sender } => {
            Answer::HasHeardFrom(!tables.senders_of(box_id, sender)?.is_empty())
        }
        Query::IsSuspended(box_id) => {
            let profile = tables.profile(box_id)?;
            let is_suspended =
                |profile: Profile| profile.suspended && !planted(Bug::SuspendedSends);
            Answer::IsSuspended(profile.is_none_or(is_suspended))
        }
        Query::BoxView(box_id) => Answer::BoxView(box_view(tables, &meta, box_id)?),
        Query::IsDeleted(box_id) => {
            let profile = tables.profile(box_id)?;
            Answer::IsDeleted(profile.is_some_and(|profile| profile.deleted))
        }
        Query::Resets(box_id) => {
            // By the clock that the reset itself goes by: no jump hides what goes on.
            let now = now.max(meta.expiry_clock);
            let resets = tables.profile(box_id)?.unwrap_or_default().resets;
            let standing = resets.into_iter().filter(|(_, note)| note.stands(now));
            Answer::Resets(standing.collect())
        }
        Query::FormerOwner { identifier, box_id } => {
            let claim = tables.claim(&InboxKey::Identifier(*identifier))?;
            let own = claim.filter(|claim| claim.box_id == *box_id);
            Answer::FormerOwner(own.and_then(|own| own.contest.former))
        }
        Query::SealedProfile {
            box_id,
            sender,
            after,
        } => Answer::SealedProfile(sealed_profile(tables, box_id, sender, *after)?),
        Query::HasReport { box_id, mark } => Answer::HasReport(tables.has_report(box_id, mark)?),
        Query::Reported { after, limit } => {
            let boxes = tables.reported(after.as_ref(), *limit)?.into_iter();
            let seen = boxes.map(|box_id| reported(tables, box_id));
            Answer::Reported(seen.collect::<Result<_, _>>()?)
        }
        Query::JoinTokens => {
            let now = now.max(meta.clock);
            Answer::JoinTokens(tables.admissions()?.tokens(now))
        }
    })
}

fn key_record<T: ReadTables>(
    tables: &T,
    box_id: &BoxId,
    sender: &DeviceAddress,
) -> Result<Option<KeyRecordAnswer>, T::Error> {
    let profile = tables.profile(box_id)?;
    if !profile.is_some_and(|profile| profile.receives_from(box_id, &sender.box_id)) {
        return Ok(None);
    }
    let Some(record) = tables.key_record(box_id)? else {
        return Ok(None);
    };
    let row = tables.sender(box_id, sender)?.unwrap_or_default();
    Ok(Some(KeyRecordAnswer {
        record,
        next_counter: row.last().next(),
    }))
}

fn sealed_profile<T: ReadTables>(
    tables: &T,
    box_id: &BoxId,
    sender: &BoxId,
    after: u64,
) -> Result<Option<SealedProfile>, T::Error> {
    let profile = tables.profile(box_id)?;
    if !profile.is_some_and(|profile| profile.receives_from(box_id, sender)) {
        return Ok(None);
    }
    let shown = tables.sealed_profile(box_id)?;
    Ok(shown.map(|shown| SealedProfile {
        sealed: match shown.version > after {
            true => shown.sealed,
            false => Bytes::new(),
        },
        ..shown
    }))
}

fn box_state<T: ReadTables>(
    tables: &T,
    box_id: &BoxId,
) -> Result<Option<BoxStateAnswer>, T::Error> {
    let (Some(profile), Some(record)) = (tables.profile(box_id)?, tables.key_record(box_id)?)
    else {
        return Ok(None);
    };
    Ok(Some(BoxStateAnswer {
        record,
        active: profile.active,
    }))
}

fn reported<T: ReadTables>(tables: &T, box_id: BoxId) -> Result<ReportedBox, T::Error> {
    Ok(ReportedBox {
        box_id,
        reports: tables.count_reports(&box_id, REPORTS_COUNTED)?,
        suspended: tables
            .profile(&box_id)?
            .is_some_and(|profile| profile.suspended),
    })
}

fn box_view<T: ReadTables>(
    tables: &T,
    meta: &Meta,
    box_id: &BoxId,
) -> Result<Option<BoxView>, T::Error> {
    let Some(profile) = tables.profile(box_id)? else {
        return Ok(None);
    };
    let state = tables.queue_state(box_id)?.unwrap_or_default();
    let front = tables.envelopes(box_id, state.purged_upto, 1, 0)?;
    let count = |found: usize| u32::try_from(found).unwrap_or(u32::MAX);
    let devices = profile.devices.values().filter(|it| it.authorised);
    let verified = profile.identifiers.iter();
    let verified = verified.filter(|it| it.generation.is_some());
    Ok(Some(BoxView {
        active: profile.active,
        suspended: profile.suspended,
        devices: count(devices.count()),
        identifiers: count(verified.count()),
        reports: tables.count_reports(box_id, REPORTS_COUNTED)?,
        depth: state.depth,
        bytes: state.bytes,
        oldest: front.first().map(|envelope| envelope.enqueued_at),
        expired_total: state.expired_total,
        ttl_ms: profile.ttl_ms(&meta.limits),
    }))
}

fn device_auth<T: ReadTables>(
    tables: &T,
    meta: &Meta,
    address: &DeviceAddress,
) -> Result<Option<u64>, T::Error> {
    let profile = tables.profile(&address.box_id)?;
    Ok(profile
        .as_ref()
        .and_then(|profile| profile.authorised_device(&address.device))
        .map(|device| device.token_generation)
        .filter(|generation| *generation > meta.restored.refused_tokens))
}

/// The most that a page may hold.
struct Bounds {
    envelopes: u32,
    bytes: u64,
}

fn fetch<T: ReadTables>(
    tables: &T,
    meta: &Meta,
    expired_by: Timestamp,
    address: &DeviceAddress,
    after: Sequence,
    bounds: &Bounds,
) -> Result<Option<Page>, T::Error> {
    let profile = tables.profile(&address.box_id)?;
    let profile = profile.unwrap_or_default();
    let Some(device) = profile.authorised_device(&address.device) else {
        return Ok(None);
    };
    let state = tables.queue_state(&address.box_id)?.unwrap_or_default();
    let after = after.max(device.cursor).max(state.purged_upto);
    let (envelopes, more) = page(tables, expired_by, &address.box_id, &state, after, bounds)?;
    let oldest = oldest(tables, expired_by, &address.box_id, &state)?;
    let status = QueueStatus {
        depth: state.depth,
        bytes: state.bytes,
        oldest,
        expired_total: state.expired_total,
        cursor: device.cursor,
        last: state.last,
        ttl_ms: profile.ttl_ms(&meta.limits),
        suspended: profile.suspended,
        reset_at: profile.first_reset(expired_by),
        ttl_number: profile.ttl_number,
    };
    Ok(Some(Page {
        envelopes,
        more,
        status,
    }))
}

/// When the oldest envelope was enqueued that has not expired.
fn oldest<T: ReadTables>(
    tables: &T,
    expired_by: Timestamp,
    box_id: &BoxId,
    state: &QueueState,
) -> Result<Option<Timestamp>, T::Error> {
    let front = tables.envelopes(box_id, state.purged_upto, 1, 0)?;
    let Some(first) = front.first() else {
        return Ok(None);
    };
    if !first.is_expired(expired_by) {
        return Ok(Some(first.enqueued_at));
    }
    let bounds = Bounds {
        envelopes: READ_ENVELOPES,
        bytes: 0,
    };
    let (waiting, _) = page(tables, expired_by, box_id, state, first.sequence, &bounds)?;
    Ok(waiting.first().map(|envelope| envelope.enqueued_at))
}

/// The envelopes after `after` that have not expired, and whether there are more of them.
fn page<T: ReadTables>(
    tables: &T,
    expired_by: Timestamp,
    box_id: &BoxId,
    state: &QueueState,
    mut after: Sequence,
    bounds: &Bounds,
) -> Result<(Vec<Envelope>, bool), T::Error> {
    let mut found = Vec::new();
    let mut bytes = 0_u64;
    // One more than asked for tells whether there are more.
    let count = bounds.envelopes.saturating_add(1).min(READ_ENVELOPES);
    while after < state.last {
        let read = tables.envelopes(box_id, after, count, READ_BYTES)?;
        let Some(last) = read.last() else { break };
        after = last.sequence;
        for envelope in read
            .into_iter()
            .filter(|envelope| !envelope.is_expired(expired_by))
        {
            let size = envelope.body.len() as u64;
            let is_full = found.len() as u64 >= u64::from(bounds.envelopes);
            let is_heavy = !found.is_empty() && bytes.saturating_add(size) > bounds.bytes;
            if is_full || is_heavy {
                return Ok((found, true));
            }
            bytes = bytes.saturating_add(size);
            found.push(envelope);
        }
    }
    Ok((found, false))
}

fn outbox<T: ReadTables>(
    tables: &T,
    now: Timestamp,
    after: Option<&(IdentifierHash, BoxId)>,
    limit: u32,
) -> Result<Vec<OutboxItem>, T::Error> {
    let rows = tables.outbox(after, limit)?.into_iter();
    Ok(rows
        .filter(|(_, _, row)| row.expires_at > now)
        .map(|(identifier, box_id, row)| OutboxItem {
            identifier,
            box_id,
            serial: row.serial,
            sealed: row.sealed,
            expires_at: row.expires_at,
        })
        .collect())
}

fn pending<T: ReadTables>(
    tables: &T,
    meta: &Meta,
    after: Option<&BoxId>,
    limit: u32,
) -> Result<Vec<PendingBox>, T::Error> {
    let rows = tables.intents(after, limit)?.into_iter();
    rows.map(|(box_id, intent)| {
        let profile = tables.profile(&box_id)?.unwrap_or_default();
        let mut device = Some(intent.device);
        if profile.active {
            // Whoever asked may be gone; and who is to be let in again must ask for that itself.
            let mut devices = profile.devices.iter();
            let refused = meta.restored.refused_tokens;
            let is_let_in =
                |state: &DeviceState| state.authorised && state.token_generation > refused;
            device = devices
                .find(|(_, state)| is_let_in(state))
                .map(|(device, _)| *device);
        }
        // Not just the last one: an earlier one may be verified already.
        let identifiers = profile.unverified().filter(|_| device.is_some());
        let leaving = profile.leaving.iter().filter_map(|hash| {
            let listed = profile.identifier(hash)?;
            Some((*hash, listed.named_generation()))
        });
        Ok(PendingBox {
            box_id,
            device: device.unwrap_or(intent.device),
            identifiers: identifiers.collect(),
            leaving: leaving.collect(),
        })
    })
    .collect()
}
