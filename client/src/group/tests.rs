//! Whatever is done at the same time, and however it comes: one group.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use rossby_domain::ids::{DeviceAddress, DeviceId, PartitionId};
use rossby_domain::time::Timestamp;

use super::*;

/// Devices of each box.
const DEVICES: [u8; 6] = [2, 2, 1, 1, 1, 1];

fn box_of(person: usize) -> BoxId {
    BoxId::derive(PartitionId::new(1).unwrap(), &[person as u8; 32])
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn author<'a>(address: &DeviceAddress, key: &'a SigningKey) -> Author<'a> {
    Author {
        address: *address,
        key,
        now: Timestamp::default(),
    }
}

fn name(text: &str) -> GroupName {
    GroupName::new(text).unwrap()
}

/// Devices that each know what reached them, and what is on its way.
struct World {
    devices: Vec<DeviceAddress>,
    groups: BTreeMap<DeviceAddress, Group>,
    on_its_way: Vec<(DeviceAddress, Word)>,
}

impl World {
    /// The first person's group, with nobody else in it.
    fn new() -> Self {
        let devices = DEVICES.iter().enumerate().flat_map(|(person, devices)| {
            (0..*devices).map(move |device| DeviceAddress {
                box_id: box_of(person),
                device: DeviceId::from_bytes([device; 16]),
            })
        });
        let devices: Vec<_> = devices.collect();
        let origin = Origin {
            maker: box_of(0),
            nonce: [3; 16],
        };
        let group = Group::create(origin, &author(&devices[0], &key()), name("a"), &[]).unwrap();
        let mut world = Self {
            groups: BTreeMap::new(),
            devices,
            on_its_way: Vec::new(),
        };
        let by = world.devices[0];
        world.groups.insert(by, group);
        world.send(&by, true, [].into());
        world
    }

    /// What one device says goes to these boxes, and to the other devices of its own.
    fn send(&mut self, by: &DeviceAddress, to_all: bool, to: std::collections::BTreeSet<BoxId>) {
        for word in Word::all_of(&self.groups[by], to_all) {
            // Through its bytes, as everywhere.
            let word = Word::decode(&word.encode()).unwrap().unwrap();
            let gets = |device: &&DeviceAddress| {
                *device != by && (to.contains(&device.box_id) || device.box_id == by.box_id)
            };
            let to = self.devices.iter().filter(gets);
            self.on_its_way.extend(to.map(|to| (*to, word.clone())));
        }
    }

    fn deliver(&mut self, which: usize, again: bool) {
        let which = which % self.on_its_way.len();
        let (to, word) = match again {
            true => self.on_its_way[which].clone(),
            false => self.on_its_way.swap_remove(which),
        };
        let known = self.groups.get(&to).cloned();
        let mut group = known.clone().unwrap_or_else(|| Group::unknown(word.origin));
        let heard = group.hear(word, &to);
        if known.is_none() && !group.names(&to.box_id) {
            return;
        }
        self.groups.insert(to, group);
        if !heard.tell.is_empty() {
            self.send(&to, false, heard.tell);
        }
    }

    fn act(&mut self, device: usize, what: u8, about: usize) {
        let by = self.devices[device % self.devices.len()];
        let who = [box_of(about % DEVICES.len())];
        let Some(mut group) = self.groups.get(&by).cloned() else {
            return;
        };
        let key = key();
        let author = &author(&by, &key);
        let told = match what {
            0..=3 => group.add(author, &who),
            4..=5 => group.remove(author, &who),
            6 => group.leave(author),
            _ => group.rename(author, name(&format!("{device} {about}"))),
        };
        // What is refused changes nothing.
        if let Ok(told) = told {
            self.groups.insert(by, group);
            self.send(&by, true, told);
        }
    }

    /// All that was ever said.
    fn truth(&self) -> View {
        let pages = |group: &Group| group.pages().cloned().collect::<Vec<_>>();
        let origin = self.groups[&self.devices[0]].origin();
        let mut all = Group::unknown(origin);
        let nobody = DeviceAddress {
            box_id: box_of(99),
            device: DeviceId::from_bytes([9; 16]),
        };
        for group in self.groups.values() {
            let word = Word {
                origin,
                to_all: false,
                pages: pages(group),
            };
            all.hear(word, &nobody);
        }
        all.view()
    }
}

fn shown(view: &View) -> (Vec<BoxId>, Option<GroupName>) {
    (view.members.clone(), view.name.clone())
}

#[derive(Debug, Clone)]
enum Step {
    Act(usize, u8, usize),
    Deliver(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let act =
        (0_usize..8, 0_u8..9, 0_usize..6).prop_map(|(by, what, who)| Step::Act(by, what, who));
    let deliver = (any::<usize>(), prop::bool::weighted(0.2))
        .prop_map(|(which, again)| Step::Deliver(which, again));
    let step = prop_oneof![2 => act, 3 => deliver];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_device_has_the_same_group_in_the_end(steps in steps(), last in any::<[u16; 16]>()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Act(by, what, who) => world.act(by, what, who),
                Step::Deliver(which, again) if !world.on_its_way.is_empty() => {
                    world.deliver(which, again);
                }
                Step::Deliver(..) => {}
            }
        }
        let mut rounds = 0;
        while !world.on_its_way.is_empty() {
            world.deliver(usize::from(last[rounds % last.len()]), false);
            rounds += 1;
            prop_assert!(rounds < 20_000, "it never ends");
        }
        let truth = world.truth();
        for device in &world.devices {
            let known = world.groups.get(device).map(Group::view);
            if truth.has(&device.box_id) {
                let known = known.map(|known| shown(&known));
                prop_assert_eq!(known, Some(shown(&truth)), "{:?}", device);
            } else if let Some(known) = known {
                prop_assert!(!known.has(&device.box_id), "{:?} believes to be in", device);
            }
        }
    }
}
