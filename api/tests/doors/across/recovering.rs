//! Recovery by the words of a box whose phone nobody is found by: box, claim and new device in groups that the node which
//! serves it leads none of.

use rossby_api::{Code, RpcPath};
use rossby_domain::chain::KeyRecord;
use rossby_proto::v1;
use tonic::Status;

use super::ANNA;
use super::losing::may_pass;
use super::world::{NODES, THREE, TWO, World, code, owner};
use crate::recovering::{links, lookup, recovery_key, request, taken};
use crate::support::{TestDevice, envelope, sequence};

async fn look(
    world: &World,
    at: u64,
    request: &v1::LookupRecoveryRequest,
) -> Result<KeyRecord, Status> {
    let found = world.plain(at, RpcPath::LookupRecovery, request).await;
    found.map(|found: v1::LookupRecoveryResponse| KeyRecord::decode(&found.key_record).unwrap())
}

#[tokio::test]
async fn a_recovery_that_breaks_off_anywhere_goes_on_at_another_node_and_shuts_the_stolen_device_out()
 {
    let world = World::new().await;
    let anna = world.resident(1, 4, 1, ANNA).await;
    let mut phones = world.phones(THREE);
    for (number, after) in (10..).zip(0..) {
        let phone = phones.next().unwrap();
        let stolen = world.known_by(2, 4, number, (&phone, false)).await;
        assert_eq!(owner(stolen.address.box_id.partition()), Some(TWO));
        let (key, new) = (recovery_key(number), || TestDevice::new(100 + number));
        let signed = links(&stolen.device.record, &new(), &key, true);
        let recover = async |at| {
            let request = request(&stolen.address, &new(), &signed);
            world
                .plain::<_, v1::JoinBoxResponse>(at, RpcPath::Recover, &request)
                .await
        };
        world.break_off(4, after);
        let looked = look(&world, 4, &lookup(&key, &phone)).await;
        let recovered = recover(4).await;
        let is_broken = world.mend(4);
        for refused in [looked.err(), recovered.err()].iter().flatten() {
            assert!(is_broken && may_pass(refused), "after {after}: {refused:?}");
        }
        let tokens = [recover(3).await, recover(1).await];
        let [new, again] = tokens.map(|told| taken(&stolen.address, new(), told.unwrap()));
        assert_eq!(new.token, again.token, "a lost reply");
        for at in 1..=NODES {
            let record = look(&world, at, &lookup(&key, &phone)).await.unwrap();
            let alive: Vec<_> = record.live_devices().collect();
            assert_eq!(alive, [&new.address.device], "after {after}");
        }
        let fetch = v1::FetchRequest::default();
        let fetched = world.signed::<_, v1::FetchResponse>(4, &stolen, RpcPath::Fetch, &fetch);
        let refused = fetched.await.unwrap_err();
        assert_eq!(code(&refused), Code::Unauthenticated.as_str());
        let mut letter = envelope(&new, 1, b"for the new one");
        letter.chain_version = 2;
        let sent = world.send(3, &anna, vec![letter]).await.unwrap();
        assert_eq!(sequence(&sent[0]), 1);
        assert_eq!(world.fetch(1, &new, 0).await, ["for the new one"]);
        if !is_broken {
            break;
        }
    }
}

#[tokio::test]
async fn whose_phone_it_is_nobody_learns_without_the_words_at_any_node() {
    let world = World::new().await;
    let mut phones = world.phones(THREE);
    let (hidden, nobody) = (phones.next().unwrap(), phones.next().unwrap());
    world.known_by(2, 4, 10, (&hidden, false)).await;
    let key = recovery_key(11);
    for at in 1..=NODES {
        let refused = async |phone| {
            let refused = look(&world, at, &lookup(&key, phone)).await.unwrap_err();
            assert_eq!(code(&refused), Code::NotRecoverable.as_str());
            (refused.message().to_owned(), refused.details().to_vec())
        };
        assert_eq!(refused(&hidden).await, refused(&nobody).await);
    }
}
