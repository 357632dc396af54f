use crate::cli::ClusterCommand;
use crate::exit::{Exit, Failure};

pub fn run(_: &ClusterCommand) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failure, "not part of this build yet"))
}
