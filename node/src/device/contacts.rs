//! `rossby contacts`, `rossby block`, `rossby unblock` and `rossby report`.

use super::args::{BlockArgs, ContactsCommand, DeviceArgs, ReportArgs};
use super::open::open;
use super::person::{Person, find, find_box, lookup_of};
use super::{safety, show};
use crate::exit::{Exit, Failure};
use crate::output;

/// Runs a `contacts` command.
pub async fn run(command: &ContactsCommand) -> Result<(), Failure> {
    match command {
        ContactsCommand::Add {
            who,
            name,
            accept_moved,
            device: args,
        } => {
            let device = open(args)?;
            let by = lookup_of(who)?.ok_or_else(|| {
                Failure::new(
                    Exit::Usage,
                    format!("{who:?} is nothing to find anybody by"),
                )
                .help("give a phone number with +, an email address, a box id or a device id")
            })?;
            let contact = device
                .add_contact(&by, name.as_deref(), *accept_moved)
                .await?;
            if let Some(change) = show::change(&contact) {
                output::note(change);
            }
            if args.json {
                return output::json(&show::contact(&contact));
            }
            output::line(format!(
                "{} is box {}",
                show::safe(&contact.label()),
                contact.box_id
            ));
            Ok(())
        }
        ContactsCommand::List {
            blocked: true,
            device: args,
        } => list_blocked(args),
        ContactsCommand::List {
            blocked: false,
            device: args,
        } => {
            let contacts = open(args)?.contacts()?;
            if args.json {
                let contacts: Vec<_> = contacts.iter().map(show::contact).collect();
                return output::json(&contacts);
            }
            if contacts.is_empty() {
                output::note("nobody yet; add someone with rossby contacts add");
            }
            for contact in &contacts {
                output::line(show::contact_line(contact));
            }
            contacts
                .iter()
                .filter_map(show::change)
                .for_each(output::note);
            Ok(())
        }
        ContactsCommand::Show { who, device: args } => show_one(who, args),
        ContactsCommand::Remove { who, device: args } => {
            let device = open(args)?;
            let Person::Known(box_id) = find(&device, who)? else {
                return Err(Failure::new(Exit::NotFound, "there is no such contact"));
            };
            device.remove_contact(&box_id).await?;
            if args.json {
                return output::json(
                    &serde_json::json!({ "box": box_id.to_string(), "removed": true }),
                );
            }
            output::line(format!("box {box_id} is forgotten"));
            Ok(())
        }
    }
}

/// Shows who is blocked, also those of whom nothing else is known.
fn list_blocked(args: &DeviceArgs) -> Result<(), Failure> {
    let device = open(args)?;
    let mut blocked = Vec::new();
    for box_id in device.blocked()? {
        blocked.push((box_id, device.contact(&box_id)?));
    }
    if args.json {
        let blocked: Vec<_> = blocked
            .iter()
            .map(|(box_id, contact)| match contact {
                Some(contact) => show::contact(contact),
                None => serde_json::json!({ "box": box_id.to_string(), "blocked": true }),
            })
            .collect();
        return output::json(&blocked);
    }
    if blocked.is_empty() {
        output::note("nobody; block someone with rossby block");
    }
    for (box_id, contact) in &blocked {
        output::line(match contact {
            Some(contact) => show::contact_line(contact),
            None => format!("{box_id}  (blocked)"),
        });
    }
    Ok(())
}

fn show_one(who: &str, args: &DeviceArgs) -> Result<(), Failure> {
    let device = open(args)?;
    let contact = safety::find_contact(&device, who)?;
    let number = device.safety_number(&contact.box_id)?;
    if args.json {
        return output::json(&safety::data(&contact, &number));
    }
    output::line(show::contact_line(&contact));
    output::line(safety::number_in_lines(&number));
    if let Some(change) = show::change(&contact) {
        output::note(change);
    }
    Ok(())
}

/// Blocks someone, or lifts the block.
pub async fn block(args: &BlockArgs, blocked: bool) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let box_id = find_box(&device, &args.who).await?;
    device.block(&box_id, blocked).await?;
    if args.device.json {
        return output::json(&serde_json::json!({ "box": box_id.to_string(), "blocked": blocked }));
    }
    let state = if blocked {
        "blocked"
    } else {
        "no longer blocked"
    };
    output::line(format!("box {box_id} is {state}"));
    Ok(())
}

/// Reports somebody, and blocks them if so wanted.
pub async fn report(args: &ReportArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let box_id = find_box(&device, &args.who).await?;
    device.report(&box_id, args.block).await?;
    if args.device.json {
        let (name, blocked) = (box_id.to_string(), args.block);
        return output::json(
            &serde_json::json!({ "box": name, "reported": true, "blocked": blocked }),
        );
    }
    let more = if args.block { " and blocked" } else { "" };
    output::line(format!("box {box_id} is reported{more}"));
    Ok(())
}
