//! A clock that jumps, as clients live through it: no letter is lost by it.

use rossby_domain::ids::Sequence;
use rossby_domain::time::DAY_MS;
use rossby_domain::{Answer, Query};
use tokio::time::{Duration, Instant};

use crate::support::{Resident, World, envelope, sequence};

/// Longer than any letter lives.
const JUMP_MS: u64 = 40 * DAY_MS;

async fn texts(world: &World, who: &Resident) -> Vec<Vec<u8>> {
    let page = world.fetch(who).await;
    let bodies = page.envelopes.iter();
    bodies.map(|envelope| envelope.body.to_vec()).collect()
}

fn expired(world: &World, who: &Resident) -> u64 {
    let query = Query::Fetch {
        device: who.address,
        after: Sequence(0),
        max_envelopes: 1,
        max_bytes: 1,
    };
    let home = who.address.box_id.partition();
    match world.group.read_local(home, &query).unwrap() {
        Answer::Page(Some(page)) => page.status.expired_total,
        other => panic!("unexpected answer {other:?}"),
    }
}

#[tokio::test]
async fn letters_outlive_a_clock_that_jumps_until_an_operator_says_that_it_is_right() {
    let world = World::new().await;
    let anna = world.resident(1, "+491701111111", true).await;
    let bert = world.resident(2, "+491702222222", true).await;
    let sent = world.send(&anna, vec![envelope(&bert, 1, b"before")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 1);

    world.clock.advance_millis(JUMP_MS);
    let sent = world.send(&anna, vec![envelope(&bert, 2, b"after")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 2);
    let both = [b"before".to_vec(), b"after".to_vec()];
    assert_eq!(texts(&world, &bert).await, both);
    let jump = world.group.status().expiry_blocked.unwrap();
    assert_eq!(jump.now, {
        use rossby_seams::clock::Clock as _;
        world.clock.now()
    });
    // The other workers still work: somebody new gets a code, and in.
    let carl = world.resident(3, "+491703333333", true).await;
    let sent = world.send(&carl, vec![envelope(&bert, 1, b"new")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 3);
    assert_eq!(expired(&world, &bert), 0);

    let deadline = Instant::now() + Duration::from_secs(20);
    let confirmed = world.group.confirm_time(deadline).await.unwrap();
    assert_eq!(confirmed, Some(jump));
    let left = [b"after".to_vec(), b"new".to_vec()];
    assert_eq!(texts(&world, &bert).await, left);
    world
        .eventually("the worker removes what is over", || {
            expired(&world, &bert) == 1
        })
        .await;
    assert_eq!(texts(&world, &bert).await, left);
}

#[tokio::test]
async fn an_idle_cluster_tells_the_log_the_time_once_a_day_and_so_trusts_its_clock() {
    let world = World::new().await;
    let told = |world: &World| world.group.reader().times().unwrap().expiry_clock;
    let before = world.group.status().last_log_index.unwrap();
    for _ in 0..8 {
        let yesterday = told(&world);
        world.clock.advance_millis(DAY_MS);
        world
            .eventually("the log is told the time", || {
                told(&world) >= yesterday.plus_millis(DAY_MS)
            })
            .await;
    }
    let status = world.group.status();
    assert_eq!(status.expiry_blocked, None);
    let written = status.last_log_index.unwrap() - before;
    assert!(written < 16, "{written} entries in eight idle days");
}
