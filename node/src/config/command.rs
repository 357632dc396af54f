//! `rossby config check` and `rossby config show`.

use serde::Serialize;

use super::check::check;
use super::load::{flatten, load};
use crate::cli::ConfigCommand;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::serve::joining;

/// Runs `rossby config ...`.
///
/// # Errors
/// If the configuration is wrong, with all that is.
pub fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { config } => {
            let mut loaded = load(config)?;
            // Without --node the number is in the directory, or in the token to join by.
            joining::prepare(&mut loaded)?;
            let findings = check(&loaded.config);
            for name in &loaded.unknown_variables {
                output::note(format!("warning: {name}: not a setting"));
            }
            for warning in &findings.warnings {
                output::note(format!("warning: {warning}"));
            }
            findings.into_result()?;
            output::line("The configuration is good.");
            Ok(())
        }
        ConfigCommand::Show { config, json } => show(&load(config)?, *json),
    }
}

#[derive(Serialize)]
struct Setting {
    key: String,
    value: serde_json::Value,
    source: String,
}

fn show(loaded: &super::load::Loaded, json: bool) -> Result<(), Failure> {
    let value =
        serde_json::to_value(&loaded.config).map_err(|error| Failure::new(Exit::Failure, error))?;
    let mut settings = Vec::new();
    if let serde_json::Value::Object(map) = &value {
        flatten("", map, &mut |key, value| {
            let source = loaded.sources.get(&key).cloned().unwrap_or_default();
            settings.push(Setting {
                key,
                value: value.clone(),
                source,
            });
        });
    }
    if json {
        return output::json(&settings);
    }
    for Setting { key, value, source } in settings {
        match value {
            serde_json::Value::Null => output::line(format!("# {key} is not set")),
            value => output::line(format!("{:<60} # {source}", format!("{key} = {value}"))),
        }
    }
    Ok(())
}
