//! Whom to ask: the servers that a device was given, those that it learned of, and what it knows of each.
//!
//! ```text
//!   a signed call:  hinted ─► likeliest leader ─► the group's others ─► the rest, nearest first
//!   any other:                                                          the nearest first
//! ```
//!
//! Nobody is asked twice in a call before everybody was asked once. Who failed lately comes behind those who
//! did not, and once a call could not reach somebody, those who were given or have answered come first: a map full of
//! nodes that are gone costs one try and not all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::BoxId;
use tokio::time::Instant;

use super::ServerAddress;
use super::map::{ServiceMap, learned};

/// Servers that are kept in mind, with the given ones.
const MAX_SERVERS: usize = 1100;
/// Hints that are kept, one for each group (or partition, without a map).
const MAX_HINTS: usize = 4096;
/// For how long a server that failed comes last, at first and at most; doubled with each failure.
const FIRST_SHUN: Duration = Duration::from_secs(5);
const LONGEST_SHUN: Duration = Duration::from_secs(120);
/// How old a map may be.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Between two questions for a map, whatever happens.
const LEAST_AGE: Duration = Duration::from_secs(5);
/// A new round trip has this share in the mean: one in so many.
const SHARE: u32 = 4;

/// What hints are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Group(u32),
    /// While no map tells the group.
    Partition(u16),
}

/// A server.
#[derive(Debug)]
struct Server {
    address: Arc<ServerAddress>,
    /// Of small calls; `None` if none was answered yet.
    round_trip: Option<Duration>,
    failures: u32,
    shunned_until: Option<Instant>,
}

/// What a device knows of servers.
#[derive(Debug)]
pub(super) struct Route {
    /// The given ones first.
    servers: Vec<Server>,
    given: usize,
    secure: bool,
    /// Whether it learns where to go.
    pub(super) learns: bool,
    map: Option<ServiceMap>,
    hints: BTreeMap<Key, usize>,
    /// The server that answered last, of those whose way is not known.
    favourite: usize,
    asked_at: Option<Instant>,
    /// What is known may be wrong.
    doubtful: bool,
}

/// The tries of one call.
#[derive(Debug, Default)]
pub(super) struct Tries {
    asked: BTreeMap<usize, u32>,
    unreached: bool,
}

impl Tries {
    /// Somebody could not be reached.
    pub(super) fn unreached(&mut self) {
        self.unreached = true;
    }

    /// That try only told the time: the same server is asked again.
    pub(super) fn forgive(&mut self, server: usize) {
        self.asked.remove(&server);
    }
}

impl Route {
    pub(super) fn new(given: Vec<ServerAddress>) -> Self {
        let secure = given.iter().any(ServerAddress::is_secure);
        let servers = given.into_iter().map(Server::new);
        let servers: Vec<_> = servers.collect();
        Self {
            given: servers.len(),
            servers,
            secure,
            learns: false,
            map: None,
            hints: BTreeMap::new(),
            favourite: 0,
            asked_at: None,
            doubtful: false,
        }
    }

    /// How many servers are known.
    pub(super) fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether a server was given by the device's owner.
    pub(super) fn is_given(&self, server: usize) -> bool {
        server < self.given
    }

    /// Which server comes next.
    pub(super) fn next(
        &self,
        box_id: Option<&BoxId>,
        tries: &mut Tries,
    ) -> Option<(usize, Arc<ServerAddress>)> {
        let now = Instant::now();
        let ranks = box_id.filter(|_| self.learns).map(|id| self.ranks(id));
        let ranks = ranks.unwrap_or_default();
        let count = self.servers.len().max(1);
        let by = |(index, server): &(usize, &Server)| {
            let asked = tries.asked.get(index).copied().unwrap_or_default();
            let shunned = self.learns && server.shunned_until.is_some_and(|until| now < until);
            let unheard = server.round_trip.is_none() && *index >= self.given;
            let unheard = tries.unreached && unheard;
            let rank = ranks.get(index).copied().unwrap_or(usize::MAX);
            // Those that differ by little are as near, and who was never heard is far.
            let far = match server.round_trip {
                Some(round_trip) if self.learns => round_trip.as_millis() / 5,
                _ if *index >= self.given => u128::MAX,
                _ => u128::MAX - 1,
            };
            let turn = (*index + count - self.favourite % count) % count;
            (asked, shunned, unheard, rank, far, turn)
        };
        let (index, server) = self.servers.iter().enumerate().min_by_key(by)?;
        *tries.asked.entry(index).or_default() += 1;
        Some((index, Arc::clone(&server.address)))
    }

    /// The servers of a box's group in the order in which they are asked.
    fn ranks(&self, box_id: &BoxId) -> BTreeMap<usize, usize> {
        let mut ranks = BTreeMap::new();
        if let Some(hint) = self.hints.get(&self.key(box_id)) {
            ranks.insert(*hint, 0);
        }
        if let Some((map, group)) = self.group_of(box_id) {
            for (rank, address) in map.servers_of(group).enumerate() {
                if let Some(index) = self.find(address) {
                    ranks.entry(index).or_insert(rank + 1);
                }
            }
        }
        ranks
    }

    fn group_of(&self, box_id: &BoxId) -> Option<(&ServiceMap, u32)> {
        let map = self.map.as_ref()?;
        Some((map, map.group_of(box_id)?))
    }

    fn key(&self, box_id: &BoxId) -> Key {
        let partition = || Key::Partition(box_id.partition().number());
        let group = self.group_of(box_id);
        group.map_or_else(partition, |(_, group)| Key::Group(group))
    }

    fn find(&self, address: &ServerAddress) -> Option<usize> {
        let mut servers = self.servers.iter();
        servers.position(|server| *server.address == *address)
    }

    /// A server answered a call, after this long: a first measure, until there are better ones.
    pub(super) fn answered(&mut self, server: usize, took: Duration) {
        self.favourite = server;
        if let Some(server) = self.servers.get_mut(server) {
            server.failures = 0;
            server.shunned_until = None;
            server.round_trip.get_or_insert(took);
        }
    }

    /// A server answered by itself, after this long.
    pub(super) fn measured(&mut self, server: usize, took: Duration) {
        if let Some(server) = self.servers.get_mut(server) {
            let mean = server.round_trip.unwrap_or(took);
            server.round_trip = Some((mean * (SHARE - 1) + took) / SHARE);
        }
    }

    /// A server of a stream that broke is not the first to be asked again.
    pub(super) fn passed_over(&mut self, server: usize) {
        self.favourite = server.wrapping_add(1) % self.servers.len().max(1);
        self.failed(server);
    }

    /// A server did not answer, or is not the service's.
    pub(super) fn failed(&mut self, server: usize) {
        self.hints.retain(|_, hint| *hint != server);
        self.doubtful = true;
        if let Some(server) = self.servers.get_mut(server) {
            let doubled = 1_u32.checked_shl(server.failures).unwrap_or(u32::MAX);
            let shun = FIRST_SHUN.saturating_mul(doubled).min(LONGEST_SHUN);
            server.failures = server.failures.saturating_add(1);
            server.shunned_until = Some(Instant::now() + shun);
        }
    }

    /// A call was relayed: where it should have gone.
    pub(super) fn hinted(&mut self, box_id: &BoxId, address: &str) {
        if !self.learns {
            return;
        }
        self.doubtful = true;
        let Some(address) = learned(address, self.secure) else {
            return;
        };
        let key = self.key(box_id);
        if let Some(server) = self.add(address)
            && (self.hints.len() < MAX_HINTS || self.hints.contains_key(&key))
        {
            self.hints.insert(key, server);
        }
    }

    /// A server answered a call of a box and named nobody else: it leads the box.
    pub(super) fn leads(&mut self, box_id: &BoxId, server: usize) {
        let key = self.key(box_id);
        let known = self.hints.contains_key(&key);
        if self.learns && (known || self.hints.len() < MAX_HINTS) {
            self.hints.insert(key, server);
        }
    }

    fn add(&mut self, address: ServerAddress) -> Option<usize> {
        if let Some(known) = self.find(&address) {
            return Some(known);
        }
        if self.servers.len() >= MAX_SERVERS.max(self.given) {
            return None;
        }
        self.servers.push(Server::new(address));
        Some(self.servers.len() - 1)
    }

    /// Whether to ask for a map now, and which one is known. Whoever is told so does.
    pub(super) fn wants_map(&mut self) -> Option<u64> {
        let age = self.asked_at.map(|at| at.elapsed());
        let limit = if self.doubtful { LEAST_AGE } else { MAX_AGE };
        if !self.learns || age.is_some_and(|age| age < limit) {
            return None;
        }
        self.asked_at = Some(Instant::now());
        // Leaders change without the map: it is told anew where something was wrong.
        let known = self.map.as_ref().filter(|_| !self.doubtful);
        self.doubtful = false;
        Some(known.map_or(0, |map| map.version))
    }

    /// Takes a map in, unless an older one than is known; whether it is kept.
    pub(super) fn take_in(&mut self, bytes: &bytes::Bytes) -> bool {
        let Some(map) = ServiceMap::read(bytes, self.secure) else {
            return false;
        };
        if self
            .map
            .as_ref()
            .is_some_and(|known| known.version > map.version)
        {
            return false;
        }
        for address in map.addresses.values() {
            let _ = self.add(address.clone());
        }
        // By partition, they may be wrong of the group now; those of a group are newer than the map, or
        // cost a try.
        self.hints.retain(|key, _| matches!(key, Key::Group(_)));
        self.map = Some(map);
        true
    }

    /// The map as it came.
    pub(super) fn map_bytes(&self) -> Option<bytes::Bytes> {
        self.map.as_ref().map(|map| map.bytes.clone())
    }

    /// Servers whose distance is worth knowing: of a service in several regions.
    pub(super) fn unmeasured(&self, most: usize) -> Vec<(usize, Arc<ServerAddress>)> {
        if self.map.as_ref().is_none_or(|map| map.regions < 2) {
            return Vec::new();
        }
        let servers = self.servers.iter().enumerate();
        let unheard = servers
            .filter(|(_, server)| server.round_trip.is_none() && server.shunned_until.is_none());
        let unheard = unheard.map(|(index, server)| (index, Arc::clone(&server.address)));
        unheard.take(most).collect()
    }
}

impl Server {
    fn new(address: ServerAddress) -> Self {
        Self {
            address: Arc::new(address),
            round_trip: None,
            failures: 0,
            shunned_until: None,
        }
    }
}
