//! `rossby profile`: what this box shows of itself to its contacts, and what they show.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use rossby_client::Device;
use rossby_client::device::Claimed;
use rossby_client::profile::{Portrait, Profile};
use serde_json::Value;

use super::args::{ProfileCommand, ProfileSetArgs};
use super::media::picture_of;
use super::open::open;
use super::person::find_box;
use super::send::read_file;
use super::show::{self, safe};
use crate::exit::{Exit, Failure};
use crate::output;

/// Sets, shows or clears a profile.
pub async fn run(command: &ProfileCommand) -> Result<(), Failure> {
    match command {
        ProfileCommand::Set(args) => {
            let device = open(&args.device)?;
            let profile = changed(&device, args)?;
            let waiting = device.set_profile(&profile).await?;
            told(&device, waiting, args.device.json)
        }
        ProfileCommand::Clear { device: args } => {
            let device = open(args)?;
            let waiting = device.set_profile(&Profile::default()).await?;
            told(&device, waiting, args.json)
        }
        ProfileCommand::Show {
            who,
            save,
            device: args,
        } => {
            let device = open(args)?;
            let claimed = match who {
                Some(who) => {
                    let box_id = find_box(&device, who).await?;
                    device.profile_of(&box_id)?
                }
                None => device.profile()?,
            };
            if let Some(path) = save {
                save_picture(path, claimed.as_ref())?;
            }
            report(claimed.as_ref(), args.json)
        }
    }
}

/// The profile of this box with what is given.
fn changed(device: &Device, args: &ProfileSetArgs) -> Result<Profile, Failure> {
    let before = device.profile()?.map(|claimed| claimed.profile);
    let before = before.unwrap_or_default();
    let picture = match &args.picture {
        Some(path) => {
            let picture = picture_of(read_file(path)?, "")?;
            let portrait = Portrait::new(picture.media_type(), picture.bytes().to_vec());
            Some(portrait.map_err(refused)?)
        }
        None => before.picture().filter(|_| !args.no_picture).cloned(),
    };
    let name = args.name.as_deref().unwrap_or(before.name());
    let about = args.about.as_deref().unwrap_or(before.about());
    Profile::new(name, about, picture).map_err(refused)
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Refused, error)
}

fn told(device: &Device, waiting: usize, json: bool) -> Result<(), Failure> {
    report(device.profile()?.as_ref(), json)?;
    if waiting > 0 {
        output::note(format!(
            "{waiting} could not be told yet; they are with the next message to them"
        ));
    }
    Ok(())
}

fn report(claimed: Option<&Claimed>, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(&claimed.map_or(Value::Null, show::claimed));
    }
    let Some(claimed) = claimed else {
        output::line("nothing is shown, or nothing is known of it here");
        return Ok(());
    };
    let profile = &claimed.profile;
    output::line(match profile.name() {
        "" => "no name".to_owned(),
        name => safe(name),
    });
    if !profile.about().is_empty() {
        output::line(format!("  {}", safe(profile.about())));
    }
    if let Some(picture) = profile.picture() {
        let (kind, bytes) = (safe(picture.media_type()), picture.bytes().len());
        output::line(format!("  [picture {kind}, {bytes} bytes]"));
    }
    if claimed.is_withheld {
        output::note(
            "WARNING: the service shows an older profile than there is, or one that is not theirs; this is the \
             last one that they have signed and that came here",
        );
    }
    Ok(())
}

/// Puts the picture into a new file.
fn save_picture(path: &Path, claimed: Option<&Claimed>) -> Result<(), Failure> {
    let picture = claimed.and_then(|claimed| claimed.profile.picture());
    let picture = picture.ok_or_else(|| Failure::new(Exit::NotFound, "there is no picture"))?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(picture.bytes()));
    written.map_err(|error| {
        Failure::new(
            Exit::Failure,
            format!("cannot write {}: {error}", path.display()),
        )
    })
}
