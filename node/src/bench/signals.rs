//! The signals that end a run: the nodes that we started must not outlive us.

use futures_util::future::select_all;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{Exit, Failure};

/// Ends with the first signal that asks us to end. The handlers are there when this returns.
///
/// # Errors
/// If the system has no room for a handler.
pub(super) fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let mut kinds = vec![
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::quit(),
    ];
    // Whoever started us with nohup wants us to go on without a terminal.
    if !hangup_is_ignored() {
        kinds.push(SignalKind::hangup());
    }
    let signals = kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>();
    let mut signals = signals.map_err(|error| Failure::new(Exit::Failure, error))?;
    Ok(async move {
        let arriving = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        select_all(arriving).await;
    })
}

/// Whether we were started to ignore SIGHUP: bit 0 of `SigIgn` (proc(5)).
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut masks = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigIgn:"));
    let mask = masks.next().unwrap_or_default().trim();
    u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & 1 == 1)
}
