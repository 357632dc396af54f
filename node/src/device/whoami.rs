//! `rossby whoami`.

use serde_json::json;

use super::args::WhoAmIArgs;
use super::open::open;
use crate::exit::Failure;
use crate::output;

/// Says who this device is. Asks no one.
pub fn run(args: &WhoAmIArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let me = device.who_am_i()?;
    let pending = device.pending()?;
    let box_id = me.box_id.map(|id| id.to_string());
    let identifier = me.identifier.as_ref().map(|identifier| identifier.as_str());
    if args.device.json {
        return output::json(&json!({
            "box": box_id,
            "device": me.device.to_string(),
            "identifier": identifier,
            "discoverable": me.discoverable,
            "authorised": me.authorised,
            "servers": me.servers,
            "chain_version": me.chain_version,
            "pending": pending,
        }));
    }
    output::line(format!(
        "box         {}",
        box_id.as_deref().unwrap_or("none yet")
    ));
    output::line(format!("device      {}", me.device));
    let found = if me.discoverable {
        ""
    } else {
        " (others can not find you by it)"
    };
    output::line(format!(
        "identifier  {}{found}",
        identifier.unwrap_or("none yet")
    ));
    output::line(format!(
        "authorised  {}",
        if me.authorised { "yes" } else { "not yet" }
    ));
    output::line(format!("servers     {}", me.servers.join(", ")));
    if pending > 0 {
        output::line(format!("pending     {pending} (rossby send --retry)"));
    }
    Ok(())
}
