//! What holds for what servers answer, and for addresses of servers. See [`crate::fuzz`].

use bytes::Bytes;
use prost::Message;
use rossby_proto::v1;

use super::hawk::parse_reply_header;
use super::map::ServiceMap;
use super::{Refusal, ServerAddress};
use crate::crypto::recovery;
use crate::linking::LinkCode;

/// The first byte says what the rest is: 0 a `server-authorization` header, 1 the details of a status, 2
/// a server's address, 3 a recovery key's text, 9 the header of a stream's message, 14 a link code, the
/// others a reply.
pub fn reply(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else {
        return false;
    };
    let text = std::str::from_utf8(rest);
    match mode % 16 {
        0 => text.is_ok_and(|text| parse_reply_header(text, None).is_some()),
        1 => {
            let details = rest.to_vec().into();
            let status = tonic::Status::with_details(tonic::Code::Internal, "words", details);
            Refusal::of_status(&status).is_some_and(judged)
        }
        2 => text.is_ok_and(server),
        3 => text.is_ok_and(recovery_key),
        4 => message::<v1::LookupKeyResponse>(rest).is_some(),
        5 => message::<v1::FetchResponse>(rest).is_some(),
        6 => message::<v1::AuthorizeResponse>(rest).is_some(),
        7 => message::<v1::SendResponse>(rest).is_some(),
        8 => message::<v1::Refusal>(rest)
            .map(Refusal::of_outcome)
            .is_some_and(judged),
        9 => text.is_ok_and(|text| parse_reply_header(text, Some("7")).is_some()),
        10 => message::<v1::SubscribeResponse>(rest)
            .is_some_and(|found| message::<v1::FetchResponse>(&found.page).is_some()),
        11 => message::<v1::UpdateKeyResponse>(rest).is_some(),
        12 => message::<v1::GetMapResponse>(rest).is_some() && map(rest),
        13 => message::<v1::JoinBoxResponse>(rest).is_some(),
        15 => message::<v1::ListIdentifiersResponse>(rest).is_some(),
        _ => text.is_ok_and(link_code),
    }
}

fn message<M: Message + Default + PartialEq>(bytes: &[u8]) -> Option<M> {
    let found = M::decode(bytes).ok()?;
    let again = M::decode(found.encode_to_vec().as_slice());
    assert!(again.is_ok_and(|again| again == found));
    Some(found)
}

/// What passes by itself is the service's state, and what may be tried again nobody has done.
fn judged(refusal: Refusal) -> bool {
    assert!(!refusal.is_passing() || refusal.is_about_the_service());
    assert!(
        !refusal.is_unavailable() || !refusal.leaves_outcome_unknown() || refusal.is_about_time()
    );
    true
}

/// A map names nobody who is spoken to otherwise than the device's own servers are.
fn map(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let maps = [true, false].map(|secure| (secure, ServiceMap::read(&bytes, secure)));
    for (secure, map) in &maps {
        let mut servers = map.iter().flat_map(|map| map.addresses.values());
        assert!(servers.all(|server| server.is_secure() == *secure));
    }
    maps.iter().any(|(_, map)| map.is_some())
}

fn server(text: &str) -> bool {
    let Ok(address) = text.parse::<ServerAddress>() else {
        return false;
    };
    assert!(
        address
            .to_string()
            .parse::<ServerAddress>()
            .is_ok_and(|again| again.uri() == address.uri())
    );
    true
}

fn recovery_key(text: &str) -> bool {
    let Ok(seed) = recovery::from_text(text) else {
        return false;
    };
    let again = recovery::from_text(&recovery::to_text(&seed));
    assert!(again.is_ok_and(|again| again.expose() == seed.expose()));
    true
}

fn link_code(text: &str) -> bool {
    let Ok(code) = LinkCode::from_text(text) else {
        return false;
    };
    assert_eq!(LinkCode::from_text(&code.to_text()), Ok(code));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::secret::Secret;
    use crate::fuzz::replay::{replay, seed, with};

    #[test]
    fn the_corpus_of_replies_holds() {
        replay("reply", reply);
    }

    fn check(mode: u8, name: &str, bytes: &[u8]) {
        seed("reply", &format!("seed-{name}"), &with(mode, bytes), reply);
    }

    #[test]
    fn real_replies_are_accepted() {
        let digest = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let header = format!("Hawk mac=\"{digest}\", hash=\"{digest}\"");
        check(0, "header", header.as_bytes());
        check(2, "server", b"https://rossby.example.org:7470");
        let key = recovery::to_text(&Secret::new([7; 32]));
        check(3, "recovery", key.as_bytes());
        let name = crate::linking::DeviceName::new("laptop").unwrap();
        let code = LinkCode { key: [7; 32], name };
        check(14, "link-code", code.to_text().as_bytes());
        let joined = v1::JoinBoxResponse {
            box_id: vec![1; 16].into(),
            key_record: vec![2; 40].into(),
            encapsulated_key: vec![3; 20].into(),
            sealed_token: vec![4; 20].into(),
            hawk_host: "rossby".to_owned(),
        };
        check(13, "joined", &joined.encode_to_vec());
        let phone = v1::identifier::Kind::Phone("+491701234567".to_owned());
        let own = v1::OwnIdentifier {
            identifier: Some(v1::Identifier { kind: Some(phone) }),
            verified: true,
            discoverable: false,
            generation: 7,
            reset_at_ms: Some(8),
            reset_serial: 9,
            uncertain: false,
        };
        let listed = v1::ListIdentifiersResponse {
            identifiers: vec![own],
        };
        check(15, "identifiers", &listed.encode_to_vec());
        let lookup = v1::LookupKeyResponse {
            box_id: vec![1; 16].into(),
            key_record: vec![2; 40].into(),
            next_counter: 3,
            profile_version: 2,
            sealed_profile: vec![3; 20].into(),
        };
        check(4, "lookup", &lookup.encode_to_vec());
        let envelope = v1::Envelope {
            sequence: 1,
            sender_box_id: vec![1; 16].into(),
            body: vec![2; 20].into(),
            ..Default::default()
        };
        let fetched = v1::FetchResponse {
            envelopes: vec![envelope],
            more: true,
            status: Some(v1::QueueStatus::default()),
            signals: vec![v1::Signal {
                sender_box_id: vec![1; 16].into(),
                body: vec![3; 20].into(),
                ..Default::default()
            }],
        };
        check(5, "fetched", &fetched.encode_to_vec());
        let nth = format!("{header}, ext=\"7\"");
        check(9, "nth-header", nth.as_bytes());
        let streamed = v1::SubscribeResponse {
            page: fetched.encode_to_vec().into(),
            server_authorization: nth,
        };
        check(10, "streamed", &streamed.encode_to_vec());
        let updated = v1::UpdateKeyResponse { last: 12 };
        check(11, "key-updated", &updated.encode_to_vec());
        let node = |node_id: u64| v1::MapNode {
            node_id,
            region: "eu".to_owned(),
            client_address: format!("10.0.0.{node_id}:7470"),
        };
        let map = v1::GetMapResponse {
            version: 3,
            nodes: vec![node(1), node(2)],
            groups: vec![v1::MapGroup {
                group_id: 1,
                node_ids: vec![2, 1],
                ..Default::default()
            }],
            partitions: vec![v1::MapRange {
                first: 0,
                last: 223,
                group_id: 1,
            }],
        };
        check(12, "map", &map.encode_to_vec());
        let refusal = v1::Refusal {
            code: "WRONG_CODE".to_owned(),
            message: "words".to_owned(),
            retry: v1::Retry::Changed.into(),
            retry_after_ms: Some(5),
            ..Default::default()
        };
        check(8, "refusal", &refusal.encode_to_vec());
        let details = tonic_types::ErrorDetails::with_error_info(
            "WRONG_CODE",
            "rossby",
            [("attempts_left".to_owned(), "3".to_owned())],
        );
        let status = <tonic::Status as tonic_types::StatusExt>::with_error_details(
            tonic::Code::Aborted,
            "words",
            details,
        );
        check(1, "status", status.details());
    }
}
