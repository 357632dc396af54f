//! Many worlds, each in a process of its own: whatever one leaves behind can not reach another.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;

use crate::Exit;
use crate::cli::Cli;
use crate::one::{complain, say};

/// How the worlds ended.
#[derive(Debug, Default)]
struct Ended {
    held: u64,
    invalid: u64,
    broken: Vec<u64>,
    not_run: Vec<u64>,
}

/// Runs the worlds of these seeds and sums up.
pub fn run(cli: &Cli, seeds: Range<u64>) -> Exit {
    let processors = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let jobs = cli.jobs.unwrap_or(processors).get();
    let left = Mutex::new(seeds.clone());
    let ended = Mutex::new(Ended::default());
    let work = || {
        // A thread that panicked has ended this process's use: nothing here panics.
        while let Some(seed) = left.lock().ok().and_then(|mut left| left.next()) {
            let output = world(cli, seed);
            if let Ok(mut ended) = ended.lock() {
                ended.note(seed, output);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    match ended.into_inner() {
        Ok(ended) => ended.sum_up(cli, &seeds),
        Err(_) => Exit::NoWorld,
    }
}

fn world(cli: &Cli, seed: u64) -> std::io::Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--seed", &seed.to_string()]);
    command.args(["--steps", &cli.steps.to_string()]);
    if let Some(shape) = cli.shape {
        command.args(["--shape", shape.name()]);
    }
    if cli.no_faults {
        command.arg("--no-faults");
    }
    if let Some(bug) = cli.plant {
        command.args(["--plant", bug.name()]);
    }
    command.stdin(Stdio::null()).output()
}

impl Ended {
    fn note(&mut self, seed: u64, output: std::io::Result<Output>) {
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                complain(&format!("seed {seed}: no process: {error}"));
                return self.not_run.push(seed);
            }
        };
        let told = String::from_utf8_lossy(&output.stdout);
        say(&told);
        match output.status.code() {
            Some(0) if told.starts_with("invalid") => self.invalid += 1,
            Some(0) => self.held += 1,
            Some(1) => self.broken.push(seed),
            _ => {
                complain(&format!("seed {seed}: {}", output.status));
                complain(&String::from_utf8_lossy(&output.stderr));
                self.not_run.push(seed);
            }
        }
    }

    fn sum_up(mut self, cli: &Cli, seeds: &Range<u64>) -> Exit {
        self.broken.sort_unstable();
        self.not_run.sort_unstable();
        let Self {
            held,
            invalid,
            broken,
            not_run,
        } = &self;
        say(&format!(
            "seeds {}..{} with {} steps: {held} held, {invalid} invalid (no change of leader, or no \
             checkpoint shipped), {} broken, {} not run\n",
            seeds.start,
            seeds.end,
            cli.steps,
            broken.len(),
            not_run.len()
        ));
        for seed in broken {
            say(&format!("broken: {}\n", crate::one::again(cli, *seed)));
        }
        match (broken.is_empty(), not_run.is_empty(), *held) {
            (false, ..) => Exit::Broken,
            (true, false, _) => Exit::NoWorld,
            (true, true, 0) => Exit::ShowsNothing,
            (true, true, _) => Exit::Held,
        }
    }
}
