//! One world, in this process.

use std::fs::File;
use std::io::{self, Write as _};

use rossby_domain::planted::Bug;
use rossby_simulation::world::{self, Plan, Report};

use crate::Exit;
use crate::cli::{Cli, STEPS};

/// Runs the world of a seed and reports.
pub fn run(cli: &Cli, seed: u64) -> Exit {
    if let Some(bug) = cli.plant
        && !plant(bug)
    {
        complain("this build has no planted bugs: build with --features planted-bugs");
        return Exit::Usage;
    }
    match begin(cli, seed) {
        Ok(report) => tell(cli, seed, &report),
        Err(error) => {
            complain(&format!("seed {seed}: {error}"));
            Exit::NoWorld
        }
    }
}

#[cfg(feature = "planted-bugs")]
fn plant(bug: Bug) -> bool {
    rossby_domain::planted::plant(bug).is_ok()
}

#[cfg(not(feature = "planted-bugs"))]
fn plant(_: Bug) -> bool {
    false
}

fn begin(cli: &Cli, seed: u64) -> Result<Report, Box<dyn std::error::Error>> {
    // Gone with this value: devices keep their files only as long as their world lasts.
    let homes = tempfile::tempdir()?;
    let trace = cli.trace.as_ref().map(File::create).transpose()?;
    Ok(world::run(Plan {
        seed,
        steps: cli.steps,
        faults: !cli.no_faults,
        shape: cli.shape,
        trace,
        homes: homes.path().to_owned(),
    })?)
}

/// The command that shows a world again.
pub fn again(cli: &Cli, seed: u64) -> String {
    let features = match cli.plant {
        Some(_) => " --features planted-bugs",
        None => "",
    };
    let mut command = format!("cargo run -p rossby-simulation{features} -- --seed {seed}");
    if cli.steps != STEPS {
        command += &format!(" --steps {}", cli.steps);
    }
    if let Some(shape) = cli.shape {
        command += &format!(" --shape {}", shape.name());
    }
    if cli.no_faults {
        command += " --no-faults";
    }
    if let Some(bug) = cli.plant {
        command += &format!(" --plant {}", bug.name());
    }
    command
}

fn tell(cli: &Cli, seed: u64, report: &Report) -> Exit {
    let mut told = String::new();
    if let Some(violation) = &report.violation {
        told += "the last events (time, who, what):\n";
        told += &report.timeline;
        told += &format!("\nBROKEN  {violation}\n");
        told += &format!("again   {}\n", again(cli, seed));
    }
    told += &summary(seed, report);
    say(&told);
    match report.violation {
        Some(_) => Exit::Broken,
        None => Exit::Held,
    }
}

/// One line. `many` reads its first words.
fn summary(seed: u64, report: &Report) -> String {
    let figures = &report.figures;
    let verdict = match (&report.violation, figures.is_valid()) {
        (Some(_), _) => "broken ",
        (None, true) => "held   ",
        (None, false) => "invalid",
    };
    let digest: String = report
        .digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{verdict} seed {seed} ({}): {:.0?} of its time, {} observations, {} reigns, {} crashes, {} other \
         faults, {} disks lost ({} bits flipped, {} starts refused), {} steps planned, {} tries to join ({} let in), {} replicas removed, \
         {} checkpoints ({} shipped), calls {} answered, {} unknown; trace {digest}\n",
        report.shape.name(),
        report.lasted,
        figures.observations,
        figures.leaders,
        figures.crashes,
        figures.faults,
        figures.disks,
        figures.bits,
        figures.refused,
        figures.steps,
        figures.let_in + figures.turned_away,
        figures.let_in,
        figures.removed,
        figures.checkpoints,
        figures.shipped,
        figures.answered,
        figures.unknown,
    )
}

/// Writes to standard output. Nobody may be reading any more; that changes nothing.
pub fn say(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Writes a line to standard error.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "rossby-simulation: {text}");
}
