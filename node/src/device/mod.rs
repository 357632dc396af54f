//! The device side: a person's keys, contacts and messages on this machine.
//!
//! ```text
//!   args.rs ──► open.rs: passphrase, home ──► one file per command ──► rossby_client::Device
//!                                                  │
//!                 person.rs: who is meant          └──► show/: for people, or as JSON
//!                 failure.rs: what went wrong, what to do, and the exit code
//! ```

mod accept;
mod account;
mod acting;
mod args;
mod contacts;
mod devices;
mod failure;
mod groups;
mod history;
mod identifiers;
mod inbox;
mod keys;
mod link;
mod listen;
mod media;
mod open;
mod passphrase;
mod person;
mod profile;
mod qr;
mod queue;
mod receipts;
mod recovery;
mod register;
mod safety;
mod saving;
mod send;
mod show;
mod typing;
mod whoami;

use clap::Subcommand;

pub use self::args::TtlArgs;
use self::args::{
    AcceptArgs, AccountCommand, AuthorizeArgs, BlockArgs, ContactsCommand, DeleteArgs,
    DevicesCommand, EditArgs, GroupsCommand, HistoryArgs, IdentifiersCommand, InboxArgs,
    KeysCommand, ListenArgs, MessagesCommand, ProfileCommand, ReactArgs, ReceiptsCommand,
    RecoveryCommand, RegisterArgs, ReportArgs, SafetyCommand, SendArgs, TypingArgs, WhoAmIArgs,
};
pub use self::failure::of_call;
pub use self::queue::ttl;
use crate::exit::Failure;
use crate::runtime;

/// What a person does with their box.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Makes keys on this device and asks for a box; a code is sent to the phone or email.
    Register(RegisterArgs),
    /// Proves the phone or email with the code that was sent there.
    Authorize(AuthorizeArgs),
    /// Whom this device knows, and the identities that it holds them to.
    #[command(subcommand)]
    Contacts(ContactsCommand),
    /// Sends a text, a picture, a place, a voice message or a small file, sealed for its recipient alone.
    Send(SendArgs),
    /// Groups of people: create, list, rename, add, remove, leave, send.
    #[command(subcommand)]
    Groups(GroupsCommand),
    /// Reacts to a message with an emoji.
    React(ReactArgs),
    /// Gives a message of your own another text.
    Edit(EditArgs),
    /// Takes a message of your own back.
    Delete(DeleteArgs),
    /// Fetches what has come in and shows it.
    Inbox(InboxArgs),
    /// Shows a conversation, in the order that all devices of those in it show.
    History(HistoryArgs),
    /// Messages that this device has, and how far they have come with their recipients: list, show.
    #[command(subcommand)]
    Messages(MessagesCommand),
    /// Which receipts this box sends to contacts: show, delivered, read.
    #[command(subcommand)]
    Receipts(ReceiptsCommand),
    /// Safety numbers: whether nobody stands between you and somebody.
    #[command(subcommand)]
    Safety(SafetyCommand),
    /// Shows messages as they come, until Ctrl-C.
    Listen(ListenArgs),
    /// Tells a contact who listens at this moment that you are typing.
    Typing(TypingArgs),
    /// What you show of yourself to your contacts, and what they show: set, show, clear.
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Says who this device is.
    Whoami(WhoAmIArgs),
    /// The devices of this box: link, approve, list, rename, revoke.
    #[command(subcommand)]
    Devices(DevicesCommand),
    /// The recovery key: show, confirm, forget, and use it where all devices are lost or one was stolen.
    #[command(subcommand)]
    Recovery(RecoveryCommand),
    /// The phones and emails of this box: add, remove, list, and keep one that somebody else asks for.
    #[command(subcommand)]
    Identifiers(IdentifiersCommand),
    /// This box as a whole: delete it.
    #[command(subcommand)]
    Account(AccountCommand),
    /// This device's own keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Blocks a sender. To them, this box no longer exists.
    Block(BlockArgs),
    /// Lifts a block.
    Unblock(BlockArgs),
    /// Reports somebody who has written to this box, and whose messages are unwanted, to the service's operator.
    Report(ReportArgs),
    /// Takes messages from anyone, or from contacts only. To others, this box does not exist then.
    Accept(AcceptArgs),
}

/// Runs a command of the device side.
///
/// # Errors
/// Whatever went wrong, with the exit code for it.
pub fn run(command: DeviceCommand) -> Result<(), Failure> {
    runtime::one_thread()?.block_on(async {
        match command {
            DeviceCommand::Register(args) => register::register(&args).await,
            DeviceCommand::Authorize(args) => register::authorize(&args).await,
            DeviceCommand::Contacts(command) => contacts::run(&command).await,
            DeviceCommand::Send(args) => send::run(&args).await,
            DeviceCommand::Groups(command) => groups::run(&command).await,
            DeviceCommand::React(args) => acting::react(&args).await,
            DeviceCommand::Edit(args) => acting::edit(&args).await,
            DeviceCommand::Delete(args) => acting::delete(&args).await,
            DeviceCommand::Safety(command) => safety::run(&command).await,
            DeviceCommand::Messages(command) => receipts::messages(&command),
            DeviceCommand::Receipts(command) => receipts::run(&command).await,
            DeviceCommand::Inbox(args) => inbox::run(&args).await,
            DeviceCommand::History(args) => history::run(&args),
            DeviceCommand::Listen(args) => listen::run(&args).await,
            DeviceCommand::Typing(args) => typing::run(&args).await,
            DeviceCommand::Profile(command) => profile::run(&command).await,
            DeviceCommand::Devices(command) => devices::run(&command).await,
            DeviceCommand::Recovery(command) => recovery::run(&command).await,
            DeviceCommand::Account(command) => account::run(&command).await,
            DeviceCommand::Identifiers(command) => identifiers::run(&command).await,
            DeviceCommand::Keys(command) => keys::run(&command).await,
            DeviceCommand::Whoami(args) => whoami::run(&args),
            DeviceCommand::Block(args) => contacts::block(&args, true).await,
            DeviceCommand::Report(args) => contacts::report(&args).await,
            DeviceCommand::Accept(args) => accept::run(&args).await,
            DeviceCommand::Unblock(args) => contacts::block(&args, false).await,
        }
    })
}
