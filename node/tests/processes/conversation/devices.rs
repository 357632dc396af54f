//! One person with two devices: linked, each told what the other sends, one revoked.

use std::process::{Child, Stdio};

use rossby_client::store::Passphrase;
use rossby_client::{Device, Environment};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{PASSPHRASE, Person, person, texts};
use crate::support::{Cluster, eventually, stderr};

/// Links a device to the box of another one, by its code. It asks one node.
pub(super) fn link(cluster: &Cluster, owner: &Person, name: &str, at: usize) -> Person {
    let new = Person::named(cluster, name);
    let server = format!("--server={}", cluster.nodes()[at].client_address());
    // What the other device draws, and a person types on this one.
    let drawn = "--challenge=204863";
    let first: [&str; 8] = [
        "devices", "link", &server, "--name", name, "--wait", "0", drawn,
    ];
    let shown = new.json(&first);
    assert_eq!(shown["linked"], false);
    let code = shown["code"].as_str().unwrap();

    // Cut off and begun again, it shows the same.
    let again = new.run(&["devices", "link", "--wait", "0", drawn]);
    assert_eq!(again.status.code(), Some(4));
    let page = String::from_utf8(again.stdout).unwrap();
    let digits = shown["compare"].as_str().unwrap();
    assert!(page.contains(code) && page.contains(digits), "{page}");
    assert!(page.contains('█'), "no QR code: {page}");

    let asked = owner.fails(1, &["devices", "approve", code, drawn]);
    assert!(asked.contains(digits) && asked.contains(name), "{asked}");
    let approved = owner.json(&["devices", "approve", code, "--yes", drawn]);
    assert_eq!(approved["compare"], shown["compare"]);
    // Nothing is stored before its owner has said that the box is theirs.
    let asked = new.fails(1, &["devices", "link", drawn]);
    let digits = approved["compare_box"].as_str().unwrap();
    assert!(asked.contains(digits), "{asked}");
    assert!(asked.contains("nothing was stored"), "{asked}");
    let right = format!("--box={}", approved["box"].as_str().unwrap());
    let linked = new.json(&["devices", "link", &right]);
    assert_eq!(linked["linked"], true);
    assert_eq!(linked["box"], approved["box"]);
    new
}

/// Whom a person's device knows, without when it met them.
fn address_book(person: &Person) -> Vec<Value> {
    let mut contacts: Vec<Value> = person
        .json(&["contacts", "list"])
        .as_array()
        .unwrap()
        .clone();
    for contact in &mut contacts {
        contact.as_object_mut().unwrap().remove("since_ms");
    }
    contacts
}

/// All texts of a person's device, sent ones too, in alphabetical order.
fn all_texts(person: &Person) -> Vec<String> {
    let mut texts = texts(&person.json(&["inbox", "--all"])["messages"]);
    texts.sort();
    texts
}

/// What waits in a person's box, as the service tells.
fn depth(person: &Person) -> u64 {
    let passphrase = Passphrase::new(PASSPHRASE).unwrap();
    let device = Device::open(&person.home, &passphrase, Environment::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(device.receive()).unwrap().status.depth
}

/// A listener of a person, once it is connected.
fn listen(person: &Person) -> Child {
    let said = person.home.with_extension("said");
    let log = std::fs::File::create(&said).unwrap();
    let mut command = person.command(&["listen", "--json"]);
    let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    eventually("it listens", || {
        let said = std::fs::read_to_string(&said).unwrap();
        said.contains("listening").then_some(())
    });
    child
}

#[test]
fn a_person_has_two_devices_until_one_is_revoked() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    alice.ok(&["send", &bob.email, "before the link"]);
    let laptop = link(&cluster, &bob, "laptop", 0);
    alice.ok(&["send", &bob.email, "for both"]);
    assert_eq!(bob.hear(), ["before the link", "for both"]);
    laptop.ok(&["send", &alice.box_id(), "from the laptop"]);
    bob.ok(&["send", &alice.box_id(), "from the first"]);
    assert_eq!(alice.hear(), ["from the laptop", "from the first"]);
    let both = ["for both", "from the first", "from the laptop"];
    assert_eq!(all_texts(&laptop), both);
    assert_eq!(all_texts(&bob), [&["before the link"][..], &both].concat());

    // What is said of somebody on one device is known on the other, as is what was chosen.
    bob.ok(&["contacts", "add", &alice.email, "--name", "Alice"]);
    bob.ok(&["safety", "verify", "Alice", "--yes"]);
    bob.ok(&["receipts", "read", "off"]);
    bob.ok(&["block", &alice.box_id()]);
    bob.ok(&["unblock", &alice.box_id()]);
    let stranger = person(&cluster, "carol").box_id();
    bob.ok(&["block", &stranger]);
    laptop.ok(&["inbox"]);
    assert!(
        laptop
            .ok(&["contacts", "list", "--blocked"])
            .starts_with(&stranger)
    );
    let blocked = laptop.json(&["contacts", "list", "--blocked"]);
    assert_eq!(blocked, json!([{ "box": stranger, "blocked": true }]));
    assert_eq!(address_book(&laptop), address_book(&bob));
    let known = &address_book(&laptop)[0];
    assert_eq!(
        (&known["name"], &known["verified"]),
        (&json!("Alice"), &json!(true))
    );
    assert_eq!(laptop.json(&["receipts", "show"])["read"], false);

    // Who has stolen one of them could have mail gone before the others fetch it.
    laptop.ok(&["box", "ttl", "7d"]);
    let is_told = || {
        let said = stderr(&bob.run(&["inbox"]));
        said.contains("may wait in this box for 7d")
    };
    assert!(is_told() && !is_told());

    let mut listener = listen(&laptop);
    // Stopped, it acknowledges nothing more.
    kill_process(Pid::from_child(&listener), Signal::STOP).unwrap();
    alice.ok(&["send", &bob.email, "unread"]);
    bob.hear();
    bob.ok(&["devices", "rename", "this", "phone"]);
    let devices = bob.json(&["devices", "list"]);
    let names: Vec<&Value> = devices
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["phone", "laptop"]);
    assert!(depth(&bob) > 0);
    let revoked = bob.json(&["devices", "revoke", "laptop", "--yes"]);
    assert_eq!(revoked["revoked"], true);
    depth(&bob);
    assert_eq!(
        depth(&bob),
        0,
        "what only the revoked one had not read is gone"
    );

    kill_process(Pid::from_child(&listener), Signal::CONT).unwrap();
    let ended = eventually("its stream ends", || listener.try_wait().unwrap());
    assert_eq!(ended.code(), Some(5));
    for refused in [&["inbox"][..], &["devices", "list"]] {
        let said = laptop.fails(5, refused);
        assert!(said.contains("DEVICE_REVOKED"), "{said}");
    }
    let said = bob.fails(5, &["devices", "revoke", "this", "--yes"]);
    assert!(said.contains("last device"), "{said}");
    alice.ok(&["send", &bob.email, "for one"]);
    assert_eq!(bob.hear(), ["for one"]);
}
