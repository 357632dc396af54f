//! What the store must hold, and withstand.

use proptest::prelude::*;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::PartitionId;
use rossby_domain::ids::{BoxId, Counter};
use rossby_domain::time::Timestamp;
use rossby_seams::random::{OsRandom, SeededRandom};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use super::rows::{ContactRowV1, PendingRowV1, PendingRowV2};
use super::*;
use crate::envelope::ConversationId;
use crate::group::GroupId;

fn passphrase() -> Passphrase {
    Passphrase::new("correct horse").unwrap()
}

fn create(home: &Path) -> Store {
    Store::create(
        home,
        &passphrase(),
        KdfCost::NONE,
        Arc::new(SeededRandom::new(1)),
        |_| Ok(()),
    )
    .unwrap()
}

fn open(home: &Path) -> Result<Store, StoreError> {
    Store::open(home, &passphrase(), Arc::new(OsRandom))
}

fn a_box(n: u8) -> BoxId {
    BoxId::derive(PartitionId::new(1).unwrap(), &[n; 32])
}

fn counter(n: u64) -> CounterRow {
    CounterRow {
        last: Counter(n),
        compared_at: Timestamp::default(),
    }
}

#[test]
fn what_is_written_is_there_after_opening_again() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    store
        .write(|batch| batch.put(&a_box(1), &counter(7)))
        .unwrap();
    drop(store);
    let store = open(home.path()).unwrap();
    assert_eq!(
        store.get::<CounterRow>(&a_box(1)).unwrap(),
        Some(counter(7))
    );
    assert_eq!(store.get::<CounterRow>(&a_box(2)).unwrap(), None);
    assert_eq!(
        store.all::<CounterRow>().unwrap(),
        vec![(a_box(1), counter(7))]
    );
}

#[test]
fn a_wrong_passphrase_is_told_apart() {
    let home = tempfile::tempdir().unwrap();
    drop(create(home.path()));
    let wrong = Passphrase::new("battery staple").unwrap();
    let opened = Store::open(home.path(), &wrong, Arc::new(OsRandom));
    assert!(matches!(opened, Err(StoreError::WrongPassphrase)));
    let none = Store::open(home.path(), &Passphrase::none(), Arc::new(OsRandom));
    assert!(matches!(none, Err(StoreError::WrongPassphrase)));
    assert!(matches!(
        Passphrase::new(""),
        Err(StoreError::EmptyPassphrase)
    ));
}

#[test]
fn a_changed_passphrase_takes_the_place_of_the_old_one() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    let new = Passphrase::new("battery staple").unwrap();
    store
        .change_passphrase(&passphrase(), &new, KdfCost::NONE)
        .unwrap();
    assert!(
        store
            .change_passphrase(&passphrase(), &new, KdfCost::NONE)
            .is_err()
    );
    drop(store);
    assert!(matches!(
        open(home.path()),
        Err(StoreError::WrongPassphrase)
    ));
    assert!(Store::open(home.path(), &new, Arc::new(OsRandom)).is_ok());
}

#[test]
fn one_process_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    assert!(matches!(open(home.path()), Err(StoreError::InUse(_))));
    drop(store);
    assert!(open(home.path()).is_ok());
}

#[test]
fn a_device_is_made_once_and_opened_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(open(home.path()), Err(StoreError::Missing(_))));
    drop(create(home.path()));
    let again = Store::create(
        home.path(),
        &passphrase(),
        KdfCost::NONE,
        Arc::new(SeededRandom::new(2)),
        |_| Ok(()),
    );
    assert!(matches!(again, Err(StoreError::Exists(_))));
}

#[test]
fn a_half_made_device_is_made_anew() {
    let home = tempfile::tempdir().unwrap();
    drop(create(home.path()));
    std::fs::remove_file(home.path().join("key")).unwrap();
    drop(create(home.path()));
    assert!(open(home.path()).is_ok());
}

#[test]
fn a_store_without_its_first_rows_is_none() {
    let home = tempfile::tempdir().unwrap();
    let random = Arc::new(SeededRandom::new(1));
    let fails = |_: &mut Batch<'_>| Err(StoreError::Encrypt);
    let failed = Store::create(home.path(), &passphrase(), KdfCost::NONE, random, fails);
    assert!(failed.is_err());
    assert!(!Store::is_in(home.path()));
    drop(create(home.path()));
}

#[test]
fn only_the_owner_can_read_the_files() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("device");
    drop(create(&path));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in ["key", "device.redb", "lock"] {
        assert_eq!(mode(&path.join(file)), 0o600, "{file}");
    }
    // A restore that was careless about it is put right.
    std::fs::set_permissions(path.join("key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&path).unwrap());
    assert_eq!(mode(&path.join("key")), 0o600);
}

#[test]
fn a_failed_transaction_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    let failed: Result<(), _> = store.write(|batch| {
        batch.put(&a_box(1), &counter(7))?;
        Err(StoreError::Encrypt)
    });
    assert!(failed.is_err());
    assert_eq!(store.get::<CounterRow>(&a_box(1)).unwrap(), None);
}

#[test]
fn what_could_be_written_can_be_read_however_large_it_is() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    let account = AccountRow {
        servers: vec!["s".repeat((1 << 20) + 1)],
        ca_pem: None,
        identifier: None,
        discoverable: false,
        box_id: None,
        access: None,
    };
    store.write(|batch| batch.put(&(), &account)).unwrap();
    let read: AccountRow = store.get(&()).unwrap().unwrap();
    assert_eq!(read.servers, account.servers);
}

#[test]
fn nothing_is_in_clear_in_the_files() {
    let home = tempfile::tempdir().unwrap();
    let canary = "canary-4711@example.org";
    let find = |needle: &[u8]| {
        ["key", "device.redb"].iter().any(|file| {
            let bytes = std::fs::read(home.path().join(file)).unwrap();
            bytes.windows(needle.len()).any(|window| window == needle)
        })
    };
    let store = create(home.path());
    let account = AccountRow {
        servers: vec![canary.to_owned()],
        ca_pem: None,
        identifier: Some((&Identifier::email(canary).unwrap()).into()),
        discoverable: true,
        box_id: Some(a_box(1)),
        access: None,
    };
    store.write(|batch| batch.put(&(), &account)).unwrap();
    store
        .write(|batch| batch.put(&a_box(1), &counter(7)))
        .unwrap();
    drop(store);
    assert!(!find(canary.as_bytes()));
    assert!(!find(a_box(1).as_bytes()));
    // The search is one that would find it.
    std::fs::write(home.path().join("key"), format!("..{canary}..")).unwrap();
    assert!(find(canary.as_bytes()));
}

#[test]
fn rows_that_were_exchanged_or_changed_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    let rows = [(a_box(1), counter(1)), (a_box(2), counter(2))];
    store
        .write(|batch| rows.iter().try_for_each(|(key, row)| batch.put(key, row)))
        .unwrap();
    let hashed = |key: &BoxId| {
        store
            .cipher
            .hash(CounterRow::TABLE, &encode_key::<CounterRow>(key).unwrap())
    };
    let (one, two) = (hashed(&a_box(1)), hashed(&a_box(2)));
    let transaction = store.database.begin_write().unwrap();
    {
        let mut table = transaction
            .open_table(definition(CounterRow::TABLE))
            .unwrap();
        let other = table.get(two.as_slice()).unwrap().unwrap().value().to_vec();
        table.insert(one.as_slice(), other.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    let read = store.get::<CounterRow>(&a_box(1));
    assert!(matches!(
        read,
        Err(StoreError::Damaged { table: "counters" })
    ));
    assert_eq!(
        store.get::<CounterRow>(&a_box(2)).unwrap(),
        Some(counter(2))
    );
}

#[test]
fn a_home_of_a_later_version_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    store
        .write(|batch| {
            batch.put(
                &(),
                &Schema {
                    version: SCHEMA + 1,
                },
            )
        })
        .unwrap();
    drop(store);
    assert!(matches!(
        open(home.path()),
        Err(StoreError::LaterSchema { found: 2 })
    ));
}

/// A contact as earlier versions wrote it.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct EarlierContact(ContactRowV1);

impl Row for EarlierContact {
    const TABLE: &'static str = ContactRow::TABLE;
    const VERSION: u8 = 1;
    type Key = BoxId;
}

#[test]
fn a_contact_that_an_earlier_version_wrote_is_read_as_not_verified() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    let pinned = crate::envelope::ChainPoint {
        version: 3,
        hash: [7; 32],
    };
    let earlier = EarlierContact(ContactRowV1 {
        name: Some("Bob".to_owned()),
        identifier: Some((&Identifier::email("bob@example.org").unwrap()).into()),
        record: vec![1, 2, 3],
        pinned,
        since: Timestamp::from_millis(5),
        added: true,
        blocked: false,
    });
    store.write(|batch| batch.put(&a_box(1), &earlier)).unwrap();
    let row: ContactRow = store.get(&a_box(1)).unwrap().unwrap();
    assert_eq!((row.name.as_deref(), row.pinned), (Some("Bob"), pinned));
    assert_eq!((row.added, row.verified, row.changed), (true, None, None));
    // A later one is not guessed at.
    assert!(decode_value::<ContactRow>(&[3, 0]).is_err());
    assert!(decode_value::<ContactRow>(&[1, 0]).is_err());
}

/// A pending envelope as earlier versions wrote it.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct EarlierPending(PendingRowV1);

impl Row for EarlierPending {
    const TABLE: &'static str = PendingRow::TABLE;
    const VERSION: u8 = 1;
    type Key = (BoxId, Counter);
}

#[test]
fn what_was_pending_before_there_were_groups_still_goes_to_its_recipient_alone() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    let earlier = EarlierPending(PendingRowV1 {
        content: crate::crypto::secret::SecretBytes::new(vec![0, 1, 1, 7]),
        written_at: Timestamp::from_millis(5),
        body: vec![1, 2, 3],
        chain_version: 4,
        order: 6,
    });
    let key = (a_box(1), Counter(2));
    store.write(|batch| batch.put(&key, &earlier)).unwrap();
    let row: PendingRow = store.get(&key).unwrap().unwrap();
    assert_eq!(
        (row.body, row.chain_version, row.order),
        (vec![1, 2, 3], 4, 6)
    );
    assert_eq!((row.group, row.ttl_ms), (None, None));
}

/// The same as the version after that wrote it.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct PendingInGroup(PendingRowV2);

impl Row for PendingInGroup {
    const TABLE: &'static str = PendingRow::TABLE;
    const VERSION: u8 = 2;
    type Key = (BoxId, Counter);
}

#[test]
fn what_was_pending_before_messages_had_a_time_still_goes_to_its_group() {
    let home = tempfile::tempdir().unwrap();
    let store = create(home.path());
    let conversation = ConversationId::direct(&a_box(1), &a_box(2));
    let group = Some(GroupId::of(conversation));
    let earlier = PendingRowV1 {
        content: crate::crypto::secret::SecretBytes::new(vec![0, 1, 1, 7]),
        written_at: Timestamp::from_millis(5),
        body: vec![1, 2, 3],
        chain_version: 4,
        order: 6,
    };
    let key = (a_box(1), Counter(2));
    let earlier = PendingInGroup((earlier, group));
    store.write(|batch| batch.put(&key, &earlier)).unwrap();
    let row: PendingRow = store.get(&key).unwrap().unwrap();
    assert_eq!((row.order, row.group, row.ttl_ms), (6, group, None));
}

#[test]
fn the_standard_cost_is_that_of_the_design() {
    assert_eq!(KdfCost::STANDARD.memory_kib, 64 * 1024);
    assert_eq!(KdfCost::STANDARD.passes, 3);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u64),
    Remove(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..6, any::<u64>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (0_u8..6).prop_map(Step::Remove),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if std::env::var_os("ROSSBY_LONG").is_some() { 500 } else { 12 }
    ))]

    #[test]
    fn the_store_is_a_map(steps in steps()) {
        let home = tempfile::tempdir().unwrap();
        let mut store = create(home.path());
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(key, value) => {
                    store.write(|batch| batch.put(&a_box(key), &counter(value))).unwrap();
                    model.insert(a_box(key), counter(value));
                }
                Step::Remove(key) => {
                    store.write(|batch| batch.remove::<CounterRow>(&a_box(key))).unwrap();
                    model.remove(&a_box(key));
                }
                Step::Reopen => {
                    drop(store);
                    store = open(home.path()).unwrap();
                }
            }
            let mut rows = store.all::<CounterRow>().unwrap();
            rows.sort_by_key(|(key, _)| *key);
            prop_assert_eq!(rows, model.clone().into_iter().collect::<Vec<_>>());
        }
    }
}
