//! What a client knows of placement: which nodes may lead which boxes, by the word of some server.
//!
//! A help and nothing more: who is named wrongly costs a try. Above all, a map never says how a server is
//! spoken to or whom to trust: an address in it is used over TLS under the authority that the device was
//! given, or, where the device's own servers are all spoken to in plain text on this machine, in plain text on
//! this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use prost::Message as _;
use rossby_domain::ids::BoxId;
use rossby_proto::v1;

use super::ServerAddress;

/// What of a map is taken in. A service that says more is not followed further.
const MAX_NODES: usize = 1024;
const MAX_GROUPS: usize = 4096;
const MAX_GROUP_NODES: usize = 9;
const MAX_RANGES: usize = 4096;
const MAX_BYTES: usize = 1024 * 1024;

/// A map.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceMap {
    pub(super) version: u64,
    /// The nodes that can be reached.
    pub(super) addresses: BTreeMap<u64, ServerAddress>,
    /// How many regions they are in.
    pub(super) regions: usize,
    groups: BTreeMap<u32, Vec<u64>>,
    /// Groups by the last partition of each of their ranges, with its first.
    owners: BTreeMap<u32, (u32, u32)>,
    /// As it came.
    pub(super) bytes: Bytes,
}

impl ServiceMap {
    /// Reads a map; `None` if it is none, or knows no node that may be spoken to.
    pub(super) fn read(bytes: &Bytes, secure: bool) -> Option<Self> {
        if bytes.len() > MAX_BYTES {
            return None;
        }
        let told = v1::GetMapResponse::decode(bytes.clone()).ok()?;
        let mut map = Self {
            version: told.version,
            bytes: bytes.clone(),
            ..Self::default()
        };
        let mut regions = BTreeSet::new();
        for node in told.nodes.into_iter().take(MAX_NODES) {
            if let Some(address) = learned(&node.client_address, secure) {
                map.addresses.insert(node.node_id, address);
                regions.insert(node.region);
            }
        }
        map.regions = regions.len();
        for group in told.groups.into_iter().take(MAX_GROUPS) {
            let nodes = group.node_ids.into_iter().take(MAX_GROUP_NODES);
            map.groups.insert(group.group_id, nodes.collect());
        }
        for range in told.partitions.into_iter().take(MAX_RANGES) {
            if range.first <= range.last {
                map.owners.insert(range.last, (range.first, range.group_id));
            }
        }
        (told.version > 0 && !map.addresses.is_empty()).then_some(map)
    }

    /// The group that a box belongs to.
    pub(super) fn group_of(&self, box_id: &BoxId) -> Option<u32> {
        let partition = u32::from(box_id.partition().number());
        let (_, (first, group)) = self.owners.range(partition..).next()?;
        (*first <= partition).then_some(*group)
    }

    /// Where a group may be led, the likeliest first.
    pub(super) fn servers_of(&self, group: u32) -> impl Iterator<Item = &ServerAddress> {
        let nodes = self.groups.get(&group).into_iter().flatten();
        nodes.filter_map(|node| self.addresses.get(node))
    }
}

/// An address that a server told, spoken to as the device's own servers are: over TLS, or in plain text if
/// these all are, which goes no further than this machine. `None` if nobody can be reached there so.
pub(super) fn learned(address: &str, secure: bool) -> Option<ServerAddress> {
    if address.contains("://") {
        return None;
    }
    // To this machine, whichever that is: where nodes listen, and not where they are.
    if let Ok(address) = address.parse::<SocketAddr>()
        && (address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0)
    {
        return None;
    }
    let scheme = if secure { "https" } else { "http" };
    format!("{scheme}://{address}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(address: &str, secure: bool) -> Option<String> {
        learned(address, secure).map(|address| address.to_string())
    }

    #[test]
    fn no_map_talks_a_device_out_of_tls() {
        let secure = |address| text(address, true);
        assert_eq!(secure("a.example:1").unwrap(), "https://a.example:1");
        assert_eq!(secure("127.0.0.1:1").unwrap(), "https://127.0.0.1:1");
        for address in [
            "http://a.example:1",
            "http://127.0.0.1:1",
            "0.0.0.0:1",
            "[::]:1",
        ] {
            assert_eq!(secure(address), None, "{address}");
        }
        let plain = |address| text(address, false);
        assert_eq!(plain("127.0.0.1:1").unwrap(), "http://127.0.0.1:1");
        for address in [
            "a.example:1",
            "10.0.0.1:1",
            "https://a.example:1",
            "0.0.0.0:1",
            "a b",
            "",
        ] {
            assert_eq!(plain(address), None, "{address}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_told_is_spoken_to_as_the_devices_own(address in ".{0,30}", secure: bool) {
            if let Some(found) = learned(&address, secure) {
                prop_assert_eq!(found.is_secure(), secure);
            }
        }

        #[test]
        fn noise_is_no_map(noise in prop::collection::vec(any::<u8>(), 0..200), secure: bool) {
            if let Some(map) = ServiceMap::read(&noise.into(), secure) {
                prop_assert!(map.addresses.values().all(|address| address.is_secure() == secure));
            }
        }
    }
}
