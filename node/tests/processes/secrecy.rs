//! What the post office must not know is nowhere on its disks and in its logs; nor is it in the
//! clear on the devices'.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rossby_client::crypto::recovery;
use rossby_client::device::{Delivery, DeviceError, Direction, LookupBy};
use rossby_client::envelope::{Content, File, Location, Picture, Voice};
use rossby_client::group::GroupName;
use rossby_client::linking::DeviceName;
use rossby_client::profile::Profile;
use rossby_client::store::{AccountRow, IdentityRow, Passphrase, ProfileRow, Store};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::BoxId;
use rossby_seams::random::{OsRandom, bytes};

use crate::support::Cluster;
use crate::support::people::{Person, code_for};
use crate::support::search::{Secrets, files};

const PHONE: &str = "+491709876504321";
const EMAIL: &str = "quetzalcoatl.axolotl@rossby.example";
const NOBODY: &str = "+491709999888777";
const TEXTS: [&str; 3] = [
    "the walrus sings at midnight, Grüße",
    "and the pangolin answers before dawn",
    "unread: the narwhal keeps its own counsel",
];
const FILE_NAME: &str = "treasure-island-map.bin";
const MEDIA_TYPE: &str = "application/x-treasure";
const DISPLAY_NAME: &str = "Aunt Philomena Featherstone";
const SECOND_EMAIL: &str = "huitzilopochtli.colibri@rossby.example";
/// What else is said, called and shown, with what kind of thing it is.
const SHOWN: [(&str, &str); 10] = [
    ("profile name", "Commodore Barnaby Wexford"),
    ("profile line", "collects meteorites and regrets"),
    ("group name", "Society of Moonlit Beekeepers"),
    ("text to a group", "the hive moves on the equinox"),
    ("caption", "sunset over the obsidian bay"),
    ("edit", "and the aardvark answers after lunch"),
    ("reply", "tell the walrus to hum instead"),
    ("device name", "periwinkle tricorder"),
    ("label of a place", "the lighthouse behind the quarry"),
    ("name told to own devices", "Great-uncle Thelonious"),
];

/// Everything that is said in the conversation.
struct Said {
    ada: Person,
    ben: Person,
    /// Ben's other device.
    tablet: Person,
    codes: Vec<String>,
    /// Encryption keys that were rotated away since.
    earlier_keys: Vec<Vec<u8>>,
    file: [u8; 64],
    voice: [u8; 64],
}

#[test]
fn nothing_secret_is_on_the_disks_or_in_the_logs() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::of_with(3, &["--log=trace"]);
    let said = runtime.block_on(converse(&cluster));
    let (ada, ben) = (said.ada.box_id(), said.ben.box_id());
    let homes = [&said.ada, &said.ben, &said.tablet].map(|person| person.home.clone());
    let mut secrets = secrets_of_people(said);
    add_cluster_keys(&mut secrets, &cluster.node(1).secrets());

    assert_memory_holds_no_mail(&mut cluster, &secrets);
    // In the log and in checkpoints, and, after an end in good order, in the base.
    for id in 1..=3 {
        let pages = ["/metrics", "/readyz"].map(|page| cluster.node(id).page(page).unwrap().1);
        for page in pages {
            assert_eq!(secrets.in_bytes(page.as_bytes()), [].into());
        }
        cluster.node(id).checkpoint();
        cluster.node(id).terminate();
    }
    let mut refusals = 0;
    for id in 1..=3 {
        let data = cluster.node(id).data();
        assert_search_sees_boxes(&data, &[ada, ben]);
        assert_only_what_is_planted(&secrets, &data);
        let log = cluster.node(id).log() + &cluster.node(id).out();
        refusals += log
            .matches("DEBUG rossby_api::mailbox: a call was refused")
            .count();
        assert_eq!(secrets.in_bytes(log.as_bytes()), [].into(), "node {id}");
    }
    assert!(refusals >= 3, "the logs are not at their most talkative");
    for home in &homes {
        assert_only_what_is_planted(&secrets, home);
    }
}

/// Two people register (one mistypes the code), write to each other, send a file, and leave
/// something unread; somebody asks for people who are not there; and then they do all else that there is to do.
async fn converse(cluster: &Cluster) -> Said {
    let ada = Person::new(cluster, Identifier::phone(PHONE).unwrap(), 0);
    let ben = Person::new(cluster, Identifier::email(EMAIL).unwrap(), 1);
    let mut codes = Vec::new();
    for person in [&ada, &ben] {
        let registered = person.device.register(&person.identifier, true).await;
        registered.unwrap();
        let right = code_for(cluster, &person.identifier);
        let wrong = format!("{:08}", (right.parse::<u64>().unwrap() + 1) % 100_000_000);
        let refused = person.device.authorize(&wrong).await.unwrap_err();
        assert!(is_refused(&refused, "WRONG_CODE"), "{refused}");
        person.device.authorize(&right).await.unwrap();
        codes.extend([right, wrong]);
    }
    // Refusals that a careless service would write to its log.
    let late = Person::new(cluster, Identifier::phone(NOBODY).unwrap(), 2);
    let taken = late.device.register(&ada.identifier, true).await;
    assert!(is_refused(&taken.unwrap_err(), "IDENTIFIER_TAKEN"));
    let nobody = ada
        .device
        .lookup(&LookupBy::Identifier(late.identifier))
        .await;
    assert!(matches!(nobody, Err(DeviceError::NoUser)));

    let by = LookupBy::Identifier(ben.identifier.clone());
    let name = Some(DISPLAY_NAME);
    ada.device.add_contact(&by, name, false).await.unwrap();
    let file: [u8; 64] = bytes(&OsRandom).unwrap();
    let attached = File::new(FILE_NAME, MEDIA_TYPE, file.to_vec()).unwrap();
    say(&ada, &ben, Content::Text(TEXTS[0].to_owned())).await;
    say(&ada, &ben, Content::File(attached)).await;
    assert_eq!(ben.device.receive().await.unwrap().messages.len(), 2);
    say(&ben, &ada, Content::Text(TEXTS[1].to_owned())).await;
    assert_eq!(ada.device.receive().await.unwrap().messages.len(), 1);
    let tablet = live_on(cluster, &ada, &ben, &mut codes).await;
    let voice: [u8; 64] = bytes(&OsRandom).unwrap();
    let spoken = Voice::new("audio/ogg", 1000, voice.to_vec()).unwrap();
    say(&ada, &ben, Content::Voice(spoken)).await;
    let people = [&ada, &ben, &tablet];
    let earlier_keys = people.into_iter().flat_map(kem_seeds).collect();
    for person in people {
        person.device.receive().await.unwrap();
        person.device.rotate_keys().await.unwrap();
        person.device.receive().await.unwrap();
    }
    say(&ada, &ben, Content::Text(TEXTS[2].to_owned())).await;
    Said {
        ada,
        ben,
        tablet,
        codes,
        earlier_keys,
        file,
        voice,
    }
}

/// The encryption keys that a device has now. Its store is in its hands alone, so a copy is opened.
fn kem_seeds(person: &Person) -> Vec<Vec<u8>> {
    let copy = tempfile::tempdir().unwrap();
    for file in ["key", "device.redb"] {
        std::fs::copy(person.home.join(file), copy.path().join(file)).unwrap();
    }
    let store = Store::open(copy.path(), &Passphrase::none(), Arc::new(OsRandom));
    let identity: IdentityRow = store.unwrap().get(&()).unwrap().unwrap();
    let seeds = identity.kem_seeds.iter();
    seeds.map(|(_, seed)| seed.expose().to_vec()).collect()
}

/// Further devices, phones and emails, profiles, groups, edits, and keys that change. Ben's other device.
async fn live_on(cluster: &Cluster, ada: &Person, ben: &Person, codes: &mut Vec<String>) -> Person {
    let [
        profile,
        line,
        group,
        to_group,
        caption,
        edit,
        reply,
        device,
        place,
        called,
    ] = SHOWN.map(|(_, shown)| shown);
    let tablet = ben.linked(cluster, 2).await;
    let name = DeviceName::new(device).unwrap();
    let which = tablet.device.who_am_i().unwrap().device;
    ben.device.rename(&which, &name).await.unwrap();
    let second = Identifier::email(SECOND_EMAIL).unwrap();
    ben.device.add_identifier(&second, true).await.unwrap();
    let code = code_for(cluster, &second);
    ben.device.confirm_identifier(&second, &code).await.unwrap();
    codes.push(code);
    ada.device
        .set_profile(&Profile::new(profile, line, None).unwrap())
        .await
        .unwrap();

    let by = LookupBy::Identifier(ada.identifier.clone());
    let known = ben.device.add_contact(&by, Some(called), false).await;
    known.unwrap();
    let place = Location::new(481_371_540, 115_754_900, 25, place).unwrap();
    say(ben, ada, Content::Location(place)).await;
    let picture = Picture::new("image/png", (2, 2), caption, vec![7; 40]).unwrap();
    say(ben, ada, Content::Picture(picture)).await;
    let group = GroupName::new(group).unwrap();
    let (group, untold) = ada
        .device
        .create_group(group, &[ben.box_id()])
        .await
        .unwrap();
    assert_eq!(untold, 0);
    let to_group = Content::Text(to_group.to_owned());
    ada.device.send_to_group(&group, &to_group).await.unwrap();
    for device in [&ben.device, &tablet.device, &ada.device] {
        device.receive().await.unwrap();
    }
    let messages = ada.device.messages().unwrap();
    let first = messages
        .iter()
        .find(|it| it.direction == Direction::Out)
        .unwrap();
    ada.device.edit(first, edit).await.unwrap();
    ada.device
        .reply(first, Content::Text(reply.to_owned()))
        .await
        .unwrap();
    for device in [&tablet.device, &ben.device, &ada.device] {
        device.rotate_keys().await.unwrap();
        device.receive().await.unwrap();
    }
    ben.device.report(&ada.box_id(), false).await.unwrap();
    for blocked in [true, false] {
        ben.device.block(&ada.box_id(), blocked).await.unwrap();
    }
    tablet
}

async fn say(from: &Person, to: &Person, content: Content) {
    let sent = from.device.send(&to.box_id(), &content).await.unwrap();
    assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
}

fn is_refused(error: &DeviceError, code: &str) -> bool {
    match error {
        DeviceError::Call(error) => error.refusal().is_some_and(|refusal| refusal.code == code),
        _ => false,
    }
}

/// All that only people and their devices may know.
fn secrets_of_people(said: Said) -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add_text("phone", PHONE.trim_start_matches("+49"));
    secrets.add_text("phone of nobody", NOBODY.trim_start_matches("+49"));
    secrets.add_text("email", EMAIL.split('@').next().unwrap());
    secrets.add_text("email, the second", SECOND_EMAIL.split('@').next().unwrap());
    for text in TEXTS {
        secrets.add_text("text", text);
    }
    for (what, shown) in SHOWN {
        secrets.add_text(what, shown);
    }
    secrets.add_text("file name", FILE_NAME);
    secrets.add_text("media type", MEDIA_TYPE);
    secrets.add_text("display name", DISPLAY_NAME);
    secrets.add_bytes("file", &said.file);
    secrets.add_bytes("voice", &said.voice);
    for key in &said.earlier_keys {
        secrets.add_bytes("earlier KEM key", key);
    }
    for code in &said.codes {
        secrets.add_text("code", code);
    }
    for person in [said.ada, said.ben, said.tablet] {
        if let Some(seed) = person.device.recovery_seed() {
            secrets.add_text("recovery key", &recovery::to_text(&seed));
        }
        // Only one process, or one hand in it, may have a device's store.
        drop(person.device);
        let store = Store::open(&person.home, &Passphrase::none(), Arc::new(OsRandom));
        let store = store.unwrap();
        let identity: IdentityRow = store.get(&()).unwrap().unwrap();
        secrets.add_bytes("signing key", identity.signing_seed.expose());
        if let Some(seed) = &identity.recovery_seed {
            secrets.add_bytes("recovery seed", seed.expose());
        }
        for (_, seed) in &identity.kem_seeds {
            secrets.add_bytes("KEM key", seed.expose());
        }
        for (_, row) in store.all::<ProfileRow>().unwrap() {
            if let Some(key) = row.key {
                secrets.add_bytes("profile key", key.expose());
            }
        }
        let account: AccountRow = store.get(&()).unwrap().unwrap();
        secrets.add_bytes("token", account.access.unwrap().token.expose());
    }
    secrets
}

/// The keys in `cluster.keys`, which are kept apart from the data.
fn add_cluster_keys(secrets: &mut Secrets, path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut keys = 0;
    for line in text.lines().skip(1).filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let (name, digits) = (words.next().unwrap(), words.nth(1).unwrap());
        let digit = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let key: Vec<u8> = (0..digits.len()).step_by(2).map(digit).collect();
        secrets.add_bytes(&format!("{name} of the cluster"), &key);
        keys += 1;
    }
    assert_eq!(keys, 3, "pepper, token key and seal key");
}

/// The search finds every form of every secret where this test puts them, and nothing anywhere else.
fn assert_only_what_is_planted(secrets: &Secrets, folder: &Path) {
    let planted = folder.join("planted");
    std::fs::write(&planted, secrets.all_forms()).unwrap();
    let found = secrets.in_folder(folder).into_iter();
    let (ours, others): (Vec<_>, Vec<_>) = found.partition(|(path, _)| *path == planted);
    assert_eq!(others, []);
    let ours: BTreeSet<_> = ours.into_iter().map(|(_, name)| name).collect();
    assert_eq!(ours, secrets.names());
    std::fs::remove_file(planted).unwrap();
}

/// Nodes know people's phones, emails, codes and tokens for as long as a request takes that needs them, and the keys of their
/// cluster; never what is in a letter, nor a key of a device.
fn assert_memory_holds_no_mail(cluster: &mut Cluster, secrets: &Secrets) {
    let passing = ["phone", "email", "code", "token"];
    let is_key = |name: &String| name.contains("of the cluster");
    for id in 1..=3 {
        let node = cluster.node(id);
        node.pause();
        let found = secrets.in_memory(node.pid());
        node.resume();
        let (keys, others): (Vec<_>, Vec<_>) = found.into_iter().partition(is_key);
        assert!(
            !keys.is_empty(),
            "the search does not see the cluster's keys"
        );
        let is_passing = |name: &&String| passing.iter().any(|passing| name.starts_with(passing));
        let mail: Vec<_> = others.iter().filter(|name| !is_passing(name)).collect();
        assert!(mail.is_empty(), "in the memory of node {id}: {mail:?}");
    }
}

/// The search sees what is rightly there, in each kind of file: so nothing hides by compression.
fn assert_search_sees_boxes(data: &Path, boxes: &[BoxId]) {
    let mut known = Secrets::default();
    for box_id in boxes {
        known.add_bytes("box", box_id.as_bytes());
    }
    for folder in ["wal", "checkpoints", "base"] {
        let folder = data.join(folder);
        assert!(!files(&folder).is_empty());
        assert!(
            !known.in_folder(&folder).is_empty(),
            "no box in {}",
            folder.display()
        );
    }
}
