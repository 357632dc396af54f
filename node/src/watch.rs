//! Shows something once, or again and again until it is interrupted.

use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::exit::{Exit, Failure};
use crate::output;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its upper left corner (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Asks and shows what came of it; with `watch` every two seconds, in the same place on a terminal and below
/// each other elsewhere, until it is interrupted or nobody reads any more. While it is watched, a node that does
/// not answer is said to be so and asked again.
///
/// # Errors
/// If the first question fails, or the text can't be made or written.
pub async fn show<T>(
    watch: bool,
    ask: impl AsyncFn() -> Result<T, Failure>,
    text: impl Fn(&T) -> Result<String, Failure>,
) -> Result<(), Failure> {
    if !watch {
        return output::try_line(text(&ask().await?)?).map(drop);
    }
    let failed = |error| Failure::new(Exit::Failure, format!("signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let watching = async {
        let mut found = Ok(ask().await?);
        loop {
            if !print(found, &text)? {
                return Ok(());
            }
            sleep(EVERY).await;
            found = ask().await;
        }
    };
    tokio::select! {
        ended = watching => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// Prints what was found, or why nothing was; whether there still is a reader.
fn print<T>(
    found: Result<T, Failure>,
    text: impl Fn(&T) -> Result<String, Failure>,
) -> Result<bool, Failure> {
    match found {
        Ok(found) => {
            let clear = match std::io::stdout().is_terminal() {
                true => CLEAR,
                false => "",
            };
            output::try_line(format!("{clear}{}", text(&found)?))
        }
        Err(failure) => {
            output::note(format!("rossby: {failure}"));
            Ok(true)
        }
    }
}
