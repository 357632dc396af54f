//! `rossby groups`.

use rossby_client::Device;
use rossby_client::conversation::Conversation;
use rossby_client::device::GroupInfo;
use rossby_client::group::{GroupId, GroupName};
use rossby_domain::ids::BoxId;

use super::args::{DeviceArgs, GroupPeopleArgs, GroupSendArgs, GroupsCommand};
use super::open::open;
use super::person::find_box;
use super::send::{content_of, report, say};
use super::show::{self, Around};
use crate::exit::{Exit, Failure};
use crate::output;

/// The fewest characters of an id that say which group is meant.
const LEAST_PREFIX: usize = 4;

/// Runs a `groups` command.
pub async fn run(command: &GroupsCommand) -> Result<(), Failure> {
    match command {
        GroupsCommand::Create {
            name,
            people,
            device: args,
        } => {
            let device = open(args)?;
            let people = boxes(&device, people).await?;
            let (id, untold) = device.create_group(name.clone(), &people).await?;
            changed(&device, &id, untold, args)
        }
        GroupsCommand::List { device: args } => list(args),
        GroupsCommand::Rename {
            group,
            name,
            device: args,
        } => {
            let device = open(args)?;
            let id = find_group(&device, group)?;
            let untold = device.rename_group(&id, name.clone()).await?;
            changed(&device, &id, untold, args)
        }
        GroupsCommand::Add(args) => {
            let (device, id, people) = group_and_people(args).await?;
            let untold = device.add_to_group(&id, &people).await?;
            changed(&device, &id, untold, &args.device)
        }
        GroupsCommand::Remove(args) => {
            let (device, id, people) = group_and_people(args).await?;
            let untold = device.remove_from_group(&id, &people).await?;
            changed(&device, &id, untold, &args.device)
        }
        GroupsCommand::Leave {
            group,
            device: args,
        } => {
            let device = open(args)?;
            let id = find_group(&device, group)?;
            let untold = device.leave_group(&id).await?;
            changed(&device, &id, untold, args)
        }
        GroupsCommand::Send(args) => send(args).await,
    }
}

fn list(args: &DeviceArgs) -> Result<(), Failure> {
    let device = open(args)?;
    let around = Around::of(&device, &[])?;
    let groups = device.groups()?;
    if args.json {
        let groups: Vec<_> = groups
            .iter()
            .map(|group| show::group(group, &around))
            .collect();
        return output::json(&groups);
    }
    if groups.is_empty() {
        output::note("no groups yet; rossby groups create makes one");
    }
    for group in &groups {
        output::line(show::group_line(group, &around));
    }
    Ok(())
}

async fn send(args: &GroupSendArgs) -> Result<(), Failure> {
    let content = content_of(args.text.as_deref(), &args.what)?;
    let device = open(&args.device)?;
    let group = Conversation::In(find_group(&device, &args.group)?);
    let sent = say(&device, &group, content, &args.what).await?;
    report(&device, &group, sent, args.device.json)
}

async fn group_and_people(
    args: &GroupPeopleArgs,
) -> Result<(Device, GroupId, Vec<BoxId>), Failure> {
    let device = open(&args.device)?;
    let id = find_group(&device, &args.group)?;
    let people = boxes(&device, &args.people).await?;
    Ok((device, id, people))
}

async fn boxes(device: &Device, people: &[String]) -> Result<Vec<BoxId>, Failure> {
    let mut boxes = Vec::new();
    for person in people {
        boxes.push(find_box(device, person).await?);
    }
    Ok(boxes)
}

/// Shows a group as it is now, and how many of those concerned do not know it yet.
fn changed(device: &Device, id: &GroupId, untold: usize, args: &DeviceArgs) -> Result<(), Failure> {
    let around = Around::of(device, &[])?;
    let group = device.group(id)?;
    if args.json {
        let mut value = show::group(&group, &around);
        if let Some(value) = value.as_object_mut() {
            value.insert("untold".to_owned(), untold.into());
        }
        return output::json(&value);
    }
    output::line(show::group_line(&group, &around));
    if untold > 0 {
        output::note(format!(
            "{untold} could not be told now; rossby inbox or the next message to them does it"
        ));
    }
    Ok(())
}

/// The group that is meant: by a name that only one has, or by how its id begins.
pub fn find_group(device: &Device, text: &str) -> Result<GroupId, Failure> {
    let groups = device.groups()?;
    let wanted = text.to_lowercase();
    let named = |group: &&GroupInfo| {
        let name = group.name.as_ref().map(GroupName::as_str);
        name.is_some_and(|name| name.to_lowercase() == wanted)
    };
    let by_id = |group: &&GroupInfo| {
        text.len() >= LEAST_PREFIX && group.id.to_string().starts_with(&wanted)
    };
    let mut found: Vec<_> = groups.iter().filter(named).collect();
    // One that this box has left does not stand in the way of another.
    if found.len() > 1 {
        found.retain(|group| group.is_member);
    }
    if found.is_empty() {
        found = groups.iter().filter(by_id).collect();
    }
    match &found[..] {
        [one] => Ok(one.id),
        [] => Err(
            Failure::new(Exit::NotFound, format!("there is no group called {text:?}"))
                .help("rossby groups list shows those that there are"),
        ),
        _ => Err(Failure::new(
            Exit::NotFound,
            format!("several groups are meant by {text:?}"),
        )
        .help("give more of the id that rossby groups list shows")),
    }
}
