//! `rossby safety`.

use std::io::{IsTerminal as _, Write as _};

use rossby_client::Device;
use rossby_client::device::Contact;
use serde_json::Value;

use super::args::{DeviceArgs, SafetyCommand};
use super::open::{open, tell_own_devices};
use super::person::{Person, find};
use super::qr;
use super::show;
use crate::exit::{Exit, Failure};
use crate::output;

/// Groups of digits on a line.
const GROUPS: usize = 4;

/// Runs a `safety` command. None of them needs the service; the own devices are told through it.
pub async fn run(command: &SafetyCommand) -> Result<(), Failure> {
    match command {
        SafetyCommand::Show { who, device: args } => {
            let device = open(args)?;
            let contact = find_contact(&device, who)?;
            show_number(&device, &contact, args)
        }
        SafetyCommand::Verify {
            who,
            number,
            yes,
            device: args,
        } => {
            let device = open(args)?;
            let contact = find_contact(&device, who)?;
            let number = number.concat();
            let given = (!number.is_empty()).then_some(number.as_str());
            if given.is_none() && !yes {
                ask(&device, &contact)?;
            }
            let contact = device.verify(&contact.box_id, given)?;
            tell_own_devices(&device).await;
            said(&device, &contact, args, "is verified")
        }
        SafetyCommand::Accept { who, device: args } => {
            let device = open(args)?;
            let before = find_contact(&device, who)?;
            let contact = device.accept_change(&before.box_id)?;
            let what = match before.changed {
                Some(_) => "is accepted as they are now, and not verified",
                None => "has not changed",
            };
            tell_own_devices(&device).await;
            said(&device, &contact, args, what)
        }
    }
}

/// The number in lines, with what to do with it.
pub fn number_in_lines(number: &str) -> String {
    let groups: Vec<&str> = number.split(' ').collect();
    let lines: Vec<String> = groups
        .chunks(GROUPS)
        .map(|line| format!("\n  {}", line.join(" ")))
        .collect();
    format!(
        "\nSafety number: compare it with theirs, face to face or by telephone.{}",
        lines.concat()
    )
}

/// The contact who is meant.
pub fn find_contact(device: &Device, who: &str) -> Result<Contact, Failure> {
    let missing = || Failure::new(Exit::NotFound, "there is no such contact");
    let Person::Known(box_id) = find(device, who)? else {
        return Err(missing().help("rossby contacts add comes first"));
    };
    device.contact(&box_id)?.ok_or_else(missing)
}

fn show_number(device: &Device, contact: &Contact, args: &DeviceArgs) -> Result<(), Failure> {
    let number = device.safety_number(&contact.box_id)?;
    if args.json {
        return output::json(&data(contact, &number));
    }
    output::line(show::contact_line(contact));
    output::line(number_in_lines(&number));
    // Its digits and nothing else: any reader shows what rossby safety verify takes.
    if let Some(drawn) = qr::to_show(&number.replace(' ', "")) {
        output::line(format!("\n{drawn}"));
    }
    match show::change(contact) {
        Some(change) => output::note(change),
        None if contact.is_verified() => {}
        None => output::note(format!(
            "\nOnce you have compared it: rossby safety verify {}",
            contact.box_id
        )),
    }
    Ok(())
}

/// A contact with their safety number, as JSON.
pub fn data(contact: &Contact, number: &str) -> Value {
    let mut value = show::contact(contact);
    if let Some(value) = value.as_object_mut() {
        value.insert("safety_number".to_owned(), number.into());
    }
    value
}

/// Has the person compare.
fn ask(device: &Device, contact: &Contact) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let what = "there is no terminal to ask whether the numbers agree";
        return Err(Failure::new(Exit::Usage, what)
            .help("give the number that their device shows, or --yes if you have compared it"));
    }
    output::note(show::contact_line(contact));
    output::note(number_in_lines(&device.safety_number(&contact.box_id)?));
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\nDoes their device show the same number? Type yes: ");
    let _ = err.flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && answer.trim().eq_ignore_ascii_case("yes") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Refused, "not verified"))
    }
}

fn said(device: &Device, contact: &Contact, args: &DeviceArgs, what: &str) -> Result<(), Failure> {
    if args.json {
        let number = device.safety_number(&contact.box_id)?;
        return output::json(&data(contact, &number));
    }
    output::line(format!("{} {what}", show::safe(&contact.label())));
    Ok(())
}
