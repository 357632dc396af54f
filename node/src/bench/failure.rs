//! Why load could not be made, with the exit code for it.

use rossby_bench::BenchError;
use rossby_client::connection::CallError;

use crate::device::of_call;
use crate::exit::{Exit, Failure};

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let message = error.to_string();
        match error {
            BenchError::Call(error @ CallError::NotTheService(_)) => {
                of_call(&error).help("nothing was sent. Check --server and --ca")
            }
            BenchError::Call(error) => of_call(&error),
            BenchError::File { .. } => Self::new(Exit::Config, message),
            BenchError::NoCode { .. } => Self::new(Exit::Failure, message).help(
                "give --codes the file of --courier-file, of a cluster whose nodes run with --courier file",
            ),
            BenchError::TooLarge { .. } => Self::new(Exit::Usage, message).help("give fewer --bytes"),
            BenchError::Echo { .. } => Self::new(Exit::Failure, message)
                .help("fewer --clients, or no measure of this machine (--no-floor)"),
            BenchError::Device(error) => error.into(),
            BenchError::Identity(_)
            | BenchError::Name(_)
            | BenchError::Chain(_)
            | BenchError::Registering(_)
            | BenchError::Identifier(_)
            | BenchError::BrokeOff => Self::new(Exit::Failure, message),
        }
    }
}
