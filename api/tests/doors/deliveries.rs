//! Which codes go out, and when, while more wait than may be under way. The clock is virtual.

use std::time::Duration;

use rossby_api::RpcPath;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::PartitionId;
use rossby_proto::v1;

use crate::support::{TestDevice, World};

/// Deliveries under way at a time.
const PLACES: usize = 16;
/// Longer than the worker's period.
const SLOW: Duration = Duration::from_millis(300);

fn phone(number: u32) -> String {
    format!("+4917012{number:05}")
}

fn home(world: &World, phone: &Identifier) -> PartitionId {
    let hash = world.secrets.identifier_hash(phone);
    hash.partition(world.partitions)
}

/// Codes for so many phones of a partition, as they wait while nobody brings them.
async fn ask(world: &World, partition: Option<PartitionId>, count: usize, device: u8) {
    let phones = (0..).map(phone).filter(|phone| {
        let phone = Identifier::phone(phone).unwrap();
        partition.is_none_or(|wanted| home(world, &phone) == wanted)
    });
    for (device, phone) in (device..).zip(phones.take(count)) {
        let request = TestDevice::new(device).register(&phone, true);
        let _: v1::RegisterResponse = world.plain(RpcPath::Register, &request).await.unwrap();
    }
}

async fn all_begun(world: &World, count: usize) {
    world
        .eventually("all deliveries are begun", || {
            world.deliveries_begun().len() >= count
        })
        .await;
    assert_eq!(world.deliveries_begun().len(), count);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_filled_again_as_soon_as_it_is_free() {
    let mut world = World::in_virtual_time().await;
    world.stop_workers();
    world.slow_deliveries(SLOW);
    ask(&world, None, 3 * PLACES, 1).await;
    world.start_workers();
    all_begun(&world, 3 * PLACES).await;
    let begun = world.deliveries_begun();
    for (earlier, later) in begun.iter().zip(&begun[PLACES..]) {
        let apart = later.0 - earlier.0;
        assert!(apart >= SLOW, "more than {PLACES} under way: {apart:?}");
        assert!(apart < SLOW + Duration::from_millis(50), "{apart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_with_many_codes_does_not_hold_up_the_others() {
    let mut world = World::in_virtual_time().await;
    world.stop_workers();
    world.slow_deliveries(SLOW);
    let lowest = world.partitions.all().next().unwrap();
    // Of the directory, which has the first half.
    let highest = PartitionId::new(world.partitions.get() / 2 - 1).unwrap();
    ask(&world, Some(lowest), 3 * PLACES, 1).await;
    ask(&world, Some(highest), 2, 101).await;
    world.start_workers();
    all_begun(&world, 3 * PLACES + 2).await;
    let begun = world.deliveries_begun();
    let places: Vec<usize> = (0..)
        .zip(&begun)
        .filter(|(_, (_, phone))| home(&world, phone) == highest)
        .map(|(place, _)| place)
        .collect();
    assert_eq!(places.len(), 2);
    assert!(places.iter().all(|place| *place < 2 * PLACES), "{places:?}");
}
