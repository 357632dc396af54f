//! `rossby typing`.

use serde_json::json;

use super::args::TypingArgs;
use super::open::open;
use super::person::find_box;
use crate::exit::Failure;
use crate::output;

/// Tells somebody who listens that this device's owner is typing, or has stopped.
pub async fn run(args: &TypingArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let to = find_box(&device, &args.who).await?;
    device.typing(&to, !args.stop).await?;
    if args.device.json {
        return output::json(&json!({ "box": to.to_string(), "typing": !args.stop }));
    }
    output::line("told, if they listen at this moment");
    Ok(())
}
