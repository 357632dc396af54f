//! The command line of the device side.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rossby_client::envelope::{MessageId, PER_DEGREE};
use rossby_client::group::{GroupError, GroupName};
use rossby_client::linking::{
    Challenge, ChallengeError, DeviceName, DeviceNameError, LinkCode, LinkCodeError,
};
use rossby_domain::ids::BoxId;

/// Where the device is and how it is opened.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// The device's directory [default: ~/.rossby].
    #[arg(long, value_name = "DIR", env = "ROSSBY_HOME", help_heading = "Device")]
    pub home: Option<PathBuf>,
    /// Read the passphrase from this file descriptor, up to the first line break. Otherwise it is
    /// taken from ROSSBY_PASSPHRASE, or asked for.
    #[arg(long, value_name = "FD", help_heading = "Device")]
    pub passphrase_fd: Option<u32>,
    /// The device has no passphrase: whoever can read its files can read everything.
    #[arg(long, conflicts_with = "passphrase_fd", help_heading = "Device")]
    pub no_passphrase: bool,
    /// Print one JSON document instead of words.
    #[arg(long, help_heading = "Device")]
    pub json: bool,
    /// Seconds to wait for the service, all tries together.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=600),
        help_heading = "Device"
    )]
    pub timeout: u64,
}

/// A phone or an email.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct IdentifierArgs {
    /// The phone number, with + and country code.
    #[arg(long, value_name = "NUMBER")]
    pub phone: Option<String>,
    /// The email address.
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
}

/// `rossby register`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby register --email alice@example.org --server https://rossby.example.org --ca ca.crt
  rossby register --phone +491701234567 --server 127.0.0.1:7470
Again, before the code was accepted: another code.")]
pub struct RegisterArgs {
    #[command(flatten)]
    pub identifier: IdentifierArgs,
    /// A server of the service: https://host:port, or 127.0.0.1:port on this machine. Several times
    /// for several servers.
    #[arg(long = "server", value_name = "URL")]
    pub servers: Vec<String>,
    /// The certificate authority of the service (PEM).
    #[arg(long, value_name = "FILE", requires = "servers")]
    pub ca: Option<PathBuf>,
    /// Others can not find this box by the phone or email.
    #[arg(long)]
    pub private: bool,
    /// All devices are lost, and so is the recovery key: take the phone or email from the box that has it. It comes
    /// to this new one 7 days after the code is given, with another code then, unless a device of the old one says no,
    /// or somebody else gives a code for it meanwhile. What was sent to
    /// the old box can't be read with this one, and to contacts it is somebody new.
    #[arg(long)]
    pub reset: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby authorize`.
#[derive(Debug, Args)]
pub struct AuthorizeArgs {
    /// The code: 8 digits. Spaces and dashes do not matter. After rossby register --reset it is given twice: the code
    /// that proves the phone or email, and once the delay is over, another from the same command.
    #[arg(value_name = "CODE", value_parser = code)]
    pub code: String,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// A slip of the fingers that can not be a code must not use up one of the few attempts.
fn code(text: &str) -> Result<String, &'static str> {
    let digits = text.chars().filter(|c| !matches!(c, ' ' | '-'));
    if digits.clone().count() == 8 && digits.clone().all(|c| c.is_ascii_digit()) {
        Ok(digits.collect())
    } else {
        Err("a code has 8 digits")
    }
}

/// `rossby contacts`.
#[derive(Debug, Subcommand)]
pub enum ContactsCommand {
    /// Looks someone up and holds them to the identity found.
    Add {
        /// Phone, email, box id or device id.
        #[arg(value_name = "WHO")]
        who: String,
        /// What to call them.
        #[arg(long)]
        name: Option<String>,
        /// Accept that the phone or email now belongs to another identity than before.
        #[arg(long)]
        accept_moved: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Shows everyone known.
    List {
        /// Shows who is blocked instead, whether known or not.
        #[arg(long)]
        blocked: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Shows one contact, with the safety number to compare with them by other means.
    Show {
        /// Name, phone, email or box id.
        #[arg(value_name = "WHO")]
        who: String,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Forgets someone and the identity that they were held to. Messages stay.
    Remove {
        /// Name, phone, email or box id.
        #[arg(value_name = "WHO")]
        who: String,
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// `rossby send`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby send Bob 'See you at eight'
  rossby send Bob 'At nine, then' --reply-to 12
  rossby send bob@example.org --file map.png
  rossby send Bob 'The cat' --picture cat.jpg
  rossby send Bob --voice hello.ogg
  rossby send Bob 'The door code is 4711' --ttl 1h
  rossby send Bob --location 52.5200066,13.404954 --label Alexanderplatz
  echo hello | rossby send Bob -
  rossby send --retry

Messages have the numbers that rossby inbox and rossby listen show.

What can not be sent now is kept and sent with the next message to the same person, by
--retry, or by rossby inbox; never twice. What the service takes only later, as too much at a time, is sent again for
some seconds, and by rossby listen. With --ttl the time counts from when it has reached their box: what nobody has
fetched by then is shown to nobody any more, and removed within a day. It takes nothing back from a device that has it.")]
pub struct SendArgs {
    /// Name of a contact, phone, email or box id.
    #[arg(value_name = "TO", required_unless_present = "retry")]
    pub to: Option<String>,
    /// The text; - reads it from standard input. With --picture, what is written below it.
    #[arg(
        value_name = "TEXT",
        required_unless_present_any = ["file", "picture", "voice", "location", "retry"]
    )]
    pub text: Option<String>,
    #[command(flatten)]
    pub what: WhatArgs,
    /// Send again what is waiting to be sent.
    #[arg(long, conflicts_with_all = ["to", "text", "attached", "location", "reply_to", "ttl"])]
    pub retry: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What is sent beside a text or instead of one.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("attached"))]
pub struct WhatArgs {
    /// A small file to send instead of a text.
    #[arg(long, value_name = "FILE", group = "attached", conflicts_with = "text")]
    pub file: Option<PathBuf>,
    /// A picture to send: GIF, JPEG, PNG or WebP, at most about 85 KiB.
    #[arg(long, value_name = "FILE", group = "attached")]
    pub picture: Option<PathBuf>,
    /// A voice message to send, at most about 85 KiB.
    #[arg(long, value_name = "FILE", group = "attached", conflicts_with = "text")]
    pub voice: Option<PathBuf>,
    /// What the file is, for example image/png; for --voice, if that is not seen from its bytes.
    #[arg(
        long,
        value_name = "TYPE",
        requires = "attached",
        conflicts_with = "picture"
    )]
    pub media_type: Option<String>,
    /// How long the voice message is, if that is not seen from its bytes.
    #[arg(long, value_name = "SECONDS", requires = "voice", value_parser = seconds)]
    pub duration: Option<u32>,
    /// A place to send, in degrees north and east.
    #[arg(
        long,
        value_name = "LAT,LON",
        allow_hyphen_values = true,
        conflicts_with_all = ["attached", "text"],
        value_parser = place
    )]
    pub location: Option<(i32, i32)>,
    /// What the place is called.
    #[arg(
        long,
        value_name = "NAME",
        requires = "location",
        default_value = "",
        hide_default_value = true
    )]
    pub label: String,
    /// How far off the place may be.
    #[arg(
        long,
        value_name = "METRES",
        requires = "location",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub accuracy: u32,
    /// The number of the message that this answers.
    #[arg(long, value_name = "MESSAGE", value_parser = which)]
    pub reply_to: Option<Which>,
    /// How long it may wait for its recipient's devices: a number with s, m, h or d [default: as long as the service
    /// and the recipient allow]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub ttl: Option<Duration>,
}

/// `rossby groups`.
#[derive(Debug, Subcommand)]
pub enum GroupsCommand {
    /// Makes a group of you and these people.
    Create {
        /// What to call it.
        #[arg(value_name = "NAME", value_parser = group_name)]
        name: GroupName,
        /// Names of contacts, phones, emails or box ids.
        #[arg(value_name = "PERSON", required = true)]
        people: Vec<String>,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Shows the groups that you are in, and their members.
    List {
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Gives a group another name.
    Rename {
        /// Name of a group, or how its id begins.
        #[arg(value_name = "GROUP")]
        group: String,
        /// What to call it.
        #[arg(value_name = "NAME", value_parser = group_name)]
        name: GroupName,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Puts people into a group.
    Add(GroupPeopleArgs),
    /// Puts people out of a group: those whom you added, whom those added, and so on.
    Remove(GroupPeopleArgs),
    /// Leaves a group.
    Leave {
        /// Name of a group, or how its id begins.
        #[arg(value_name = "GROUP")]
        group: String,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Sends something to all members of a group, to each sealed for them alone.
    Send(Box<GroupSendArgs>),
}

/// `rossby groups add`, `rossby groups remove`.
#[derive(Debug, Args)]
pub struct GroupPeopleArgs {
    /// Name of a group, or how its id begins.
    #[arg(value_name = "GROUP")]
    pub group: String,
    /// Names of contacts, phones, emails or box ids.
    #[arg(value_name = "PERSON", required = true)]
    pub people: Vec<String>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby groups send`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby groups create Friends Bob carol@example.org
  rossby groups send Friends 'Dinner at eight?'
  rossby groups send Friends --picture menu.jpg

What became of it is shown for each member. What can not be sent to one of them now is kept, and sent with the next
message to them, by rossby send --retry, or by rossby inbox; never twice.")]
pub struct GroupSendArgs {
    /// Name of a group, or how its id begins.
    #[arg(value_name = "GROUP")]
    pub group: String,
    /// The text; - reads it from standard input. With --picture, what is written below it.
    #[arg(
        value_name = "TEXT",
        required_unless_present_any = ["file", "picture", "voice", "location"]
    )]
    pub text: Option<String>,
    #[command(flatten)]
    pub what: WhatArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

fn group_name(text: &str) -> Result<GroupName, GroupError> {
    GroupName::new(text)
}

/// A time that is not none.
fn some_time(text: &str) -> Result<Duration, String> {
    match crate::fleet::duration(text)? {
        Duration::ZERO => Err("expected more than no time".to_owned()),
        time => Ok(time),
    }
}

/// How long messages may wait in a box: `None` for as long as the service allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Longest(pub Option<Duration>);

fn longest(text: &str) -> Result<Longest, String> {
    /// The service takes no less.
    const SHORTEST: Duration = Duration::from_secs(60);
    match text {
        "default" => Ok(Longest(None)),
        text => match crate::fleet::duration(text)? {
            time if time < SHORTEST => Err("expected a minute or more, or default".to_owned()),
            time => Ok(Longest(Some(time))),
        },
    }
}

/// `rossby box ttl`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby box ttl             how long messages may wait now
  rossby box ttl 7d          no longer than a week
  rossby box ttl default     as long as the service allows

It holds for what comes from then on: what waits already keeps its time. A sender may ask for less (rossby send --ttl).
What nobody has fetched in time is shown to nobody any more; it is removed within a day, and counted then (rossby inbox
--status). The box's other devices tell you that it has changed.")]
pub struct TtlArgs {
    /// The longest that a message may wait: a number with m, h or d, at least a minute, or default.
    #[arg(value_name = "TIME", value_parser = longest)]
    pub longest: Option<Longest>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Milliseconds of a number of seconds.
fn seconds(text: &str) -> Result<u32, &'static str> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    let millis = (seconds * 1000.0).round();
    if (1.0..=f64::from(u32::MAX)).contains(&millis) {
        Ok(millis as u32)
    } else {
        Err("not a length that a voice message can have")
    }
}

/// Ten-millionths of a degree.
fn place(text: &str) -> Result<(i32, i32), &'static str> {
    const FORM: &str = "give latitude and longitude in degrees, for example 52.52,13.405";
    let degrees = |text: &str, most: f64| match text.trim().parse::<f64>() {
        Ok(degrees) if degrees.abs() <= most => {
            Ok((degrees * f64::from(PER_DEGREE)).round() as i32)
        }
        Ok(_) => Err("a latitude goes from -90 to 90 degrees, a longitude from -180 to 180"),
        Err(_) => Err(FORM),
    };
    let (latitude, longitude) = text.split_once(',').ok_or(FORM)?;
    Ok((degrees(latitude, 90.0)?, degrees(longitude, 180.0)?))
}

/// Which message is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// By its number on this device.
    Number(u64),
    /// By its id, which is the same on all devices.
    Id(MessageId),
}

fn which(text: &str) -> Result<Which, &'static str> {
    let number = text.strip_prefix('#').unwrap_or(text);
    match (number.parse(), text.parse()) {
        (Ok(number), _) => Ok(Which::Number(number)),
        (_, Ok(id)) => Ok(Which::Id(id)),
        _ => Err("give the number that rossby inbox shows, or the id that it shows with --json"),
    }
}

/// `rossby react`.
#[derive(Debug, Args)]
pub struct ReactArgs {
    /// The number of the message.
    #[arg(value_name = "MESSAGE", value_parser = which)]
    pub message: Which,
    /// The emoji. It takes the place of an earlier one.
    #[arg(
        value_name = "EMOJI",
        required_unless_present = "remove",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub emoji: Option<String>,
    /// Take the reaction back.
    #[arg(long, conflicts_with = "emoji")]
    pub remove: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby edit`.
#[derive(Debug, Args)]
pub struct EditArgs {
    /// The number of the message, one of your own.
    #[arg(value_name = "MESSAGE", value_parser = which)]
    pub message: Which,
    /// The text that it has from now on (a picture: what is written below it); - reads it from standard
    /// input.
    #[arg(value_name = "TEXT")]
    pub text: String,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The number of the message, one of your own.
    #[arg(value_name = "MESSAGE", value_parser = which)]
    pub message: Which,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby safety`.
#[derive(Debug, Subcommand)]
pub enum SafetyCommand {
    /// Shows the safety number to compare with somebody, also as a QR code of its digits.
    Show {
        /// Name of a contact, phone, email or box id.
        #[arg(value_name = "WHO")]
        who: String,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Keeps that somebody was verified: their number is compared, or you are asked.
    #[command(after_help = "\
Examples:
  rossby safety verify Bob                                   shows the number and asks
  rossby safety verify Bob 30035 44776 92869 39689 28698 76765 45825 75691 62576 84344 09180 79131
  rossby safety verify Bob --yes                             the two of you have compared it already")]
    Verify {
        /// Name of a contact, phone, email or box id.
        #[arg(value_name = "WHO")]
        who: String,
        /// The number that their device shows, or what their QR code says. Spaces and dashes do not
        /// matter.
        #[arg(value_name = "NUMBER", num_args = 0.., conflicts_with = "yes")]
        number: Vec<String>,
        /// The numbers were compared, and are the same.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Accepts a change of somebody's identity without comparing: they are not verified any more, and
    /// messages are sent to them again.
    Accept {
        /// Name of a contact, phone, email or box id.
        #[arg(value_name = "WHO")]
        who: String,
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// `rossby profile`.
#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// Shows this of you from now on to the contacts whom you write to. What is not given stays as it is.
    Set(ProfileSetArgs),
    /// Shows what you show, or what somebody shows who has given you the key: by writing to you.
    Show {
        /// Name of a contact, phone, email or box id; nobody for yourself.
        #[arg(value_name = "WHO")]
        who: Option<String>,
        /// Put the picture into this new file.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Shows nothing of you any more.
    Clear {
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// `rossby profile set`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby profile set --name 'Anna B.' --about 'mostly harmless'
  rossby profile set --picture me.jpg

The service keeps it sealed, and can't read it. Contacts whom you have added get the key with the first message that you send them. Who is
blocked or removed sees nothing that comes later. Others see it as what you say of yourself, next to the name that they gave you.")]
pub struct ProfileSetArgs {
    /// What to call yourself: at most 128 bytes.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["about", "picture", "no_picture"])]
    pub name: Option<String>,
    /// A line about yourself: at most 512 bytes.
    #[arg(long, value_name = "TEXT")]
    pub about: Option<String>,
    /// A picture of yourself: GIF, JPEG, PNG or WebP, at most 32 KiB.
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Without a picture from now on.
    #[arg(long, conflicts_with = "picture")]
    pub no_picture: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby typing`.
#[derive(Debug, Args)]
#[command(after_help = "\
It reaches those devices of theirs that listen (rossby listen) and have you as a contact, and is stored nowhere. Nobody learns whether it
reached any.")]
pub struct TypingArgs {
    /// Name of a contact, phone, email or box id.
    #[arg(value_name = "WHO")]
    pub who: String,
    /// You have stopped typing.
    #[arg(long)]
    pub stop: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby messages`.
#[derive(Debug, Subcommand)]
pub enum MessagesCommand {
    /// Shows all messages of this device, without asking the service.
    List {
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Shows one message: of one that you sent, when it was delivered to whom, and read, as far as they tell.
    Show {
        /// The number of the message.
        #[arg(value_name = "MESSAGE", value_parser = which)]
        message: Which,
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// `rossby receipts`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Receipts are sealed messages like any other, sent to contacts that you have added and not blocked, and in a group to the author
alone. They say when a message came to this device, and when rossby inbox or rossby listen showed it. What was read while
that was off is never told.")]
pub enum ReceiptsCommand {
    /// Shows which receipts this box sends.
    Show {
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Tells contacts when their messages are here, or does not.
    Delivered {
        /// on or off.
        #[arg(value_name = "ON|OFF")]
        sends: OnOff,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Tells contacts when their messages were shown here, or does not.
    Read {
        /// on or off.
        #[arg(value_name = "ON|OFF")]
        sends: OnOff,
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// `rossby inbox`.
#[derive(Debug, Args)]
pub struct InboxArgs {
    /// Show the state of the queue instead: how much waits, since when, how much has expired. Fetches no message.
    #[arg(long, conflicts_with_all = ["all", "save"])]
    pub status: bool,
    /// Show all messages of this device, sent ones too, and not only what is new.
    #[arg(long)]
    pub all: bool,
    /// Put the files, pictures and voice messages among them into this folder. Nothing there is
    /// overwritten.
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby history`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby history Bob --last 20
  rossby history Family

It shows what this device has; rossby inbox fetches what is new. What others wrote stands where they say that they
wrote it, and an answer always after what its writer had seen.")]
pub struct HistoryArgs {
    /// Name of a contact or a group, phone, email, box id, or how the id of a group begins.
    #[arg(value_name = "WITH")]
    pub with: String,
    /// Only the last N messages.
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby listen`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby listen
  rossby listen --json | while read -r message; do ...; done
  rossby listen --count 1 --for 60

It goes on until Ctrl-C, and finds another server by itself when one goes away. What it has shown is
acknowledged; what it was killed before showing is shown by the next rossby listen. A message that
was being shown at that moment may come twice: with --json, its number under \"message\" is the same.
While it listens, no other command can use the same --home.")]
pub struct ListenArgs {
    /// Put the files, pictures and voice messages that come into this folder. Nothing there is
    /// overwritten.
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// End after so many messages. What came beyond is shown by the next rossby listen.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds, whatever came.
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub for_seconds: Option<u64>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby devices`.
#[derive(Debug, Subcommand)]
pub enum DevicesCommand {
    /// Links this new device to a box: shows a code for a device of that box to approve, and waits.
    Link(LinkArgs),
    /// Approves a new device that shows this code. It gets everything that comes from then on.
    Approve(ApproveArgs),
    /// Shows the devices of this box.
    List {
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Calls a device of this box so. Only the box's own devices learn it.
    Rename {
        /// Name or id of the device; "this" for this one.
        #[arg(value_name = "DEVICE")]
        which: String,
        /// What to call it: at most 32 bytes.
        #[arg(value_name = "NAME", value_parser = device_name)]
        name: DeviceName,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Removes a device from this box for ever, for example a lost one. The last one can't be removed.
    Revoke {
        /// Name or id of the device; "this" for this one.
        #[arg(value_name = "DEVICE")]
        which: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// `rossby devices link`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby devices link --server https://rossby.example.org --ca ca.crt --name laptop
  rossby devices approve CODE          on a device that has the box

Type here the six digits that the other device draws. Both devices then show the same eight digits: compare
them before you approve, and once more before this device takes its place. Ctrl-C and the same command again
goes on with the same code. The recovery key stays where it was made.")]
pub struct LinkArgs {
    /// A server of the service: https://host:port, or 127.0.0.1:port on this machine. Several times
    /// for several servers.
    #[arg(long = "server", value_name = "URL")]
    pub servers: Vec<String>,
    /// The certificate authority of the service (PEM).
    #[arg(long, value_name = "FILE", requires = "servers")]
    pub ca: Option<PathBuf>,
    /// What to call this device: at most 32 bytes. The service does not learn it.
    #[arg(long, value_name = "NAME", default_value = "new device", value_parser = device_name)]
    pub name: DeviceName,
    /// Seconds to wait for the approval; 0 asks once.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub wait: u64,
    /// The six digits that the other device draws, instead of asking for them.
    #[arg(long, value_name = "DIGITS", value_parser = challenge)]
    pub challenge: Option<Challenge>,
    /// Take a place in this box only, and do not ask.
    #[arg(long = "box", value_name = "BOX", conflicts_with = "yes")]
    pub box_id: Option<BoxId>,
    /// Do not ask whose box it is.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby devices approve`.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The code that the new device shows.
    #[arg(value_name = "CODE", value_parser = link_code)]
    pub code: LinkCode,
    /// Six digits to type on the new device, instead of some that are drawn now.
    #[arg(long, value_name = "DIGITS", value_parser = challenge)]
    pub challenge: Option<Challenge>,
    /// Do not ask: the digits were compared.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

fn challenge(text: &str) -> Result<Challenge, ChallengeError> {
    Challenge::from_text(text)
}

fn device_name(text: &str) -> Result<DeviceName, DeviceNameError> {
    DeviceName::new(text)
}

fn link_code(text: &str) -> Result<LinkCode, LinkCodeError> {
    LinkCode::from_text(text)
}

/// `rossby account`.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Deletes this box and all that it has: on the service at once, and everything on this device. Its phones and
    /// emails are free for others, and its other devices get nothing more. It can't be undone.
    #[command(after_help = "\
To others the box is one that is not there. What was sent to them stays with them. A device that is left of a box
that was deleted is erased by the same command. Backups of the service that were made before still hold what they
hold, sealed as it is, until they are deleted.")]
    Delete {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// `rossby recovery`.
#[derive(Debug, Subcommand)]
pub enum RecoveryCommand {
    /// Shows the recovery key: 24 words. Only the device that registered the box has it.
    Show {
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Checks the words that were written down, and takes the recovery key from this device if they are right: whoever steals the
    /// device does not get it then. Any device of the box can tell.
    Confirm {
        #[command(flatten)]
        words: WordsArgs,
        /// Check the words only.
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Takes the recovery key from this device, once the words are given: whoever takes the device does not get it then.
    Forget {
        #[command(flatten)]
        words: WordsArgs,
        /// Do not ask for the words. If nobody has them, they are lost for ever.
        #[arg(long, conflicts_with = "words_fd")]
        yes: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Takes a place in a box by its recovery key alone, for this new device.
    Use(RecoveryUseArgs),
}

/// Where the words of a recovery key come from.
#[derive(Debug, Args)]
pub struct WordsArgs {
    /// Read the recovery key from this file descriptor, to its end. Otherwise it is taken from
    /// ROSSBY_RECOVERY_KEY, or asked for.
    #[arg(long, value_name = "FD")]
    pub words_fd: Option<u32>,
}

/// `rossby recovery use`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby recovery use --email alice@example.org --server https://rossby.example.org --ca ca.crt
  rossby recovery use --box BOX --server 127.0.0.1:7470 --revoke-others

It needs a --home in which there is no device yet. It gets all that comes from then on, and not what came before.
With --revoke-others no other device of the box gets anything any more: for a device that was stolen. Ctrl-C and the
same command again goes on. Others see the same box: to them nothing changes.")]
pub struct RecoveryUseArgs {
    #[command(flatten)]
    pub which: RecoverableArgs,
    /// A server of the service: https://host:port, or 127.0.0.1:port on this machine. Several times
    /// for several servers.
    #[arg(long = "server", value_name = "URL")]
    pub servers: Vec<String>,
    /// The certificate authority of the service (PEM).
    #[arg(long, value_name = "FILE", requires = "servers")]
    pub ca: Option<PathBuf>,
    /// What to call this device: at most 32 bytes. The service does not learn it.
    #[arg(long, value_name = "NAME", default_value = "new device", value_parser = device_name)]
    pub name: DeviceName,
    /// Remove all other devices of the box for ever, in the same step.
    #[arg(long)]
    pub revoke_others: bool,
    #[command(flatten)]
    pub words: WordsArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// A box, by what its owner remembers of it.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RecoverableArgs {
    /// A phone number of the box, with + and country code.
    #[arg(long, value_name = "NUMBER")]
    pub phone: Option<String>,
    /// An email address of the box.
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// The box itself.
    #[arg(long = "box", value_name = "BOX")]
    pub box_id: Option<BoxId>,
}

/// `rossby identifiers`.
#[derive(Debug, Subcommand)]
pub enum IdentifiersCommand {
    /// Adds a phone or email: a code is sent there, which the same command takes with --code.
    #[command(after_help = "\
Examples:
  rossby identifiers add --phone +491701234567
  rossby identifiers add --phone +491701234567 --code 12345678
  rossby identifiers add --email alice@work.example --private

A box has at most 8. Again, without --code: another code. Adding one that the box has already, with or without
--private, changes whether others find the box by it, once its code is given.")]
    Add {
        #[command(flatten)]
        identifier: IdentifierArgs,
        /// Others can not find this box by it.
        #[arg(long, conflicts_with = "code")]
        private: bool,
        /// The code that was sent there: 8 digits.
        #[arg(long, value_name = "CODE", value_parser = code)]
        code: Option<String>,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Takes a phone or email from this box. It is free for others at once. The last one can't be removed.
    Remove {
        #[command(flatten)]
        identifier: IdentifierArgs,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Keeps a phone or email that somebody else has proven to be theirs, and would get after some days.
    #[command(after_help = "\
Who can read what is sent to a phone or email, and says that all devices are lost, gets it after 7 days: the devices
of this box are told (rossby inbox, rossby listen, rossby identifiers list), and any of them can say no with this.
Nobody can ask for it again for 7 days then, and twice as long each time after, up to 56.")]
    Keep {
        #[command(flatten)]
        identifier: IdentifierArgs,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Shows the phones and emails of this box.
    List {
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// `rossby keys`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Gives this device a new encryption key. Mail for the one before still opens; keys that nobody
    /// seals to any more are erased, so that what was read can't be opened again by who takes them later.
    Rotate {
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Shows this device's encryption keys: since when, and whether their private halves are still here
    History {
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Shows or changes how often this device makes a new encryption key by itself: daily, if nothing else
    /// is said. It does so when it is in touch with the service (inbox, listen)
    Schedule {
        /// When the current key is this old
        #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=8760), conflicts_with = "off")]
        every_hours: Option<u32>,
        /// Never by itself
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
}

/// `rossby whoami`.
#[derive(Debug, Args)]
pub struct WhoAmIArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// From whom messages are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Whom {
    /// Anyone who is not blocked.
    Anyone,
    /// Those whom rossby contacts add has added, and this box's own devices.
    Contacts,
}

/// `rossby accept`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without WHOM it says what holds. Who is added by rossby contacts add later, on any device of this box, can write at
once, and who is removed can't any more. The service knows who your contacts are while only they are accepted, and
forgets it with rossby accept anyone.")]
pub struct AcceptArgs {
    /// From whom messages are taken from now on. Without it: says from whom they are.
    #[arg(value_name = "WHOM")]
    pub from: Option<Whom>,
    /// With contacts: one more, by box id, for example somebody who can't be looked up because they accept
    /// contacts only as well. Several times for several.
    #[arg(long, value_name = "BOX", requires = "from")]
    pub allow: Vec<BoxId>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby block`, `rossby unblock`.
#[derive(Debug, Args)]
pub struct BlockArgs {
    /// Name of a contact, phone, email or box id.
    #[arg(value_name = "BOX")]
    pub who: String,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `rossby report`.
#[derive(Debug, Args)]
#[command(after_help = "\
The operator of the service learns how many boxes have reported that one, once for each, and nothing of what was
written. Whom you report learns nothing.")]
pub struct ReportArgs {
    /// Name of a contact, phone, email or box id: of somebody who has written to this box.
    #[arg(value_name = "PERSON")]
    pub who: String,
    /// Block them too.
    #[arg(long)]
    pub block: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_to_the_last_digit() {
        assert_eq!(
            place("52.5200066,13.404954"),
            Ok((525_200_066, 134_049_540))
        );
        assert_eq!(place("-90, -180"), Ok((-900_000_000, -1_800_000_000)));
        for bad in [
            "", "1", "1;2", "91,0", "0,181", "NaN,0", "inf,0", "1,2,3", "x,y",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_message_is_named_as_it_is_shown() {
        assert_eq!(which("12"), Ok(Which::Number(12)));
        assert_eq!(which("#12"), Ok(Which::Number(12)));
        let id =
            "745d76d5-7363-8aa1-89c6-96bc6c5f9df6/04720276f908cf2702d062dfff90fcf8/1700000000123";
        assert!(matches!(which(id), Ok(Which::Id(found)) if found.to_string() == id));
        for bad in ["", "#", "-1", "x", "a/b/c"] {
            assert!(which(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_length_is_more_than_nothing() {
        assert_eq!(seconds("2.345"), Ok(2345));
        for bad in ["", "0", "-1", "NaN", "1e9"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
