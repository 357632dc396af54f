//! Devices that know the way: their calls arrive where their boxes are led.

use prost::Message as _;
use rossby_client::connection::{Exchange, GetMap, GrpcWire, Rpc as _, Wire as _};
use rossby_proto::v1;

use crate::support::people::{Person, email};
use crate::support::{Cluster, eventually, run_ok};

/// Calls that nodes which run have handed on since they started.
fn relayed(cluster: &Cluster) -> u64 {
    let running = cluster.nodes().iter().filter(|node| node.is_running());
    let pages = running.filter_map(|node| node.page("/metrics"));
    let count = |(_, page): (u16, String)| -> u64 {
        let lines = page.lines();
        let counts = lines.filter_map(|line| line.strip_prefix("rossby_calls_relayed_total{"));
        let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        counts.sum()
    };
    pages.map(count).sum()
}

/// Waits until a device's calls are all direct: not for longer than it takes the service to settle.
fn wait_direct(cluster: &Cluster, runtime: &tokio::runtime::Runtime, person: &Person) {
    eventually("calls arrive at the leader", || {
        let before = relayed(cluster);
        for _ in 0..5 {
            let received = runtime.block_on(person.device.receive()).ok()?;
            if received.interrupted.is_some() {
                return None;
            }
        }
        (relayed(cluster) == before).then_some(())
    });
}

#[test]
fn a_device_goes_to_the_leader_of_its_box_wherever_that_is() {
    let mut cluster = Cluster::in_regions(&["asia", "eu", "us"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ada = runtime.block_on(Person::with_box(&cluster, email("ada"), 0));
    let group = u64::from(ada.box_id().partition().number() % 3) + 1;
    let leader = |cluster: &mut Cluster, at: u64| {
        eventually("a leader of the box", || {
            let shown = cluster.placement(at, &["show"]);
            let mut groups = shown["groups"].as_array()?.iter();
            let group = groups.find(|shown| shown["group"] == group)?;
            (group["from_leader"] == true).then_some(group["leader_node"].as_u64()?)
        })
    };
    // It is given one node only, which does not lead its box.
    let first = leader(&mut cluster, 1);
    let seed = first % 3 + 1;
    let address = format!("http://{}", cluster.node(seed).client_address());
    let ada = ada.finding_its_way(Some(&[address]));
    runtime.block_on(ada.device.receive()).unwrap();
    wait_direct(&cluster, &runtime, &ada);

    // Another node leads: the one that did tells, and what it tells is enough.
    let leads = leader(&mut cluster, seed);
    let other = (1..=3).find(|id| ![leads, seed].contains(id)).unwrap();
    let data = cluster.node(leads).data().display().to_string();
    let (to, of) = (other.to_string(), group.to_string());
    let order = ["cluster", "transfer-leader", "--data", &data];
    run_ok(order.into_iter().chain(["--to", &to, "--group", &of]));
    wait_direct(&cluster, &runtime, &ada);

    // The only node that it was given is gone, also for the next command of its owner.
    cluster.node(seed).kill();
    wait_direct(&cluster, &runtime, &ada);
    let ada = ada.finding_its_way(None);
    wait_direct(&cluster, &runtime, &ada);
}

/// What a node tells of the map, to nobody in particular.
async fn map_at(address: &str, known_version: u64) -> v1::GetMapResponse {
    let exchange = Exchange {
        server: &address.parse().unwrap(),
        path: GetMap::PATH,
        message: v1::GetMapRequest { known_version }.encode_to_vec().into(),
        authorization: None,
        timeout: crate::support::PATIENCE,
    };
    let reply = GrpcWire::new(None).exchange(exchange).await.unwrap();
    v1::GetMapResponse::decode(reply.message).unwrap()
}

#[tokio::test]
async fn any_node_tells_anybody_where_boxes_are_led() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    for node in cluster.nodes() {
        let address = format!("http://{}", node.client_address());
        let map = map_at(&address, 0).await;
        let told: Vec<_> = map.nodes.iter().map(|node| &node.client_address).collect();
        let nodes = cluster.nodes().iter();
        let nodes: Vec<_> = nodes
            .map(|node| node.client_address().to_string())
            .collect();
        assert_eq!(told, nodes.iter().collect::<Vec<_>>());
        let [group] = &map.groups[..] else {
            panic!("{map:?}");
        };
        assert_eq!(group.node_ids[0], leader, "{map:?}");
        assert_eq!(group.node_ids.len(), 3);
        // One group has all partitions but the spare ones, which come last.
        let [range] = &map.partitions[..] else {
            panic!("{map:?}");
        };
        assert_eq!((range.first, range.group_id), (0, group.group_id));
        assert!(range.last < 256);
        let same = v1::GetMapResponse {
            version: map.version,
            ..Default::default()
        };
        assert_eq!(map_at(&address, map.version).await, same);
    }
}
