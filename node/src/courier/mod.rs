//! `rossby courier test`: a message through the configured gateway, step by step.

use clap::{Args, Subcommand};
use rossby_api::courier::{CourierError, Gateways, Problem, Step};
use rossby_domain::identifier::Identifier;

use crate::config::{self, ConfigArgs, CourierKind};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::runtime;

/// What the message says instead of a code. Nobody has asked for it, so it opens nothing.
const SAMPLE_CODE: &str = "00000000";

/// `rossby courier`.
#[derive(Debug, Subcommand)]
pub enum CourierCommand {
    /// Sends a test message through the configured gateway, from this machine, and reports each step.
    #[command(after_help = "\
No node needs to run, and none is asked. The code in the message is 00000000 and opens nothing.

Exits with 0 if the gateway took the message, 3 if the settings are wrong, 4 if the gateway could not be
reached, did not answer, or said to try later, 5 if it refused the address or the message, and 7 if it
refused the login. That it was taken does not mean that it arrives: look there.

Examples:
  rossby courier test --config /etc/rossby.toml --email you@example.org
  rossby courier test --config /etc/rossby.toml --phone +491701234567")]
    Test(TestArgs),
}

/// `rossby courier test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    to: Recipient,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Whom the test message is for.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Recipient {
    /// Sends a mail to this address.
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Sends an SMS to this number, with its country code.
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,
}

/// Runs `rossby courier`.
///
/// # Errors
/// As `--help` says.
pub fn run(command: &CourierCommand) -> Result<(), Failure> {
    let CourierCommand::Test(args) = command;
    let identifier = args.to.identifier()?;
    let config = config::load(&args.config)?.config;
    if config.courier.kind != CourierKind::Gateways {
        return Err(Failure::new(
            Exit::Config,
            "courier.kind: this courier sends nothing, so there is nothing to test",
        )
        .help("set courier.kind = \"gateways\", and courier.smtp or courier.webhook"));
    }
    let gateways = config.gateways().map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::new(Exit::Config, errors.join("\n"))
            .help("`rossby config show` tells where each setting comes from")
    })?;
    runtime::one_thread()?.block_on(send(&gateways, &identifier))
}

impl Recipient {
    fn identifier(&self) -> Result<Identifier, Failure> {
        let parsed = match (&self.email, &self.phone) {
            (Some(email), _) => Identifier::email(email),
            (None, Some(phone)) => Identifier::phone(phone),
            (None, None) => return Err(Failure::new(Exit::Usage, "name --email or --phone")),
        };
        parsed.map_err(|error| Failure::new(Exit::Usage, error))
    }
}

async fn send(gateways: &Gateways, identifier: &Identifier) -> Result<(), Failure> {
    let mut tell = |step: String| output::line(format!("ok      {step}"));
    match gateways.send(identifier, SAMPLE_CODE, &mut tell).await {
        Ok(()) => {
            output::line("done    the gateway took the message; see whether it arrives");
            Ok(())
        }
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &CourierError) -> Failure {
    let CourierError::Gateway {
        step,
        problem,
        permanent,
    } = error
    else {
        return Failure::new(Exit::Config, error)
            .help("emails need courier.smtp.host, phones courier.webhook.url");
    };
    output::line(format!("failed  {step}"));
    let mut said = error.to_string();
    if let Problem::Refused { words, .. } = problem
        && !words.is_empty()
    {
        said = format!("{said}: {words}");
    }
    match (step, problem) {
        (Step::Login, Problem::Refused { .. }) => Failure::new(Exit::Unauthenticated, said)
            .help("check courier.smtp.user and its password"),
        (
            Step::Message,
            Problem::Refused {
                code: 401 | 403, ..
            },
        ) => Failure::new(Exit::Unauthenticated, said).help("check courier.webhook.headers_file"),
        _ if *permanent => Failure::new(Exit::Refused, said),
        (Step::Tls, _) => Failure::new(Exit::Unavailable, said).help(
            "the certificate must be for the configured host and come from a known authority, \
             or from the one in .ca",
        ),
        _ => Failure::new(Exit::Unavailable, said),
    }
}
