//! Mail and SMS, against real servers: what arrives, and what every way of failing is taken for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rossby_api::courier::{
    Courier as _, CourierError, Gateways, Kind, Problem, SettingsError, SmtpSecurity, SmtpSettings,
    Step, TextSettings, WebhookFormat, WebhookMethod, WebhookSettings,
};
use rossby_domain::identifier::Identifier;

use crate::gateway::relay::{Manner, PASSWORD, Relay, Security, USER};
use crate::gateway::{Certificate, private_file, sms};

const CODE: &str = "01234567";
const EMAIL: &str = "bob@rossby.example";

struct Bench {
    folder: tempfile::TempDir,
    certificate: Certificate,
    smtp: SmtpSettings,
    webhook: WebhookSettings,
    text: TextSettings,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::new(folder.path(), "ca.pem");
        Self {
            folder,
            certificate,
            smtp: SmtpSettings::default(),
            webhook: WebhookSettings::default(),
            text: TextSettings::default(),
        }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        private_file(&path, content);
        path
    }

    /// A relay, and settings that are right for it.
    fn relay(&mut self, security: Security) -> Relay {
        let relay = Relay::start(security, &self.certificate);
        self.smtp = SmtpSettings {
            host: Some("localhost".to_owned()),
            port: Some(relay.port()),
            security: match security {
                Security::Tls => SmtpSecurity::Tls,
                Security::Starttls => SmtpSecurity::Starttls,
                Security::Plain => SmtpSecurity::Plain,
            },
            from: Some("codes@rossby.example".to_owned()),
            user: Some(USER.to_owned()),
            password_file: Some(self.file("password", &format!("{PASSWORD}\n"))),
            ca: Some(self.certificate.ca.clone()),
            ..SmtpSettings::default()
        };
        relay
    }

    /// An SMS gateway over TLS, and settings that are right for it.
    fn sms(&mut self) -> sms::Gateway {
        let sms = sms::Gateway::start(Some(&self.certificate));
        self.webhook = WebhookSettings {
            url: Some(format!("https://localhost:{}/send?v=1", sms.port())),
            headers_file: Some(self.file("headers", "Authorization: Bearer s3cret\nX-From: R\n")),
            ca: Some(self.certificate.ca.clone()),
            ..WebhookSettings::default()
        };
        sms
    }

    fn gateways(&self) -> Result<Gateways, Vec<SettingsError>> {
        Gateways::new(&self.smtp, &self.webhook, &self.text)
    }

    async fn mail(&self) -> Result<Vec<String>, CourierError> {
        self.send(&Identifier::email(EMAIL).unwrap()).await
    }

    async fn text_message(&self) -> Result<Vec<String>, CourierError> {
        self.send(&Identifier::phone("+491701234567").unwrap())
            .await
    }

    async fn send(&self, identifier: &Identifier) -> Result<Vec<String>, CourierError> {
        let gateways = self.gateways().unwrap();
        let mut steps = Vec::new();
        gateways
            .send(identifier, CODE, &mut |step| steps.push(step))
            .await?;
        Ok(steps)
    }
}

/// At which step it ended, with which reply code, and whether for good.
fn end(result: Result<Vec<String>, CourierError>) -> (Step, Option<u16>, bool) {
    let error = result.unwrap_err();
    let told = error.to_string();
    for secret in [CODE, EMAIL, PASSWORD, "s3cret", "491701234567"] {
        assert!(!told.contains(secret), "{told}");
    }
    match error {
        CourierError::Gateway {
            step,
            problem: Problem::Refused { code, .. },
            permanent,
        } => (step, Some(code), permanent),
        CourierError::Gateway {
            step, permanent, ..
        } => (step, None, permanent),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_mail_arrives_over_tls_after_a_login() {
    let mut bench = Bench::new();
    let relay = bench.relay(Security::Tls);
    let steps = bench.mail().await.unwrap();
    assert!(
        steps.last().unwrap().starts_with("accepted: 250"),
        "{steps:?}"
    );
    let mails = relay.mails();
    let [mail] = mails.as_slice() else {
        panic!("{mails:?}");
    };
    assert_eq!(mail.to, EMAIL);
    assert_eq!(mail.from, "codes@rossby.example");
    assert_eq!((mail.encrypted, mail.user.as_deref()), (true, Some(USER)));
    assert_eq!(mail.code(), CODE);
    for line in [
        "From: codes@rossby.example\r\n",
        "To: bob@rossby.example\r\n",
        "Subject: Rossby verification code\r\n",
        "Message-ID: <",
        "Date: ",
    ] {
        assert!(mail.data.contains(line), "{line:?} in {}", mail.data);
    }
}

#[tokio::test]
async fn a_relay_that_knows_auth_login_only_will_do() {
    let mut bench = Bench::new();
    let relay = bench.relay(Security::Tls);
    relay.behave(Manner::OnlyLogin);
    bench.mail().await.unwrap();
    assert_eq!(relay.mails()[0].user.as_deref(), Some(USER));
}

#[tokio::test]
async fn with_starttls_nothing_but_the_greeting_goes_in_the_clear() {
    let mut bench = Bench::new();
    let relay = bench.relay(Security::Starttls);
    bench.mail().await.unwrap();
    assert!(relay.mails()[0].encrypted);
    let heard = relay.heard();
    assert_eq!(heard[..2], ["EHLO rossby.example", "STARTTLS"]);
}

#[tokio::test]
async fn a_relay_without_starttls_or_with_injected_words_gets_nothing() {
    let mut bench = Bench::new();
    let relay = bench.relay(Security::Starttls);
    relay.behave(Manner::NoStarttls);
    assert_eq!(end(bench.mail().await), (Step::Tls, None, false));
    relay.behave(Manner::Inject);
    assert_eq!(end(bench.mail().await), (Step::Tls, None, false));
    let heard = relay.heard();
    assert!(
        heard
            .iter()
            .all(|line| line.starts_with("EHLO") || line == "STARTTLS"),
        "{heard:?}"
    );
}

#[tokio::test]
async fn plain_text_goes_to_this_machine_only() {
    let mut bench = Bench::new();
    let relay = bench.relay(Security::Plain);
    bench.mail().await.unwrap();
    assert!(!relay.mails()[0].encrypted);
    bench.smtp.host = Some("relay.example.org".to_owned());
    let errors = bench.gateways().unwrap_err();
    assert!(
        errors[0]
            .to_string()
            .starts_with("courier.smtp.security: plain text")
    );
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_it_before_a_word_is_said() {
    let mut bench = Bench::new();
    let relay = bench.relay(Security::Tls);
    let other = Certificate::new(bench.folder.path(), "other.pem");
    bench.smtp.ca = Some(other.ca);
    assert_eq!(end(bench.mail().await), (Step::Tls, None, false));
    // Nor is it, with the authorities of the web.
    bench.smtp.ca = None;
    assert_eq!(end(bench.mail().await), (Step::Tls, None, false));
    assert!(relay.heard().is_empty());
}

#[tokio::test]
async fn a_wrong_password_is_the_operators_to_mend() {
    let mut bench = Bench::new();
    let relay = bench.relay(Security::Tls);
    bench.smtp.password_file = Some(bench.file("password", "not it"));
    assert_eq!(end(bench.mail().await), (Step::Login, Some(535), false));
    assert!(relay.mails().is_empty());
}

#[tokio::test]
async fn what_the_relay_says_is_told_apart() {
    let mut bench = Bench::new();
    let relay = bench.relay(Security::Tls);
    bench.smtp.timeout_ms = 1_000;
    let table = [
        (
            Manner::RefuseGreeting(421),
            (Step::Greeting, Some(421), false),
        ),
        (
            Manner::RefuseGreeting(554),
            (Step::Greeting, Some(554), false),
        ),
        (
            Manner::RefuseRecipient(450),
            (Step::Recipient, Some(450), false),
        ),
        (
            Manner::RefuseRecipient(550),
            (Step::Recipient, Some(550), true),
        ),
        (
            Manner::RefuseMessage(451),
            (Step::Message, Some(451), false),
        ),
        (Manner::RefuseMessage(554), (Step::Message, Some(554), true)),
        (Manner::Drop, (Step::Message, None, false)),
        (Manner::Hang, (Step::Tls, None, false)),
    ];
    for (manner, expected) in table {
        relay.behave(manner);
        let found = end(bench.mail().await);
        match manner {
            // The relay's TLS begins with its first word or ours.
            Manner::Hang => assert!(!found.2 && found.1.is_none(), "{found:?}"),
            _ => assert_eq!(found, expected, "{manner:?}"),
        }
    }
    assert!(relay.mails().is_empty());
    relay.behave(Manner::Kind);
    bench.mail().await.unwrap();
    assert_eq!(relay.mails().len(), 1);
}

#[tokio::test]
async fn a_relay_that_is_down_is_tried_again_later() {
    let mut bench = Bench::new();
    let relay = bench.relay(Security::Tls);
    drop(relay);
    assert_eq!(end(bench.mail().await), (Step::Connect, None, false));
}

#[tokio::test]
async fn an_sms_goes_out_as_json_with_its_secrets() {
    let mut bench = Bench::new();
    let sms = bench.sms();
    bench.text_message().await.unwrap();
    let requests = sms.requests();
    let [request] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!(request.line, "POST /send?v=1 HTTP/1.1");
    assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(request.header("x-from"), Some("R"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(
        request.header("host"),
        Some(format!("localhost:{}", sms.port()).as_str())
    );
    assert!(
        request
            .body
            .starts_with(r#"{"to":"+491701234567","text":"Your Rossby code is 01234567."#)
    );
    assert_eq!(request.code(), CODE);
}

#[tokio::test]
async fn an_sms_goes_out_as_a_form_or_in_the_url() {
    let mut bench = Bench::new();
    let sms = bench.sms();
    bench.webhook.format = WebhookFormat::Form;
    bench.webhook.body = "to={number}&msg={text}".to_owned();
    bench.text.body = "{code} & more".to_owned();
    bench.text_message().await.unwrap();
    bench.webhook.method = WebhookMethod::Get;
    bench.webhook.url = Some(format!(
        "https://localhost:{}/s?n={{number}}&c={{code}}",
        sms.port()
    ));
    bench.text_message().await.unwrap();
    let requests = sms.requests();
    assert_eq!(
        requests[0].body,
        "to=%2B491701234567&msg=01234567%20%26%20more"
    );
    assert_eq!(
        requests[0].header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(
        requests[1].line,
        "GET /s?n=%2B491701234567&c=01234567 HTTP/1.1"
    );
    assert_eq!(requests[1].body, "");
}

#[tokio::test]
async fn what_the_sms_gateway_says_is_told_apart() {
    let mut bench = Bench::new();
    let sms = bench.sms();
    bench.webhook.timeout_ms = 1_000;
    let message = |code, permanent| (Step::Message, code, permanent);
    let table = [
        (sms::Manner::Status(400), message(Some(400), true)),
        (sms::Manner::Status(422), message(Some(422), true)),
        (sms::Manner::Status(401), message(Some(401), false)),
        (sms::Manner::Status(429), message(Some(429), false)),
        (sms::Manner::Status(503), message(Some(503), false)),
        (sms::Manner::Drop, message(None, false)),
        (sms::Manner::Hang, message(None, false)),
        (sms::Manner::Endless(500), message(Some(500), false)),
    ];
    for (manner, expected) in table {
        sms.behave(manner);
        assert_eq!(end(bench.text_message().await), expected, "{manner:?}");
    }
    sms.behave(sms::Manner::Endless(200));
    bench.text_message().await.unwrap();
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut bench = Bench::new();
    let (sms, elsewhere) = (bench.sms(), sms::Gateway::start(None));
    sms.behave(sms::Manner::Redirect(elsewhere.port()));
    assert_eq!(
        end(bench.text_message().await),
        (Step::Message, Some(302), false)
    );
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn an_sms_gateway_without_a_right_certificate_hears_nothing() {
    let mut bench = Bench::new();
    let sms = bench.sms();
    bench.webhook.ca = Some(Certificate::new(bench.folder.path(), "other.pem").ca);
    assert_eq!(end(bench.text_message().await), (Step::Tls, None, false));
    assert!(sms.requests().is_empty());
}

#[tokio::test]
async fn only_what_is_configured_is_served() {
    let mut bench = Bench::new();
    let _relay = bench.relay(Security::Tls);
    let gateways = bench.gateways().unwrap();
    assert_eq!(gateways.name(Kind::Email), Some("smtp"));
    assert_eq!(gateways.name(Kind::Phone), None);
    let phone = Identifier::phone("+491701234567").unwrap();
    let refused = gateways.deliver(&phone, CODE).await;
    assert!(matches!(refused, Err(CourierError::NotServed)));
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let mut bench = Bench::new();
    let (_relay, _sms) = (bench.relay(Security::Tls), bench.sms());
    for path in [&bench.smtp.password_file, &bench.webhook.headers_file] {
        let path = path.as_ref().unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
    }
    let errors: Vec<String> = bench
        .gateways()
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors.iter().all(|error| error.contains("chmod 600")),
        "{errors:?}"
    );
    assert!(
        errors.iter().all(|error| !error.contains(PASSWORD)),
        "{errors:?}"
    );
}
