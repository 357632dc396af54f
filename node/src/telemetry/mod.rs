//! The log on standard error. It never holds user data: what is logged is written by us, no layer
//! here adds fields of requests, and libraries that would print requests at their finer levels are
//! kept quiet unless somebody asks for one of them by name.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};

/// Libraries that tell much, or tell what is in requests. A filter that names one wins.
const QUIET: &str = "openraft=error,openraft::core=off,openraft::storage=off,sled=warn,h2=warn,hyper=warn,hyper_util=warn,tonic=warn,\
                     tower=warn,rustls=warn,tokio_rustls=warn,axum=warn";

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter makes no sense.
    #[error(
        "not a log filter: {0}; write a level such as info, or crate=level, separated by commas"
    )]
    Filter(String),
    /// There is a log in this process already.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// What a filter lets through.
///
/// # Errors
/// [`TelemetryError::Filter`] if it makes no sense.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    // Of two directives for one target the later counts.
    EnvFilter::builder()
        .parse(format!("{QUIET},{filter}"))
        .map_err(|error| TelemetryError::Filter(error.to_string()))
}

/// Starts the log on standard error, for the rest of the process's life.
///
/// # Errors
/// [`TelemetryError`] if the filter makes no sense or a log was started before.
pub fn start(log: &Log) -> Result<(), TelemetryError> {
    let registry = tracing_subscriber::registry().with(parse_filter(&log.filter)?);
    let colours = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    match log.format {
        LogFormat::Text => registry.with(layer).try_init()?,
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_stay_quiet_unless_they_are_named() {
        let shown = parse_filter("debug").unwrap().to_string();
        assert!(
            shown.contains("openraft=error") && shown.contains("debug"),
            "{shown}"
        );
        let shown = parse_filter("info,openraft=trace").unwrap().to_string();
        assert!(
            shown.contains("openraft=trace") && !shown.contains("openraft=error"),
            "{shown}"
        );
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        for bad in ["a=b=c", "info,rossby=loud", "[", "=="] {
            assert!(parse_filter(bad).is_err(), "{bad:?} was taken");
        }
    }
}
