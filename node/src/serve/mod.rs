use crate::cli::ServeArgs;
use crate::exit::{Exit, Failure};

pub fn run(_: &ServeArgs) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failure, "not part of this build yet"))
}
