//! Exit codes. Scripts rely on them: a code never changes its meaning, and new ones come at the end.

use std::fmt;
use std::process::ExitCode;

/// How a run of `rossby` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 1: something failed that no other code names.
    Failure,
    /// 2: the command line is wrong. (clap's own code.)
    Usage,
    /// 3: the configuration, or a file that it names, is wrong.
    Config,
    /// 4: the service can't be reached or has no quorum now. Nothing happened; try again later.
    Unavailable,
    /// 5: the service said no, and will say no again to the same request.
    Refused,
    /// 6: it is not known whether the request took effect. Trying the same again is safe.
    OutcomeUnknown,
    /// 7: the caller is not known to the service, or the passphrase is wrong.
    Unauthenticated,
    /// 8: there is no such person, box or contact.
    NotFound,
    /// 9: a contact's identity is not the one known before. Nothing was sent.
    IdentityChanged,
    /// 10: what is on this disk is damaged, in use, or belongs to somebody else.
    Storage,
    /// 11: done, but for a part that is named, with what to do about it.
    InPart,
}

impl Exit {
    /// Every code with what it means, for `--help`.
    pub const HELP: &str = "\
Exit codes:
   0  done
   1  failed for a reason that no other code names
   2  wrong command line
   3  wrong configuration
   4  not reachable, or no quorum: nothing happened, try again
   5  refused: the same request will be refused again
   6  outcome not known: trying the same again is safe
   7  not authenticated, or wrong passphrase
   8  no such person, box or contact
   9  a contact's identity changed: nothing was sent
  10  data on this disk is damaged, in use, or of another cluster
  11  done but for a part, which is named: do for that what is said";

    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::Unavailable => 4,
            Self::Refused => 5,
            Self::OutcomeUnknown => 6,
            Self::Unauthenticated => 7,
            Self::NotFound => 8,
            Self::IdentityChanged => 9,
            Self::Storage => 10,
            Self::InPart => 11,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command failed, in words for the person who typed it, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The code to exit with.
    pub exit: Exit,
    /// What went wrong.
    pub message: String,
    /// What to do about it, where that is known.
    pub help: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            help: None,
        }
    }

    /// The failure for programs: `{"error", "exit", "help"}`, the last `null` if there is no advice.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": self.message,
            "exit": self.exit.code(),
            "help": self.help,
        })
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code_once() {
        let all = [
            Exit::Failure,
            Exit::Usage,
            Exit::Config,
            Exit::Unavailable,
            Exit::Refused,
            Exit::OutcomeUnknown,
            Exit::Unauthenticated,
            Exit::NotFound,
            Exit::IdentityChanged,
            Exit::Storage,
        ];
        for exit in all {
            let start = format!("{:>4}  ", exit.code());
            let named = Exit::HELP
                .lines()
                .filter(|line| line.starts_with(&start))
                .count();
            assert_eq!(named, 1, "{exit:?} is in the help {named} times");
        }
    }

    #[test]
    fn a_failure_reads_as_what_and_then_what_to_do() {
        let failure = Failure::new(Exit::Config, "no such file").help("make one");
        assert_eq!(failure.to_string(), "no such file\n  help: make one");
        let json = serde_json::json!({"error": "no such file", "exit": 3, "help": "make one"});
        assert_eq!(failure.to_json(), json);
    }
}
