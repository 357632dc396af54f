//! Reigns, one after the other, as the guards of several nodes live through them.

use std::collections::HashSet;

use proptest::prelude::*;
use rossby_domain::ids::{BoxId, DeviceId, PartitionId};
use rossby_seams::random::SeededRandom;

use super::*;
use crate::hawk::SignedRequest;
use crate::secrets::ClusterSecrets;

const HOST: &str = "test.rossby";
const MESSAGE: &[u8] = b"message";
const WINDOW_MS: u64 = 60_000;
const AHEAD_MS: u64 = 5_000;
const GROUP: GroupId = GroupId(1);

fn secs(secs: u64) -> Timestamp {
    Timestamp::from_millis(secs * 1000)
}

fn guard() -> Guard {
    Guard::new(GuardConfig {
        host: HOST.to_owned(),
        window_ms: WINDOW_MS,
        ahead_ms: AHEAD_MS,
        nonces: 10_000,
    })
}

/// One device, which signs at any time.
struct Device {
    address: DeviceAddress,
    token: Token,
}

impl Device {
    fn new() -> Self {
        let box_id = BoxId::derive(PartitionId::new(3).unwrap(), &[7; 32]);
        let address = DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([9; 16]),
        };
        let secrets = ClusterSecrets::generate(&SeededRandom::new(1)).unwrap();
        let token = secrets.token(&address, 1);
        Self { address, token }
    }

    fn signed(&self, ts_secs: u64, nonce: u64) -> Presented {
        let signed = SignedRequest {
            address: self.address,
            token: self.token.as_bytes(),
            host: HOST,
            path: RpcPath::Send,
            ts_secs,
            nonce: &format!("nonce-{nonce:06}"),
        };
        Presented::parse(&signed.authorization(MESSAGE).unwrap()).unwrap()
    }

    fn admitted(
        &self,
        guard: &Guard,
        request: &Presented,
        reign: Reign,
        now: Timestamp,
    ) -> Result<(), HawkRefusal> {
        let credentials = Credentials {
            tokens: vec![self.token.clone()],
            known: true,
        };
        guard
            .admit(
                request.clone(),
                RpcPath::Send,
                MESSAGE,
                credentials,
                reign,
                now,
            )
            .map(drop)
    }
}

fn reign(term: u64, since: Timestamp, covered: Timestamp) -> Reign {
    Reign {
        group: GROUP,
        term,
        since,
        covered,
    }
}

#[test]
fn what_later_leaders_would_not_know_of_waits_for_the_log_and_leaves_no_trace() {
    let (guard, device) = (guard(), Device::new());
    let request = device.signed(1_020, 1);
    let early = reign(1, secs(1_000), secs(1_010));
    let refused = device.admitted(&guard, &request, early, secs(1_020));
    let until = secs(1_015);
    assert_eq!(refused, Err(HawkRefusal::NotCovered { until }));
    assert_eq!(guard.nonces(), 0);
    let covered = reign(1, secs(1_000), until);
    assert_eq!(
        device.admitted(&guard, &request, covered, secs(1_020)),
        Ok(())
    );
    let next = reign(2, until, secs(2_000));
    for now in 1_000..1_200 {
        assert!(device.admitted(&guard, &request, next, secs(now)).is_err());
    }
}

#[test]
fn a_time_that_was_only_shown_forgets_nothing_and_shuts_nobody_out_when_it_is_taken_back() {
    let (guard, device) = (guard(), Device::new());
    let here = reign(1, secs(900), secs(1_000));
    let request = device.signed(1_000, 1);
    assert_eq!(device.admitted(&guard, &request, here, secs(1_000)), Ok(()));
    let years_ahead = secs(300_000_000);
    let refused = device.admitted(&guard, &device.signed(1_001, 2), here, years_ahead);
    assert!(matches!(refused, Err(HawkRefusal::WrongTime { .. })));
    let late = device.signed(300_000_000, 3);
    let waits = device.admitted(&guard, &late, here, years_ahead);
    assert!(matches!(waits, Err(HawkRefusal::NotCovered { .. })));
    let again = device.admitted(&guard, &request, here, secs(1_001));
    assert_eq!(again, Err(HawkRefusal::Replayed));
    let next = device.admitted(&guard, &device.signed(1_001, 4), here, secs(1_001));
    assert_eq!(next, Ok(()));
}

#[derive(Debug, Clone)]
enum Step {
    /// A node is elected; it may be a new process.
    Elect { node: usize, restarted: bool },
    /// The log comes to show a time, by the leader.
    Cover(u64),
    /// A request reaches a node in one of its reigns: a new one, or one that was seen before.
    Request {
        node: usize,
        pick: u64,
        ts: u64,
        now: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..3_usize, any::<bool>())
            .prop_map(|(node, restarted)| Step::Elect { node, restarted }),
        2 => (0..400_u64).prop_map(Step::Cover),
        8 => (0..3_usize, 0..60_u64, 0..400_u64, 0..400_u64)
            .prop_map(|(node, pick, ts, now)| Step::Request { node, pick, ts, now }),
    ]
}

proptest! {
    /// Over any sequence of reigns and restarts, whatever clocks show, with deposed leaders that
    /// go on: as long as each reign begins where the log is, no request is admitted twice.
    #[test]
    fn no_request_is_admitted_twice(steps in prop::collection::vec(step(), 1..250)) {
        let device = Device::new();
        let mut guards = [guard(), guard(), guard()];
        let mut reigns = [reign(0, secs(0), secs(0)); 3];
        let (mut leader, mut log, mut term) = (0, secs(0), 0);
        let mut requests: Vec<Presented> = Vec::new();
        let mut admitted = HashSet::new();
        for step in steps {
            match step {
                Step::Elect { node, restarted } => {
                    term += 1;
                    leader = node;
                    reigns[node] = reign(term, log, log);
                    if restarted {
                        guards[node] = guard();
                    }
                }
                Step::Cover(to) => {
                    log = log.max(secs(to));
                    reigns[leader].covered = log;
                }
                Step::Request { node, pick, ts, now } => {
                    let known = usize::try_from(pick).unwrap();
                    if known >= requests.len() {
                        requests.push(device.signed(ts, requests.len() as u64));
                    }
                    let at = known.min(requests.len() - 1);
                    let outcome =
                        device.admitted(&guards[node], &requests[at], reigns[node], secs(now));
                    if outcome.is_ok() {
                        prop_assert!(admitted.insert(at), "request {at} was admitted twice");
                    }
                }
            }
        }
    }

    /// Whatever the clocks have been, and wherever the client's own is: who does as told is admitted
    /// at the second try, after a wait of a second at most.
    #[test]
    fn who_signs_as_told_is_soon_admitted(
        since in 1_000_000..10_000_000_000_u64,
        passed in 0..100_000_u64,
        client in 0..10_000_000_u64,
    ) {
        let (guard, device) = (guard(), Device::new());
        // The service's time is never before its reign.
        let mut now = Timestamp::from_millis(since + passed);
        let since = Timestamp::from_millis(since);
        let mut covered = since;
        let (mut signed_at, mut nonce, mut waited) = (client, 0, Duration::ZERO);
        loop {
            let request = device.signed(signed_at, nonce);
            match device.admitted(&guard, &request, reign(1, since, covered), now) {
                Ok(()) => break,
                Err(HawkRefusal::NotCovered { until }) => {
                    prop_assert!(until <= now, "a stamp of now does not cover it");
                    covered = now;
                }
                Err(HawkRefusal::WrongTime { server_time, wait }) => {
                    (signed_at, nonce) = (server_time.as_secs(), nonce + 1);
                    waited += wait;
                    now = now.plus_millis(u64::try_from(wait.as_millis()).unwrap());
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
            prop_assert!(nonce <= 1, "refused again");
        }
        prop_assert!(waited <= Duration::from_secs(1), "{waited:?}");
    }
}
