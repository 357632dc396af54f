//! One partition in memory, and short words for the commands that tests send to it.

use bytes::Bytes;
use rossby_domain::claim::CodeMac;
use rossby_domain::command::{
    Acknowledge, ActivateBox, Adopt, Block, ClaimDevice, CreateBox, DropIdentifier, Enqueue,
    EnvelopeDigest, Expire, MarkCodeSent, OpenClaim, ReleaseClaim, VerifyClaim,
};
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, EnvelopeId, Epoch, PartitionId, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::query::{Page, PendingBox};
use rossby_domain::tables::MemoryTables;
use rossby_domain::time::Timestamp;
use rossby_domain::{
    Answer, Command, Context, Outcome, Query, Rejection, Reply, Routed, answer, apply,
};

use super::{device_id, genesis, record};

pub const MINUTE_MS: u64 = 60_000;
pub const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
pub const EPOCH: Epoch = Epoch(3);

pub fn partition() -> PartitionId {
    PartitionId::new(5).unwrap()
}

/// The box of the person whose device is `seed`.
pub fn box_id(seed: u8) -> BoxId {
    BoxId::derive(partition(), &genesis(seed).hash())
}

pub fn address(seed: u8) -> DeviceAddress {
    DeviceAddress {
        box_id: box_id(seed),
        device: device_id(seed),
    }
}

pub fn identifier(number: u8) -> IdentifierHash {
    IdentifierHash::from_bytes([number; 32])
}

pub fn code(number: u8) -> CodeMac {
    CodeMac([number; 32])
}

/// An envelope from a device to a box, sealed for chain version 0, without a TTL of its own.
pub fn letter(from: DeviceAddress, to: BoxId, counter: u64, text: &str) -> Enqueue {
    sized_letter(from, to, counter, Bytes::copy_from_slice(text.as_bytes()))
}

pub fn sized_letter(from: DeviceAddress, to: BoxId, counter: u64, body: Bytes) -> Enqueue {
    Enqueue {
        recipient: to,
        id: EnvelopeId {
            sender: from,
            counter: Counter(counter),
        },
        chain_version: 0,
        ttl_ms: None,
        digest: EnvelopeDigest::of(&to, 0, None, &body),
        body,
    }
}

/// The same letter with a time to live.
pub fn short_lived(mut letter: Enqueue, ttl_ms: u64) -> Enqueue {
    letter.ttl_ms = Some(ttl_ms);
    letter.digest = EnvelopeDigest::of(&letter.recipient, 0, letter.ttl_ms, &letter.body);
    letter
}

/// A partition, owned, with a clock that the test moves.
#[derive(Debug, Clone)]
pub struct World {
    pub tables: MemoryTables,
    pub now: Timestamp,
    /// Whether mail may expire by the time that `now` shows.
    pub may_expire: bool,
}

impl World {
    pub fn new(limits: Limits) -> Self {
        let now = Timestamp::from_millis(20_000 * DAY_MS);
        let mut world = Self {
            tables: MemoryTables::default(),
            now,
            may_expire: true,
        };
        assert_eq!(
            world.apply(Command::Adopt(Adopt { limits })),
            Ok(Outcome::Adopted { epoch: EPOCH })
        );
        world
    }

    pub fn wait(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
    }

    pub fn apply(&mut self, command: Command) -> Reply {
        let routed = Routed {
            partition: partition(),
            epoch: EPOCH,
            command,
        };
        let context = Context {
            stamp: self.now,
            may_expire: self.may_expire,
        };
        apply(&mut self.tables, &context, routed).unwrap()
    }

    /// Applies a command that is to be refused, and sees to it that it changed nothing.
    pub fn refused(&mut self, command: Command) -> Rejection {
        // Moves the clock, so that it is no difference below.
        self.apply(Command::Expire(Expire { limit: 0 })).unwrap();
        let before = self.tables.clone();
        let rejection = self.apply(command).unwrap_err();
        assert_eq!(self.tables, before, "a rejection changed something");
        rejection
    }

    pub fn query(&self, query: &Query) -> Answer {
        let now = if self.may_expire {
            self.now
        } else {
            Timestamp::default()
        };
        answer(&self.tables, now, query).unwrap()
    }

    pub fn claim_device(&mut self, seed: u8, box_id: BoxId) -> Reply {
        self.apply(Command::ClaimDevice(ClaimDevice {
            device: device_id(seed),
            box_id,
        }))
    }

    pub fn create_box(&mut self, seed: u8, number: u8) -> Reply {
        self.apply(create_box(seed, number))
    }

    pub fn open_claim(&mut self, seed: u8, number: u8, typed: u8) -> Reply {
        self.apply(open_claim(seed, number, typed))
    }

    pub fn verify_claim(&mut self, seed: u8, number: u8, typed: u8) -> Reply {
        self.apply(verify_claim(seed, number, typed))
    }

    pub fn activate(&mut self, seed: u8, number: u8, generation: u64) -> Reply {
        self.apply(Command::ActivateBox(ActivateBox {
            box_id: box_id(seed),
            device: device_id(seed),
            identifier: identifier(number),
            generation,
        }))
    }

    /// Registers and authorises the person whose device is `seed`, under the identifier `seed`.
    pub fn register(&mut self, seed: u8) {
        self.claim_device(seed, box_id(seed)).unwrap();
        self.create_box(seed, seed).unwrap();
        self.open_claim(seed, seed, seed).unwrap();
        let verified = self.verify_claim(seed, seed, seed).unwrap();
        let Outcome::ClaimVerified { generation } = verified else {
            panic!("{verified:?}")
        };
        self.activate(seed, seed, generation).unwrap();
    }

    pub fn send(&mut self, letter: Enqueue) -> Reply {
        self.apply(Command::Enqueue(letter))
    }

    pub fn acknowledge(&mut self, device: DeviceAddress, upto: u64) -> Reply {
        self.apply(Command::Acknowledge(Acknowledge {
            device,
            upto: Sequence(upto),
        }))
    }

    pub fn block(&mut self, by: u8, other: u8, blocked: bool) -> Reply {
        self.apply(Command::Block(Block {
            box_id: box_id(by),
            other: box_id(other),
            blocked,
        }))
    }

    pub fn expire(&mut self, limit: u32) -> Reply {
        self.apply(Command::Expire(Expire { limit }))
    }

    pub fn mark_sent(&mut self, seed: u8, number: u8, serial: u64) -> Reply {
        self.apply(Command::MarkCodeSent(MarkCodeSent {
            identifier: identifier(number),
            box_id: box_id(seed),
            serial,
        }))
    }

    /// Removes all that is due; the number of rows.
    pub fn expire_all(&mut self) -> u32 {
        let mut total = 0;
        for _ in 0..100_000 {
            match self.expire(3).unwrap() {
                Outcome::Expired { removed, more } => {
                    total += removed;
                    if !more {
                        return total;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("expiry does not come to an end");
    }

    pub fn page(&self, device: DeviceAddress, after: u64, max: u32) -> Option<Page> {
        let query = Query::Fetch {
            device,
            after: Sequence(after),
            max_envelopes: max,
            max_bytes: u32::MAX,
        };
        match self.query(&query) {
            Answer::Page(page) => page,
            other => panic!("{other:?}"),
        }
    }

    /// The sequences and texts that a device would fetch.
    pub fn inbox(&self, device: DeviceAddress) -> Vec<(u64, String)> {
        let page = self.page(device, 0, u32::MAX).unwrap();
        assert!(!page.more);
        let text = |body: &Bytes| String::from_utf8_lossy(body).into_owned();
        page.envelopes
            .iter()
            .map(|e| (e.sequence.0, text(&e.body)))
            .collect()
    }
}

pub fn create_box(seed: u8, number: u8) -> Command {
    Command::CreateBox(CreateBox {
        box_id: box_id(seed),
        record: record(seed),
        identifier: identifier(number),
        sealed_identifier: Bytes::from_static(b"sealed identifier"),
        discoverable: true,
    })
}

pub fn open_claim(seed: u8, number: u8, typed: u8) -> Command {
    Command::OpenClaim(OpenClaim {
        identifier: identifier(number),
        box_id: box_id(seed),
        discoverable: true,
        code: code(typed),
        sealed_code: Bytes::from_static(b"sealed code"),
    })
}

/// The same, for an identifier by which the box is not to be found.
pub fn open_hidden_claim(seed: u8, number: u8, typed: u8) -> Command {
    match open_claim(seed, number, typed) {
        Command::OpenClaim(claim) => Command::OpenClaim(OpenClaim {
            discoverable: false,
            ..claim
        }),
        other => other,
    }
}

pub fn verify_claim(seed: u8, number: u8, typed: u8) -> Command {
    Command::VerifyClaim(VerifyClaim {
        identifier: identifier(number),
        box_id: box_id(seed),
        code: code(typed),
    })
}

pub fn pending_boxes(world: &World) -> Vec<PendingBox> {
    pending_boxes_after(world, None, 100)
}

pub fn pending_boxes_after(world: &World, after: Option<BoxId>, limit: u32) -> Vec<PendingBox> {
    let query = Query::PendingBoxes {
        partition: partition(),
        after,
        limit,
    };
    match world.query(&query) {
        Answer::PendingBoxes(boxes) => boxes,
        other => panic!("{other:?}"),
    }
}

/// What the leader of the group would do about identifiers on their way in or out.
pub fn to_finish(world: &World) -> Vec<Command> {
    let held = |identifier: &IdentifierHash, box_id: &BoxId| {
        let Answer::VerifiedClaim(claim) = world.query(&Query::VerifiedClaim(*identifier)) else {
            panic!()
        };
        let own = claim.filter(|(owner, _)| owner == box_id);
        own.map(|(_, generation)| generation)
    };
    let mut commands = Vec::new();
    for pending in pending_boxes(world) {
        let (box_id, device) = (pending.box_id, pending.device);
        for identifier in pending.identifiers {
            if let Some(generation) = held(&identifier, &box_id) {
                commands.push(Command::ActivateBox(ActivateBox {
                    box_id,
                    device,
                    identifier,
                    generation,
                }));
            }
        }
        for (identifier, generation) in pending.leaving {
            commands.push(Command::ReleaseClaim(ReleaseClaim {
                identifier,
                box_id,
                generation: held(&identifier, &box_id).unwrap_or(generation),
            }));
            commands.push(Command::DropIdentifier(DropIdentifier {
                box_id,
                identifier,
                generation,
            }));
        }
    }
    commands
}

pub fn enqueued(sequence: u64) -> Reply {
    Ok(Outcome::Enqueued {
        sequence: Sequence(sequence),
    })
}

/// A world of two people, 1 and 2, and no letters yet.
pub fn two_people(limits: Limits) -> World {
    let mut world = World::new(limits);
    world.register(1);
    world.register(2);
    world
}
