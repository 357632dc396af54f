use crate::cli::CertCommand;
use crate::exit::{Exit, Failure};

pub fn run(_: &CertCommand) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failure, "not part of this build yet"))
}
