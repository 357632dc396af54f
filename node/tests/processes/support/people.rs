//! People with devices: the SDK as a phone would use it, each with a witness.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rossby_client::connection::Patience;
use rossby_client::device::{Linking, LookupBy, Servers};
use rossby_client::envelope::Content;
use rossby_client::linking::DeviceName;
use rossby_client::store::{KdfCost, Passphrase};
use rossby_client::{Device, Environment};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::BoxId;

use super::witness::Witness;
use super::{Cluster, eventually};

/// Somebody with a device.
pub struct Person {
    /// The device.
    pub device: Device,
    /// What the nodes answered to it.
    pub witness: Witness,
    /// Its home.
    pub home: PathBuf,
    /// What it is registered for.
    pub identifier: Identifier,
}

impl Person {
    /// A person whose device is new, in the cluster's folder; it asks the node at `first` before
    /// the others.
    pub fn new(cluster: &Cluster, identifier: Identifier, first: usize) -> Self {
        Self::witnessed(cluster, identifier, first, Witness::new())
    }

    /// The same, with a witness of one's own.
    pub fn witnessed(
        cluster: &Cluster,
        identifier: Identifier,
        first: usize,
        witness: Witness,
    ) -> Self {
        let home = cluster
            .path()
            .join(format!("home-{}", file_name(&identifier)));
        let device = Device::create(
            &home,
            &Passphrase::none(),
            KdfCost::NONE,
            &servers(&addresses(cluster, first)),
            environment(&witness, Patience::default()),
        );
        Self {
            device: device.expect("no device"),
            witness,
            home,
            identifier,
        }
    }

    /// A person who has a box.
    pub async fn with_box(cluster: &Cluster, identifier: Identifier, first: usize) -> Self {
        let person = Self::new(cluster, identifier, first);
        person.join(cluster).await;
        person
    }

    /// A further device of the person, linked by this one; it too asks the node at `first` before the others.
    pub async fn linked(&self, cluster: &Cluster, first: usize) -> Self {
        let home = self.home.with_extension("further");
        let witness = Witness::new();
        let linking = Linking::create(
            &home,
            &Passphrase::none(),
            KdfCost::NONE,
            &servers(&addresses(cluster, first)),
            DeviceName::new("further").expect("not a name"),
            environment(&witness, Patience::default()),
        );
        let linking = linking.expect("no device");
        let approved = self.device.approve(&linking.code()).await;
        approved.expect("not approved");
        let welcome = linking.ask().await.expect("no answer");
        let device = linking.accept(welcome.expect("no welcome")).await;
        Self {
            device: device.expect("not linked"),
            witness,
            home,
            identifier: self.identifier.clone(),
        }
    }

    /// Registers and authorises the device.
    pub async fn join(&self, cluster: &Cluster) {
        let registered = self.device.register(&self.identifier, true).await;
        registered.expect("no registration");
        let code = code_for(cluster, &self.identifier);
        self.device.authorize(&code).await.expect("no box");
    }

    /// The person again, with the device opened anew: one that speaks to these nodes alone, in this
    /// way.
    pub fn reopened(self, addresses: &[String], patience: Patience) -> Self {
        let environment = environment(&self.witness, patience);
        self.opened_anew(Some(addresses), environment)
    }

    fn opened_anew(self, addresses: Option<&[String]>, environment: Environment) -> Self {
        let Self {
            device,
            witness,
            home,
            identifier,
        } = self;
        drop(device);
        let device = Device::open(&home, &Passphrase::none(), environment);
        let mut device = device.expect("the device can't be opened again");
        if let Some(addresses) = addresses {
            device.use_servers(&servers(addresses)).expect("no servers");
        }
        Self {
            device,
            witness,
            home,
            identifier,
        }
    }

    /// The person again, with a device that learns where to go by itself; given these nodes, if any, and
    /// otherwise with all that it knew.
    pub fn finding_its_way(self, addresses: Option<&[String]>) -> Self {
        let environment = Environment {
            learns_map: true,
            ..environment(&self.witness, Patience::default())
        };
        self.opened_anew(addresses, environment)
    }

    /// Takes somebody who can be found into the contacts.
    pub async fn add(&self, other: &Person) {
        let by = LookupBy::Identifier(other.identifier.clone());
        self.device.add_contact(&by, None, false).await.unwrap();
    }

    /// The person's box.
    pub fn box_id(&self) -> BoxId {
        let who = self.device.who_am_i().expect("no account");
        who.box_id.expect("no box")
    }

    /// The texts that came from a box, in the order in which this device got them.
    pub fn texts_from(&self, sender: &BoxId) -> Vec<String> {
        use rossby_client::device::{Direction, Status};
        let mut texts = Vec::new();
        for message in self.device.messages().expect("no messages") {
            if message.direction == Direction::In && message.sender.box_id == *sender {
                assert_eq!(message.status, Status::Received);
                match message.content {
                    Some(Content::Text(text)) => texts.push(text),
                    other => panic!("not a text: {other:?}"),
                }
            }
        }
        texts
    }
}

/// The addresses of a cluster's nodes, that of the node at `first` before the others.
fn addresses(cluster: &Cluster, first: usize) -> Vec<String> {
    let nodes = cluster.nodes();
    let (before, from) = nodes.split_at(first % nodes.len());
    let nodes = from.iter().chain(before);
    nodes
        .map(|node| format!("http://{}", node.client_address()))
        .collect()
}

/// The addresses, as a device takes them.
pub fn servers(addresses: &[String]) -> Servers {
    Servers {
        addresses: addresses
            .iter()
            .map(|address| address.parse().expect("not an address"))
            .collect(),
        ca_pem: None,
    }
}

fn environment(witness: &Witness, patience: Patience) -> Environment {
    Environment {
        wire: Some(Arc::new(witness.clone())),
        patience,
        // Most tests mean the nodes that they name.
        learns_map: false,
        ..Environment::default()
    }
}

/// One try, for which the device would wait longer than any node may take.
pub fn one_patient_try() -> Patience {
    Patience {
        call: Duration::from_secs(10),
        attempt: Duration::from_secs(10),
        first_pause: Duration::from_secs(60),
        longest_pause: Duration::from_secs(60),
        ..Patience::default()
    }
}

/// The code that was sent last to an identifier, from whichever node's outbox.
pub fn code_for(cluster: &Cluster, identifier: &Identifier) -> String {
    eventually("a code", || last_code(cluster, identifier.as_str()))
}

/// The same, if there is one yet.
pub fn last_code(cluster: &Cluster, identifier: &str) -> Option<String> {
    let outboxes = cluster.nodes().iter().map(super::Node::codes);
    let lines: Vec<String> = outboxes.flat_map(|path| lines_of(&path)).collect();
    let codes = lines.iter().filter_map(|line| {
        let mut fields = line.split('\t');
        let at: u64 = fields.next()?.parse().ok()?;
        let to = fields.next()?;
        (to == identifier).then_some((at, fields.next()?))
    });
    codes.max().map(|(_, code)| code.to_owned())
}

fn lines_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| text.split_at(end).0);
    whole.lines().map(str::to_owned).collect()
}

fn file_name(identifier: &Identifier) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    identifier.as_str().chars().map(plain).collect()
}

/// An email address for somebody.
pub fn email(name: &str) -> Identifier {
    Identifier::email(&format!("{name}@rossby.example")).expect("not an address")
}
