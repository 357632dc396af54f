//! `rossby inbox --status` and `rossby box ttl`: what waits in this box, and for how long it may.

use std::time::Duration;

use rossby_client::Device;
use serde_json::json;

use super::args::{Longest, TtlArgs};
use super::open::open;
use crate::exit::Failure;
use crate::output::{self, size, utc};

/// Shows the state of the queue.
pub async fn status(device: &Device, as_json: bool) -> Result<(), Failure> {
    let status = device.queue_status().await?;
    if as_json {
        return output::json(&json!({
            "depth": status.depth,
            "bytes": status.bytes,
            "oldest_ms": status.oldest.map(|at| at.as_millis()),
            "expired_unread": status.expired_total,
            "acknowledged": status.cursor.0,
            "last": status.last.0,
            "ttl_seconds": status.ttl.as_secs(),
            "suspended": status.suspended,
        }));
    }
    output::line(match (status.depth, status.oldest) {
        (0, _) | (_, None) => "nothing waits in this box".to_owned(),
        (depth, Some(oldest)) => format!(
            "{depth} wait in this box, {}, the oldest since {}",
            size(status.bytes),
            utc(oldest.as_millis())
        ),
    });
    let (last, cursor) = (status.last, status.cursor);
    output::line(format!("this device has stored up to #{cursor} of #{last}"));
    output::line(format!("expired unread so far: {}", status.expired_total));
    output::line(format!("what comes now may wait {}", shown(status.ttl)));
    if status.suspended {
        output::line(
            "the operator of the service has suspended this box: it can read, but not send",
        );
    }
    Ok(())
}

/// Shows how long messages may wait, or sets it.
///
/// # Errors
/// If the service can't be reached, or refuses.
pub async fn ttl(args: &TtlArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let ttl = match args.longest {
        Some(Longest(longest)) => device.set_ttl(longest).await?,
        None => device.queue_status().await?.ttl,
    };
    if args.device.json {
        return output::json(&json!({ "ttl_seconds": ttl.as_secs() }));
    }
    output::line(format!("what comes now may wait {}", shown(ttl)));
    Ok(())
}

/// Says that somebody else has changed how long messages may wait here.
///
/// # Errors
/// If what this device keeps can't be read.
pub fn note_changed_ttl(device: &Device) -> Result<(), Failure> {
    if let Some(ttl) = device.changed_ttl()? {
        output::note(format!(
            "NOTE: from now on what comes may wait in this box for {}, then it is gone unread. Another device of this box has \
             changed that, or whoever runs the service. If it was none of you, see `rossby devices list`; \
             `rossby box ttl default` undoes it",
            shown(ttl)
        ));
    }
    Ok(())
}

/// A time in the largest unit that it is a whole number of.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let mut fitting = units
        .into_iter()
        .filter(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (unit, letter) = fitting.next().unwrap_or((1, "s"));
    format!("{}{letter}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_it_is_given() {
        for text in ["30d", "25h", "90m", "61s", "0s"] {
            let time = crate::fleet::duration(text).unwrap();
            assert_eq!(shown(time), text);
        }
        assert_eq!(shown(Duration::from_secs(7200)), "2h");
    }
}
