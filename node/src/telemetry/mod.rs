//! The log on standard error. It never holds user data: what is logged is written by us, and no
//! layer here adds fields of requests.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};

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
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| TelemetryError::Filter(error.to_string()))
}

/// Starts the log on standard error, for the rest of the process's life.
///
/// # Errors
/// [`TelemetryError`] if the filter makes no sense or a log was started before.
pub fn start(log: &Log) -> Result<(), TelemetryError> {
    let registry = tracing_subscriber::registry().with(parse_filter(&log.filter)?);
    let layer = fmt::layer().with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => registry.with(layer).try_init()?,
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}
