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
        let mut known = self.groups.values();
        let origin = known.next().expect("nobody knows the group").origin();
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

/// Has all this happen, and then everything arrive. Whoever is in must know the same then, and nobody else believe to be in.
fn live(steps: &[Step], last: &[u16]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for step in steps {
        match *step {
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
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_device_has_the_same_group_in_the_end(
        steps in steps(), last in any::<[u16; 16]>(),
    ) {
        live(&steps, &last)?;
    }
}

/// Box 1 has left, box 2 is there by its word, and box 3, by whose word box 1 was there, is put out.
#[test]
fn who_has_left_tells_those_whom_it_brought_in_that_they_are_out_with_it() {
    let steps = [
        Step::Deliver(0, false),
        Step::Act(0, 0, 3),
        Step::Deliver(162_842_675_926_023_871, false),
        Step::Act(0, 4, 3),
        Step::Act(5, 0, 1),
        Step::Deliver(79_640_807_300_788_471, false),
        Step::Deliver(880_073_718_758_333_511, false),
        Step::Deliver(91_155_152_951_214_653, false),
        Step::Deliver(2_074_678_387_621_835_795, false),
        Step::Deliver(6_780_868_758_582_669_949, false),
        Step::Act(2, 0, 0),
        Step::Act(2, 0, 2),
        Step::Act(2, 4, 1),
        Step::Deliver(1_385_108_031_422_612_722, false),
    ];
    let mut last = [0; 16];
    last[0] = 3156;
    live(&steps, &last).unwrap();
}

/// A group of one, and so many boxes to put in.
fn alone(boxes: usize) -> (DeviceAddress, Group, Vec<BoxId>) {
    let by = DeviceAddress {
        box_id: box_of(0),
        device: DeviceId::from_bytes([0; 16]),
    };
    let origin = Origin {
        maker: by.box_id,
        nonce: [3; 16],
    };
    let group = Group::create(origin, &author(&by, &key()), name("a"), &[]).unwrap();
    let numbered = |number: usize| {
        let number = u32::try_from(number).unwrap().to_be_bytes();
        BoxId::derive(
            PartitionId::new(1).unwrap(),
            &number.repeat(8).try_into().unwrap(),
        )
    };
    (by, group, (1..=boxes).map(numbered).collect())
}

#[test]
fn a_group_is_full_at_its_limit_and_has_room_again_when_somebody_leaves() {
    let (by, mut group, people) = alone(MAX_MEMBERS);
    let key = key();
    let author = author(&by, &key);
    let (last, others) = people.split_last().unwrap();
    group.add(&author, others).unwrap();
    assert_eq!(group.view().members.len(), MAX_MEMBERS);
    // What is refused is dropped by who tries it, as the store does.
    let refused = group.clone().add(&author, &[*last]);
    assert_eq!(refused, Err(GroupError::Full));
    group.remove(&author, &others[..1]).unwrap();
    group.add(&author, &[*last]).unwrap();
    assert_eq!(group.view().members.len(), MAX_MEMBERS);
    // It fits an envelope, and comes out as it went in.
    let words = Word::all_of(&group, true);
    let [word] = &words[..] else {
        panic!("{} words", words.len())
    };
    let mut heard = Group::unknown(group.origin());
    let told = DeviceAddress {
        box_id: *last,
        ..by
    };
    heard.hear(Word::decode(&word.encode()).unwrap().unwrap(), &told);
    assert_eq!(heard.view(), group.view());
}

#[test]
fn a_device_names_so_many_people_and_no_more() {
    let (by, mut group, people) = alone(MAX_VERDICTS + 1);
    let key = key();
    let author = author(&by, &key);
    let (last, others) = people.split_last().unwrap();
    for some in others.chunks(MAX_MEMBERS - 1) {
        group.add(&author, some).unwrap();
        group.remove(&author, some).unwrap();
    }
    let page = group.pages().next().unwrap();
    assert_eq!(page.verdicts.len(), MAX_VERDICTS);
    assert_eq!(Page::decode(&page.encode()).unwrap(), *page);
    let refused = group.clone().add(&author, &[*last]);
    assert_eq!(refused, Err(GroupError::Full));
    // Who is known already goes in and out as before.
    group.add(&author, &others[..1]).unwrap();
}

#[test]
fn of_too_many_pages_those_nearest_to_the_maker_are_kept() {
    let (by, mut group, people) = alone(1);
    let key = key();
    group.add(&author(&by, &key), &people).unwrap();
    let page = |number: usize| {
        let mut device = [0xff; 16];
        device[8..].copy_from_slice(&(number as u64).to_be_bytes());
        let by = DeviceAddress {
            box_id: people[0],
            device: DeviceId::from_bytes(device),
        };
        let mut page = Page::blank(by);
        page.sign(&group.origin().id(), &author(&by, &key));
        page
    };
    let pages: Vec<_> = (0..=MAX_PAGES).map(page).collect();
    for pages in pages.chunks(300) {
        let word = Word {
            origin: group.origin(),
            to_all: false,
            pages: pages.to_vec(),
        };
        let word = Word::decode(&word.encode()).unwrap().unwrap();
        group.hear(word, &by);
    }
    assert_eq!(group.pages().count(), MAX_PAGES);
    assert!(group.pages().any(|page| page.by == by));
    let sent = Word::all_of(&group, false);
    assert_eq!(
        sent.iter().map(|word| word.pages.len()).sum::<usize>(),
        MAX_PAGES
    );
    assert_eq!(sent[0].pages[0].by, by);
}
