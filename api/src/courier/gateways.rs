//! Mail for emails, an SMS gateway for phones, or only one of them.

use async_trait::async_trait;
use rossby_domain::identifier::Identifier;

use super::{
    Courier, CourierError, Kind, SettingsError, Smtp, SmtpSettings, Steps, Text, TextSettings,
    Webhook, WebhookSettings,
};

/// The couriers of a service that strangers use.
#[derive(Debug)]
pub struct Gateways {
    smtp: Option<Smtp>,
    webhook: Option<Webhook>,
}

impl Gateways {
    /// The couriers that the settings speak of: mail if there is a host, SMS if there is a URL.
    ///
    /// # Errors
    /// Every [`SettingsError`]; that there is neither is one.
    pub fn new(
        smtp: &SmtpSettings,
        webhook: &WebhookSettings,
        text: &TextSettings,
    ) -> Result<Self, Vec<SettingsError>> {
        let text = Text::new(text).map_err(|error| vec![error])?;
        let mail = smtp.host.is_some() || *smtp != SmtpSettings::default();
        let sms = webhook.url.is_some() || *webhook != WebhookSettings::default();
        let mut errors = Vec::new();
        if !mail && !sms {
            errors.push(SettingsError::Missing {
                key: "kind",
                why: "gateways needs courier.smtp.host (for emails), courier.webhook.url (for \
                      phones), or both",
            });
        }
        let smtp = mail.then(|| Smtp::new(smtp, text.clone()));
        let webhook = sms.then(|| Webhook::new(webhook, text));
        let gateways = Self {
            smtp: smtp.transpose().unwrap_or_else(|error| {
                errors.push(error);
                None
            }),
            webhook: webhook.transpose().unwrap_or_else(|error| {
                errors.push(error);
                None
            }),
        };
        if errors.is_empty() {
            Ok(gateways)
        } else {
            Err(errors)
        }
    }

    /// Delivers a code and tells each step that succeeds.
    ///
    /// # Errors
    /// [`CourierError`].
    pub async fn send(
        &self,
        identifier: &Identifier,
        code: &str,
        steps: Steps<'_>,
    ) -> Result<(), CourierError> {
        match (identifier, &self.smtp, &self.webhook) {
            (Identifier::Email(email), Some(smtp), _) => {
                smtp.send(email.as_str(), code, steps).await
            }
            (Identifier::Phone(phone), _, Some(webhook)) => {
                webhook.send(phone.as_str(), code, steps).await
            }
            _ => Err(CourierError::NotServed),
        }
    }
}

#[async_trait]
impl Courier for Gateways {
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError> {
        self.send(identifier, code, &mut |_| {}).await
    }

    fn name(&self, kind: Kind) -> Option<&'static str> {
        match kind {
            Kind::Email => self.smtp.as_ref()?.name(kind),
            Kind::Phone => self.webhook.as_ref()?.name(kind),
        }
    }
}
