//! What went wrong, in words, with what to do about it and the exit code.

use rossby_client::DeviceError;
use rossby_client::connection::{CallError, Refusal, Retry};
use rossby_client::group::GroupError;
use rossby_client::linking::LinkCodeError;
use rossby_client::store::StoreError;

use super::show;
use crate::exit::{Exit, Failure};

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        // Some of the words are the service's.
        let message = show::safe(&error.to_string());
        match error {
            DeviceError::Store(error) => error.into(),
            DeviceError::Call(error) => of_call(&error),
            DeviceError::Address(_) => Self::new(Exit::Usage, message),
            DeviceError::NoServer => {
                Self::new(Exit::Usage, message).help("give a server with --server")
            }
            DeviceError::NotRegistered => {
                Self::new(Exit::Unauthenticated, message).help("rossby register comes first")
            }
            DeviceError::NotAuthorised => Self::new(Exit::Unauthenticated, message)
                .help("finish with rossby authorize CODE; rossby register sends another code"),
            DeviceError::NotLinked => Self::new(Exit::Unauthenticated, message)
                .help("rossby devices link shows its code and goes on"),
            DeviceError::NoSuchDevice => Self::new(Exit::NotFound, message),
            DeviceError::ResetWaits(_) => Self::new(Exit::Unavailable, message)
                .help("rossby register --reset sends another code then, for rossby authorize"),
            DeviceError::NotContested => Self::new(Exit::Refused, message),
            DeviceError::NoSuchIdentifier => Self::new(Exit::NotFound, message)
                .help("rossby identifiers list shows those that it has"),
            DeviceError::NoRecoveryKey => Self::new(Exit::NotFound, message).help(
                "it stays on the device that registered the box, until rossby recovery forget takes it away; who wrote \
                 it down can use it anywhere",
            ),
            DeviceError::NotTheRecoveryKey => Self::new(Exit::Refused, message),
            DeviceError::LinkedAlready
            | DeviceError::LinkRefused(_)
            | DeviceError::NotForOthers => Self::new(Exit::Refused, message),
            DeviceError::Joining(_) => Self::new(Exit::Failure, message)
                .help("the service does not say the truth; nothing was taken from it"),
            DeviceError::AlreadyRegistered => Self::new(Exit::Refused, message)
                .help("another person's device needs a --home of its own"),
            DeviceError::NoUser => Self::new(Exit::NotFound, message)
                .help("they may not be registered, not wish to be found, or have blocked you"),
            DeviceError::IdentityChanged { .. } => Self::new(Exit::IdentityChanged, message).help(
                "somebody may be posing as them, and nothing is taken from it. Ask them by other means; who began \
                 anew has a new box, which rossby contacts add finds",
            ),
            DeviceError::IdentifierMoved { .. } => Self::new(Exit::IdentityChanged, message).help(
                "they may have begun anew, or somebody may have taken over their number. Ask them \
                 by other means, then add them with --accept-moved",
            ),
            DeviceError::NotConfirmed { box_id, what } => {
                let what_to_do = show::what_to_do(&what, &box_id);
                Self::new(Exit::IdentityChanged, message)
                    .help(format!("somebody may be posing as them. {what_to_do}"))
            }
            DeviceError::NotASafetyNumber => Self::new(Exit::Usage, message),
            DeviceError::SafetyNumberDiffers(_) => Self::new(Exit::IdentityChanged, message).help(
                "if it was read off the right device without a slip, somebody stands between the two of you: \
                 send nothing that matters",
            ),
            DeviceError::NoMessage => Self::new(Exit::NotFound, message)
                .help("rossby inbox --all shows all messages with their numbers"),
            DeviceError::NotTheAuthor | DeviceError::NotAContact | DeviceError::Unfit(_) => {
                Self::new(Exit::Refused, message)
            }
            DeviceError::Group(error) => of_group(error, message),
            DeviceError::Seal(_) => Self::new(Exit::Refused, message),
            DeviceError::Damaged(_) => Self::new(Exit::Storage, message),
            DeviceError::Untrue(_)
            | DeviceError::Chain(_)
            | DeviceError::Token(_)
            | DeviceError::Identity(_) => Self::new(Exit::Failure, message),
        }
    }
}

fn of_group(error: GroupError, message: String) -> Failure {
    match error {
        GroupError::Name => Failure::new(Exit::Usage, message),
        GroupError::Unknown => Failure::new(Exit::NotFound, message)
            .help("rossby groups list shows those that there are"),
        GroupError::NotYours(_) => Failure::new(Exit::Refused, message).help(
            "those can do it who added them, or added whoever did, up to who made the group; who left a group comes \
             back if the same people add them",
        ),
        _ => Failure::new(Exit::Refused, message),
    }
}

impl From<LinkCodeError> for Failure {
    fn from(error: LinkCodeError) -> Self {
        let exit = match error {
            LinkCodeError::Digits => Exit::Failure,
            _ => Exit::Usage,
        };
        Self::new(exit, error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Missing(_) => {
                Self::new(Exit::Unauthenticated, message).help("make one with rossby register")
            }
            StoreError::WrongPassphrase => Self::new(Exit::Unauthenticated, message),
            StoreError::EmptyPassphrase => Self::new(Exit::Usage, message),
            StoreError::InUse(_) => {
                Self::new(Exit::Storage, message).help("wait until the other command has ended")
            }
            _ => Self::new(Exit::Storage, message),
        }
    }
}

/// What it means for a person that a call did not succeed.
pub fn of_call(error: &CallError) -> Failure {
    let message = show::safe(&error.to_string());
    match error {
        CallError::Unavailable(_) => Failure::new(Exit::Unavailable, message),
        CallError::NotTheService(_) => Failure::new(Exit::Config, message).help(
            "nothing was sent. Check the addresses and the authority: rossby register --server https://HOST:PORT \
             --ca FILE sets them anew, also for a device that is registered",
        ),
        CallError::OutcomeUnknown(_) => {
            Failure::new(Exit::OutcomeUnknown, message).help("trying the same again is safe")
        }
        CallError::Refused(refusal) => of_refusal(refusal),
        CallError::BadReply(_) | CallError::Sign | CallError::Random(_) => {
            Failure::new(Exit::Failure, message)
        }
    }
}

/// What the service's "no" means for the person.
pub fn of_refusal(refusal: &Refusal) -> Failure {
    let message = show::safe(&format!("{} ({})", refusal.message, refusal.code));
    let exit = match refusal.code.as_str() {
        "UNAUTHENTICATED" => Exit::Unauthenticated,
        "NO_USER" | "UNKNOWN_RECIPIENT" => Exit::NotFound,
        "OUTCOME_UNKNOWN" => Exit::OutcomeUnknown,
        _ if refusal.is_about_the_service() => Exit::Unavailable,
        _ => Exit::Refused,
    };
    let failure = Failure::new(exit, message);
    let seconds = refusal.retry_after.map(|wait| wait.as_secs_f64().ceil());
    match (refusal.code.as_str(), seconds) {
        ("WRONG_CODE", _) => match refusal.figures.get("attempts_left") {
            Some(left) => failure.help(format!("attempts left: {}", show::safe(left))),
            None => failure,
        },
        ("DEVICE_REVOKED", _) => failure.help(
            "another device of the box has removed it, or the recovery key. What it has is still here; to use the \
             box again, link a new device in another --home",
        ),
        ("IDENTIFIER_TAKEN", _) => failure.help(
            "rossby devices link joins that box, rossby recovery use takes it up with its recovery key; if all is lost, \
             rossby register --reset takes the phone or email from it after some days",
        ),
        ("RESET_VETOED", _) => failure.help(
            "somebody who holds a device of that box keeps it. With its recovery key the box can be taken up: rossby \
             recovery use",
        ),
        ("BOX_DELETED", _) => failure.help(
            "its owner deleted it, on another device or from this one. What this device has is still here: rossby \
             account delete erases it",
        ),
        ("NOT_RECOVERABLE", _) => failure.help(
            "check the words, and the phone, email or box id: nobody but who holds its recovery key is told that a \
             box is there",
        ),
        ("NOT_LINKED", _) => failure.help("rossby devices approve, on a device of the box, links it"),
        ("UNAUTHENTICATED", _) => {
            failure.help(
                "the service does not know this device, or no longer; rossby register sends a code to be let \
                 in again, and a device that was linked asks by rossby devices link",
            )
        }
        (_, Some(seconds)) if refusal.retry == Retry::Same => {
            failure.help(format!("try again in {seconds} s"))
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_services_words_can_not_steer_the_terminal() {
        let refusal = Refusal {
            code: "CODE\u{1b}[1m".to_owned(),
            message: "no\u{1b}[2J".to_owned(),
            retry: Retry::No,
            retry_after: None,
            server_time: None,
            figures: BTreeMap::new(),
            key_record: None,
            next_counter: None,
        };
        let away = CallError::Unavailable(refusal.message.clone());
        let unknown = CallError::OutcomeUnknown(refusal.message.clone());
        let refused = CallError::Refused(Box::new(refusal));
        for error in [away, unknown, refused] {
            let shown = Failure::from(DeviceError::Call(error)).to_string();
            assert!(shown.contains("no\u{fffd}[2J"), "{shown:?}");
            assert!(!shown.contains('\u{1b}'), "{shown:?}");
        }
    }
}
