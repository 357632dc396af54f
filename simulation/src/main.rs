//! `rossby-simulation`: runs worlds by their seeds.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
