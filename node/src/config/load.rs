//! Puts the settings together and remembers where each one comes from.

use std::collections::BTreeMap;
use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::{Config, ConfigArgs};
use crate::exit::{Exit, Failure};

/// A configuration, and where each setting comes from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// `default`, `file <path>`, `environment <NAME>` or `flag <--name>`, by key.
    pub sources: BTreeMap<String, String>,
    /// Variables that look like settings but are none.
    pub unknown_variables: Vec<String>,
}

/// Variables that belong to other parts of `rossby`.
const OTHER_VARIABLES: [&str; 7] = [
    crate::serve::joining::TOKEN_VARIABLE,
    rossby_api::courier::PASSWORD_VARIABLE,
    "ROSSBY_CONFIG",
    "ROSSBY_ADMIN_SOCKET",
    "ROSSBY_LONG",
    "ROSSBY_HOME",
    "ROSSBY_PASSPHRASE",
];

/// Loads the configuration: defaults, then the file, the environment, the flags.
///
/// # Errors
/// A file that can't be read, an unknown key, or a value of the wrong kind; the text says where.
pub fn load(args: &ConfigArgs) -> Result<Loaded, Failure> {
    let keys = keys();
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(path) = &args.config {
        check_file(path)?;
        figment = figment.merge(Toml::file_exact(path));
    }
    let variables: BTreeMap<String, String> = keys
        .iter()
        .map(|key| (variable(key), key.clone()))
        .collect();
    let known = variables.clone();
    figment = figment.merge(Env::raw().filter_map(move |name| {
        known
            .get(&name.as_str().to_ascii_uppercase())
            .map(|key| key.clone().into())
    }));
    for (key, flag, value) in args.given()? {
        figment = figment.merge(Flag { key, flag, value });
    }
    let config = figment.extract().map_err(|error| describe(&error))?;
    let sources = keys
        .iter()
        .map(|key| (key.clone(), source(&figment, key)))
        .collect();
    let unknown_variables = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| {
            name.starts_with("ROSSBY_")
                && !variables.contains_key(name)
                && !OTHER_VARIABLES.iter().any(|other| name.starts_with(other))
        })
        .collect();
    Ok(Loaded {
        config,
        sources,
        unknown_variables,
    })
}

/// Reads the file on its own first: the TOML parser says line and column, which is lost after
/// merging.
fn check_file(path: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(
            Exit::Config,
            format!("{}: can't read it: {error}", path.display()),
        )
        .help("give the path of a TOML file with --config, or leave it out")
    })?;
    toml::from_str::<Config>(&text).map(drop).map_err(|error| {
        let text = error.to_string();
        Failure::new(
            Exit::Config,
            format!("{}: {}", path.display(), text.trim_end()),
        )
        .help("`rossby config show` prints every key there is")
    })
}

/// The key of every setting, such as `clients.listen`.
fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    if let Ok(serde_json::Value::Object(map)) = serde_json::to_value(Config::default()) {
        flatten("", &map, &mut |key, _| keys.push(key));
    }
    keys
}

/// Visits every setting of a configuration in the order of the keys.
pub(super) fn flatten(
    prefix: &str,
    map: &serde_json::Map<String, serde_json::Value>,
    visit: &mut impl FnMut(String, &serde_json::Value),
) {
    for (name, value) in map {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            serde_json::Value::Object(inner) => flatten(&key, inner, visit),
            _ => visit(key, value),
        }
    }
}

/// The environment variable of a setting.
fn variable(key: &str) -> String {
    format!("ROSSBY_{}", key.replace('.', "_").to_ascii_uppercase())
}

fn source(figment: &Figment, key: &str) -> String {
    let Some(metadata) = figment.find_metadata(key) else {
        return "default".to_owned();
    };
    match &metadata.source {
        Some(figment::Source::File(path)) => format!("file {}", path.display()),
        _ if metadata.name.starts_with("flag ") => metadata.name.to_string(),
        _ if metadata.name.contains("environment") => format!("environment {}", variable(key)),
        _ => "default".to_owned(),
    }
}

/// One flag as a source of settings.
struct Flag {
    key: &'static str,
    flag: &'static str,
    value: Value,
}

impl Loaded {
    /// Whether anybody has set a setting, by its key.
    pub fn is_set(&self, key: &str) -> bool {
        self.sources
            .get(key)
            .is_some_and(|source| source != "default")
    }
}

impl Provider for Flag {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("flag {}", self.flag))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(self.key, self.value.clone());
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

fn describe(error: &figment::Error) -> Failure {
    let lines: Vec<String> = error
        .clone()
        .into_iter()
        .map(|error| {
            let key = error.path.join(".");
            let from = error
                .metadata
                .as_ref()
                .map_or_else(String::new, |metadata| {
                    if metadata.name.contains("environment") {
                        format!(" (environment {})", variable(&key))
                    } else {
                        format!(" ({})", metadata.name)
                    }
                });
            format!("{key}: {}{from}", error.kind)
        })
        .collect();
    Failure::new(Exit::Config, lines.join("\n"))
        .help("`rossby config show` prints every key with a value of the right kind")
}
