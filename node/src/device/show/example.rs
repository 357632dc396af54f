//! A message for tests.

use std::collections::BTreeMap;

use rossby_client::device::{Acts, Direction, Message, Status};
use rossby_client::envelope::Content;
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, PartitionId};
use rossby_domain::time::Timestamp;

/// One that came in with this in it.
pub fn message(content: Content) -> Message {
    let box_id = BoxId::derive(PartitionId::new(1).unwrap(), &[1; 32]);
    Message {
        order: 7,
        direction: Direction::In,
        sender: DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([1; 16]),
        },
        recipient: box_id,
        group: None,
        outcomes: BTreeMap::new(),
        counter: 1,
        sequence: None,
        at: Timestamp::default(),
        written_at: Some(Timestamp::from_millis(5)),
        content: Some(content),
        status: Status::Received,
        acts: Acts::default(),
        receipts: BTreeMap::new(),
    }
}
