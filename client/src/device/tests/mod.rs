//! Devices among themselves, over the real rules of the service.

mod accepting;
mod acting;
mod address_book;
mod deleting;
mod groups;
mod history;
mod identifiers;
mod lies;
mod linking;
mod listening;
mod office;
mod profiles;
mod queue;
mod receipts;
mod receiving;
mod recovering;
mod registration;
mod resetting;
mod rotating;
mod safety;
mod sending;
mod siblings;
mod signals;
mod withdrawing;

use std::path::Path;
use std::sync::Arc;

use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_seams::random::SeededRandom;
use tempfile::TempDir;

pub use self::office::{Cut, Fault, Office, RESET_DELAY_MS};
use super::*;
use crate::envelope::Content;

pub struct Person {
    pub home: TempDir,
    pub device: Device,
    pub address: DeviceAddress,
}

pub fn environment(office: &Arc<Office>, seed: u64) -> Environment {
    Environment {
        clock: Arc::new(office.clock.clone()),
        random: Arc::new(SeededRandom::new(seed)),
        wire: Some(Arc::clone(office) as Arc<dyn Wire>),
        patience: Patience::default(),
        learns_map: false,
    }
}

pub fn servers() -> Servers {
    let addresses = vec!["http://127.0.0.1:1".parse().unwrap()];
    Servers {
        addresses,
        ca_pem: None,
    }
}

pub fn passphrase() -> Passphrase {
    Passphrase::new("open sesame").unwrap()
}

pub fn email(seed: u64) -> Identifier {
    Identifier::email(&format!("person{seed}@example.org")).unwrap()
}

pub fn new_device(office: &Arc<Office>, home: &Path, seed: u64) -> Device {
    let environment = environment(office, seed);
    Device::create(home, &passphrase(), KdfCost::NONE, &servers(), environment).unwrap()
}

pub async fn person(office: &Arc<Office>, seed: u64) -> Person {
    let home = tempfile::tempdir().unwrap();
    let device = new_device(office, home.path(), seed);
    let registered = device.register(&email(seed), true).await.unwrap();
    let address = device
        .authorize(&office.code(&registered.box_id))
        .await
        .unwrap();
    Person {
        home,
        device,
        address,
    }
}

impl Person {
    pub fn box_id(&self) -> BoxId {
        self.address.box_id
    }

    /// Closes the device and opens it again, as the next command does.
    pub fn reopen(self, office: &Arc<Office>, seed: u64) -> Self {
        self.reopen_in(environment(office, seed))
    }

    /// The same, with other surroundings.
    pub fn reopen_in(self, environment: Environment) -> Self {
        let Self {
            home,
            device,
            address,
        } = self;
        drop(device);
        let device = Device::open(home.path(), &passphrase(), environment).unwrap();
        Self {
            home,
            device,
            address,
        }
    }

    /// A copy of the home, as a backup makes it.
    pub fn back_up(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for file in ["key", "device.redb"] {
            std::fs::copy(self.home.path().join(file), copy.path().join(file)).unwrap();
        }
        copy
    }

    /// The device in a backup takes this one's place.
    pub fn restore(self, backup: TempDir, office: &Arc<Office>, seed: u64) -> Self {
        let address = self.address;
        drop(self);
        let device = Device::open(backup.path(), &passphrase(), environment(office, seed)).unwrap();
        Self {
            home: backup,
            device,
            address,
        }
    }

    pub async fn say(&self, to: &Person, words: &str) -> Delivery {
        let content = Content::Text(words.to_owned());
        self.device
            .send(&to.box_id(), &content)
            .await
            .unwrap()
            .delivery
    }

    /// The texts that came in now.
    pub async fn hear(&self) -> Vec<String> {
        let received = self.device.receive().await.unwrap();
        assert!(received.interrupted.is_none(), "{:?}", received.interrupted);
        texts(&received.messages)
    }

    /// All texts that ever came in.
    pub fn heard(&self) -> Vec<String> {
        let messages = self.device.messages().unwrap();
        texts(
            messages
                .iter()
                .filter(|message| message.direction == Direction::In),
        )
    }
}

pub fn texts<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<String> {
    messages
        .into_iter()
        .map(|message| match (&message.content, &message.status) {
            (Some(Content::Text(text)), _) => text.clone(),
            (_, Status::Unreadable { code, .. }) => format!("<{code}>"),
            other => format!("{other:?}"),
        })
        .collect()
}

/// A device can be shared by tasks.
#[test]
fn a_device_and_its_futures_can_cross_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn check(device: &Device, to: &BoxId, content: &Content) {
        is_send(&device);
        is_send(&device.send(to, content));
        is_send(&device.receive());
        is_send(&device.leave_group(&crate::group::GroupId::of(
            crate::envelope::ConversationId::from_bytes([0; 16]),
        )));
        is_send(&device.resend());
        is_send(&device.rotate_keys());
        is_send(&device.rejoin());
        is_send(&async {
            let by = crate::linking::RecoverBy::Box(*to);
            let seed = device.recovery_seed().unwrap();
            let linking = Linking::open(Path::new(""), &passphrase(), Environment::default());
            linking.unwrap().recover(&by, &seed, true).await.map(drop)
        });
        is_send(&device.revoke(&device.identity().device()));
        is_send(&async { device.listen().unwrap().next().await.map(drop) });
    }
    let _ = check;
}
