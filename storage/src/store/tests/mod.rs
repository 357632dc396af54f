//! The store as a whole: against the plain model, through power loss, damage and transfer.

mod backup;
mod bases;
mod crash;
mod damage;
mod envelopes;
mod rounds;
mod shipping;
mod tables;
mod world;

/// Cases of a property: few by default, many with `ROSSBY_LONG=1`.
fn cases(quick: u32) -> proptest::test_runner::Config {
    let long = std::env::var_os("ROSSBY_LONG").is_some_and(|value| value == "1");
    proptest::test_runner::Config::with_cases(if long {
        quick.saturating_mul(50)
    } else {
        quick
    })
}
