//! The words around a code.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::SettingsError;

/// The most characters of a template.
const MAX_TEMPLATE_CHARS: usize = 1000;
const PLACEHOLDERS: [&str; 2] = ["{code}", "{service}"];

/// What a message with a code says. `{code}` and `{service}` are filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextSettings {
    /// What the service calls itself.
    pub service: String,
    /// The subject of a mail. It must not hold the code: notifications show it.
    pub subject: String,
    /// The message itself, of mails and SMS.
    pub body: String,
}

impl Default for TextSettings {
    fn default() -> Self {
        Self {
            service: "Rossby".to_owned(),
            subject: "{service} verification code".to_owned(),
            body: "Your {service} code is {code}. Tell it to nobody. If you did not ask for it, \
                   ignore this message."
                .to_owned(),
        }
    }
}

/// The words, checked.
#[derive(Debug, Clone)]
pub struct Text {
    settings: TextSettings,
}

impl Text {
    /// Checks the templates.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] if one is too long, or has control characters, an unknown
    /// placeholder, or the code where it must not be, or not where it must be.
    pub fn new(settings: &TextSettings) -> Result<Self, SettingsError> {
        let invalid = |key, why: String| SettingsError::Invalid { key, why };
        let templates = [
            ("text.service", &settings.service),
            ("text.subject", &settings.subject),
            ("text.body", &settings.body),
        ];
        for (key, template) in templates {
            let allowed = |c: char| !c.is_control() || (c == '\n' && key == "text.body");
            if template.trim().is_empty() || template.chars().count() > MAX_TEMPLATE_CHARS {
                let why = format!("must have 1 to {MAX_TEMPLATE_CHARS} characters");
                return Err(invalid(key, why));
            }
            if !template.chars().all(allowed) {
                return Err(invalid(key, "must not hold control characters".to_owned()));
            }
            check_placeholders(template, &PLACEHOLDERS).map_err(|why| invalid(key, why))?;
        }
        if settings.subject.contains("{code}") || settings.service.contains('{') {
            let why = "must not hold the code: subjects are shown on locked screens".to_owned();
            return Err(invalid("text.subject", why));
        }
        if !settings.body.contains("{code}") {
            return Err(invalid("text.body", "must hold {code}".to_owned()));
        }
        Ok(Self {
            settings: settings.clone(),
        })
    }

    /// What the service calls itself.
    pub(super) fn service(&self) -> &str {
        &self.settings.service
    }

    pub(super) fn subject(&self) -> String {
        self.settings.subject.replace("{service}", self.service())
    }

    pub(super) fn body(&self, code: &str) -> Zeroizing<String> {
        let named = self.settings.body.replace("{service}", self.service());
        Zeroizing::new(named.replace("{code}", code))
    }
}

/// Refuses what looks like a placeholder and is none: a slip of the pen would be sent to people.
pub(super) fn check_placeholders(template: &str, known: &[&str]) -> Result<(), String> {
    let mut rest = template;
    while let Some((_, from)) = rest.split_once('{') {
        let name: String = from.chars().take_while(char::is_ascii_lowercase).collect();
        let is_placeholder = !name.is_empty() && from[name.len()..].starts_with('}');
        let placeholder = format!("{{{name}}}");
        if is_placeholder && !known.contains(&placeholder.as_str()) {
            let known = known.join(", ");
            return Err(format!("{placeholder} is unknown; there are {known}"));
        }
        rest = from;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_body(body: &str) -> TextSettings {
        TextSettings {
            body: body.to_owned(),
            ..TextSettings::default()
        }
    }

    #[test]
    fn the_default_words_hold_service_and_code() {
        let text = Text::new(&TextSettings::default()).unwrap();
        assert!(
            text.body("12345678")
                .starts_with("Your Rossby code is 12345678.")
        );
        assert_eq!(text.subject(), "Rossby verification code");
    }

    #[test]
    fn words_that_would_not_do_are_refused() {
        for body in [
            "no code",
            "{code} {cod}",
            "{code}\u{7}",
            "",
            "{code}{number}",
        ] {
            assert!(Text::new(&with_body(body)).is_err(), "{body:?}");
        }
        let told = TextSettings {
            subject: "Your code {code}".to_owned(),
            ..TextSettings::default()
        };
        assert!(Text::new(&told).is_err());
        let injected = TextSettings {
            subject: "Code\r\nBcc: eve@example.org".to_owned(),
            ..TextSettings::default()
        };
        assert!(Text::new(&injected).is_err());
        assert!(Text::new(&with_body("Code: {code}\nBye")).is_ok());
    }
}
