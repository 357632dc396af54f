//! `rossby node token`: what a new node joins by, and what has become of those that were made.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rossby_proto::v1;
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::ORDER_TIMEOUT;
use crate::cli::{PlacementArgs, TokenArgs, TokenCommand};
use crate::cluster::{connect, order};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::table;

/// `rossby node token`, and what is below it.
pub(super) async fn token(args: &TokenArgs) -> Result<(), Failure> {
    match &args.command {
        None => issue(args).await,
        Some(TokenCommand::List(args)) => list(args).await,
        Some(TokenCommand::Revoke { placement, node }) => revoke(placement, *node).await,
    }
}

/// A token, as it is shown.
#[derive(Serialize)]
struct TokenView<'a> {
    node: u64,
    /// `None` for any that nodes are in.
    region: Option<&'a str>,
    new_region: bool,
    expires_ms: u64,
    state: &'a str,
    /// Where the node that has used it is, if it is in the cluster still.
    peer_address: Option<&'a str>,
}

impl<'a> TokenView<'a> {
    fn of(token: &'a v1::JoinToken) -> Self {
        let told = |text: &'a String| (!text.is_empty()).then_some(text.as_str());
        Self {
            node: token.node_id,
            region: told(&token.region),
            new_region: token.new_region,
            expires_ms: token.expires_ms,
            state: &token.state,
            peer_address: told(&token.peer_address),
        }
    }

    fn row(&self) -> [String; 4] {
        let region = match (self.region, self.new_region) {
            (None, _) => "any".to_owned(),
            (Some(region), true) => format!("{region} (new)"),
            (Some(region), false) => region.to_owned(),
        };
        let state = match (self.state, self.peer_address) {
            ("used", Some(address)) => format!("used by the node at {address}"),
            ("used", None) => "used by a node that has left".to_owned(),
            (state, _) => state.to_owned(),
        };
        let expires = output::utc(self.expires_ms).to_string();
        [self.node.to_string(), region, expires, state]
    }
}

async fn list(args: &PlacementArgs) -> Result<(), Failure> {
    let mut client = connect(&args.socket.path()).await?;
    let asked = client.list_tokens(v1::ListTokensRequest {});
    let tokens = order(ORDER_TIMEOUT, asked).await?.tokens;
    let tokens: Vec<_> = tokens.iter().map(TokenView::of).collect();
    if args.json {
        return output::json(&json!({ "tokens": tokens }));
    }
    let rows: Vec<_> = tokens.iter().map(TokenView::row).collect();
    output::line(table::text(
        ["FOR NODE", "REGION", "GOOD UNTIL", "STATE"],
        &rows,
    ));
    Ok(())
}

async fn revoke(args: &PlacementArgs, node: u64) -> Result<(), Failure> {
    let mut client = connect(&args.socket.path()).await?;
    let asked = client.revoke_token(v1::RevokeTokenRequest { node_id: node });
    order(ORDER_TIMEOUT, asked).await?;
    if args.json {
        return output::json(&json!({ "node": node, "state": "revoked" }));
    }
    output::line(format!(
        "The join token for node {node} is good for nobody any more."
    ));
    Ok(())
}

async fn issue(args: &TokenArgs) -> Result<(), Failure> {
    let mut client = connect(&args.placement.socket.path()).await?;
    let valid_for_ms = args.valid_for.as_millis();
    let region = args.region.as_ref();
    let request = v1::IssueTokenRequest {
        node_id: args.node.unwrap_or_default(),
        region: region.map(ToString::to_string).unwrap_or_default(),
        new_region: args.new_region,
        valid_for_ms: u64::try_from(valid_for_ms).unwrap_or(u64::MAX),
    };
    let file = args.out.as_deref().map(create).transpose()?;
    let issued = order(ORDER_TIMEOUT, client.issue_token(request)).await;
    let (issued, file) = match (issued, file) {
        (Ok(issued), file) => (issued, file),
        (Err(failure), file) => {
            if let (Some(_), Some(path)) = (file, &args.out) {
                // Empty: it was made a moment ago.
                let _ = std::fs::remove_file(path);
            }
            return Err(failure);
        }
    };
    let token = Zeroizing::new(issued.token);
    if let (Some(mut file), Some(path)) = (file, &args.out) {
        let written = writeln!(file, "{}", &*token).and_then(|()| file.sync_all());
        written.map_err(|error| unwritable(path, &error))?;
    }
    if args.placement.json {
        return output::json(&json!({
            "token": args.out.is_none().then_some(&*token), "file": args.out, "node": issued.node_id,
            "region": region.map(ToString::to_string), "new_region": args.new_region,
            "expires_ms": issued.expires_ms, "join": issued.peer_address,
        }));
    }
    if args.out.is_none() {
        output::line(&*token);
    }
    let (node, join) = (issued.node_id, &issued.peer_address);
    let region = region.map_or("REGION", |region| region.as_str());
    output::note(format!(
        "For one node, number {node}, good until {}. Its certificate: rossby cert node --ca certs --node {node} \
         --out certs\nOn its machine: rossby serve --join {join} --region {region} --join-token-file FILE \
         --peer-listen ..., with its certificate",
        output::utc(issued.expires_ms)
    ));
    Ok(())
}

/// A file that nobody else can read. Nothing may be in its way.
fn create(path: &Path) -> Result<std::fs::File, Failure> {
    let mut options = std::fs::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::AlreadyExists => Exit::Refused,
        _ => Exit::Failure,
    };
    Failure::new(exit, format!("{}: {error}", path.display()))
}

/// A time as on the command line: a number with s, m, h or d.
///
/// # Errors
/// What it must be like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || "expected a number with s, m, h or d, for example 90m".to_owned();
    let unit = text.chars().next_back().ok_or_else(malformed)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(malformed()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    if !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(malformed());
    }
    let number: u32 = number.parse().map_err(|_| malformed())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        for (text, seconds) in [("1s", 1), ("90m", 5400), ("2h", 7200), ("30d", 2_592_000)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in [
            "",
            "1",
            "h",
            "+1h",
            "-1h",
            "1.5h",
            "1 h",
            "9999999999d",
            "1ä",
        ] {
            assert!(duration(bad).is_err(), "{bad:?} was taken");
        }
    }
}
