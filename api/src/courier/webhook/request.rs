//! The request: a template that is filled in, escaped for where it stands.

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::Full;
use zeroize::Zeroizing;

use super::settings::{WebhookFormat, WebhookMethod, WebhookSettings};
use crate::courier::smtp::timeout_in_bounds;
use crate::courier::text::check_placeholders;
use crate::courier::{SettingsError, dial};

const PLACEHOLDERS: [&str; 3] = ["{number}", "{text}", "{code}"];
const SAMPLE: [&str; 3] = ["+15550100", "Say \"friend\" & enter\n", "00000000"];

/// A checked template.
#[derive(Debug)]
pub(super) struct Template {
    url: String,
    method: WebhookMethod,
    format: WebhookFormat,
    body: String,
}

/// Where requests go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) secure: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

fn invalid(key: &'static str, why: impl Into<String>) -> SettingsError {
    let why = why.into();
    SettingsError::Invalid { key, why }
}

impl Template {
    /// Checks the templates, by filling them in too.
    pub(super) fn new(settings: &WebhookSettings) -> Result<Self, SettingsError> {
        let url = settings.url.clone().ok_or(SettingsError::Missing {
            key: "webhook.url",
            why: "the SMS gateway's URL is missing",
        })?;
        timeout_in_bounds("webhook.timeout_ms", settings.timeout_ms)?;
        let body = match settings.method {
            WebhookMethod::Get => String::new(),
            WebhookMethod::Post | WebhookMethod::Put => settings.body.clone(),
        };
        for (key, template) in [("webhook.url", &url), ("webhook.body", &body)] {
            check_placeholders(template, &PLACEHOLDERS).map_err(|why| invalid(key, why))?;
        }
        let has = |placeholder| url.contains(placeholder) || body.contains(placeholder);
        if !has("{number}") || !(has("{text}") || has("{code}")) {
            let why = "url and body must hold {number}, and {text} or {code}";
            return Err(invalid("webhook.body", why));
        }
        let template = Self {
            url,
            method: settings.method,
            format: settings.format,
            body,
        };
        let [number, text, code] = SAMPLE;
        if template.fill(number, text, code).is_none() {
            return Err(invalid("webhook.url", "not a URL"));
        }
        let filled = template.filled_body(number, text, code);
        let is_json = || serde_json::from_str::<serde_json::Value>(&filled).is_ok();
        if settings.method != WebhookMethod::Get
            && settings.format == WebhookFormat::Json
            && !is_json()
        {
            let why = "not JSON once it is filled in (placeholders stand inside of quotes)";
            return Err(invalid("webhook.body", why));
        }
        Ok(template)
    }

    /// Where the requests go: the same for all of them.
    pub(super) fn target(&self, settings: &WebhookSettings) -> Result<Target, SettingsError> {
        let refused = |why: &str| Err(invalid("webhook.url", why));
        let Some((scheme, rest)) = self.url.split_once("://") else {
            return refused("not a URL that begins with https://");
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains(['{', '@']) {
            return refused("the host must be plain: secrets go into courier.webhook.headers_file");
        }
        let Ok(authority) = authority.parse::<http::uri::Authority>() else {
            return refused("its host can't be read");
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if rustls::pki_types::ServerName::try_from(host.as_str()).is_err() {
            return refused("its host can't be read");
        }
        let secure = match scheme {
            "https" => true,
            "http" if dial::is_loopback(&host) => false,
            "http" => {
                return refused(
                    "http is for a gateway on this machine only: use https, or whoever listens \
                     on the way reads the codes",
                );
            }
            _ => return refused("not a URL that begins with https://"),
        };
        if !secure && settings.ca.is_some() {
            return Err(invalid("webhook.ca", "http has no certificates"));
        }
        let port = authority
            .port_u16()
            .unwrap_or(if secure { 443 } else { 80 });
        Ok(Target { secure, host, port })
    }

    /// The request for one message; `None` if it is not one.
    pub(super) fn fill(
        &self,
        number: &str,
        text: &str,
        code: &str,
    ) -> Option<Request<Full<Bytes>>> {
        let values = [number, text, code];
        let url = Zeroizing::new(fill(&self.url, values.map(percent)));
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?.as_str().to_owned();
        let path = uri.path_and_query()?.as_str().to_owned();
        let mut request = Request::builder()
            .uri(path)
            .header(header::HOST, authority)
            .header(header::USER_AGENT, "rossby")
            .header(header::CONNECTION, "close")
            .header(header::ACCEPT, "*/*");
        request = match self.method {
            WebhookMethod::Get => request.method(Method::GET),
            WebhookMethod::Put => request.method(Method::PUT),
            WebhookMethod::Post => request.method(Method::POST),
        };
        if self.method != WebhookMethod::Get {
            let kind = match self.format {
                WebhookFormat::Json => "application/json",
                WebhookFormat::Form => "application/x-www-form-urlencoded",
            };
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let body = self.filled_body(number, text, code);
        request
            .body(Full::new(Bytes::from(body.as_bytes().to_vec())))
            .ok()
    }

    fn filled_body(&self, number: &str, text: &str, code: &str) -> Zeroizing<String> {
        let values = [number, text, code];
        Zeroizing::new(match self.format {
            WebhookFormat::Json => fill(&self.body, values.map(json)),
            WebhookFormat::Form => fill(&self.body, values.map(percent)),
        })
    }
}

/// Puts values in place of the placeholders, in one pass: a value is never looked at again.
fn fill(template: &str, values: [String; 3]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let known = PLACEHOLDERS.iter().zip(&values);
        let found = known.into_iter().find(|(name, _)| from.starts_with(**name));
        rest = match found {
            Some((name, value)) => {
                filled.push_str(value);
                from.get(name.len()..).unwrap_or_default()
            }
            None => {
                filled.push('{');
                from.get(1..).unwrap_or_default()
            }
        };
    }
    filled.push_str(rest);
    filled
}

/// RFC 3986, all but the unreserved characters.
fn percent(value: &str) -> String {
    let mut text = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// What stands between the quotes of a JSON string.
fn json(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    let inside = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inside.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(url: &str) -> WebhookSettings {
        WebhookSettings {
            url: Some(url.to_owned()),
            ..WebhookSettings::default()
        }
    }

    fn checked(settings: &WebhookSettings) -> Result<Target, SettingsError> {
        Template::new(settings)?.target(settings)
    }

    #[test]
    fn a_url_says_where_requests_go() {
        let target = checked(&settings("https://sms.example.org/send")).unwrap();
        assert_eq!(
            (target.secure, target.host.as_str(), target.port),
            (true, "sms.example.org", 443)
        );
        let target = checked(&settings("http://[::1]:8080/send?to={number}")).unwrap();
        assert_eq!(
            (target.secure, target.host.as_str(), target.port),
            (false, "::1", 8080)
        );
    }

    #[test]
    fn urls_that_would_give_codes_away_or_make_no_sense_are_refused() {
        for url in [
            "http://sms.example.org/send",
            "http://127.0.0.1.example.org/",
            "ftp://sms.example.org/",
            "sms.example.org/send",
            "https://user:pass@sms.example.org/",
            "https://{number}.example.org/",
            "https://sms.example.org/{nummer}",
            "https:///x",
            "https://sms example.org/",
        ] {
            assert!(checked(&settings(url)).is_err(), "{url}");
        }
    }

    #[test]
    fn a_body_that_can_not_be_filled_in_is_refused() {
        for body in [
            r#"{"to":{number},"text":{text}}"#,
            r#"{"to":"{number}"}"#,
            "",
            "[]",
        ] {
            let mut settings = settings("https://sms.example.org/");
            settings.body = body.to_owned();
            assert!(Template::new(&settings).is_err(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_text_arrives_as_it_was_written(text in "\\PC{0,60}", code in "[0-9]{8}") {
            let template = Template::new(&settings("https://sms.example.org/")).unwrap();
            let body = template.filled_body("+15550100", &text, &code);
            let read: serde_json::Value = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(&read["text"], &serde_json::Value::from(text.clone()));
            prop_assert_eq!(&read["to"], "+15550100");
        }

        #[test]
        fn no_value_leaves_its_place_in_a_url(text in "\\PC{0,60}") {
            let settings = settings("https://sms.example.org/a?to={number}&text={text}");
            let template = Template::new(&settings).unwrap();
            let request = template.fill("+15550100", &text, "1").unwrap();
            let query = request.uri().query().unwrap();
            prop_assert_eq!(query.matches('&').count(), 1);
            prop_assert!(query.starts_with("to=%2B15550100&text="));
        }
    }
}
