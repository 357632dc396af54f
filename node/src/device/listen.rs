//! `rossby listen`.

use std::time::Duration;

use rossby_client::Device;
use rossby_client::device::{Heard, Listener, Message, Typing};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::accept;
use super::args::ListenArgs;
use super::devices::{note_news, told};
use super::open::open;
use super::queue;
use super::saving::save_files;
use super::send::resend_quietly;
use super::show::{self, Around};
use crate::exit::{Exit, Failure};
use crate::output;

/// How long a last acknowledgement may keep a person waiting. The next command makes up for it.
const FAREWELL: Duration = Duration::from_secs(2);

/// Shows messages as they come.
pub async fn run(args: &ListenArgs) -> Result<(), Failure> {
    // First: from here on Ctrl-C is an end in good order.
    let mut stop = Stop::new(args.for_seconds)?;
    let device = open(&args.device)?;
    resend_quietly(&device).await?;
    let mut screen = Screen::new(args, &device);
    let mut listener = device.listen()?;
    screen.show(device.unshown()?)?;
    while !screen.is_done() {
        let heard = tokio::select! {
            biased;
            () = stop.asked() => break,
            heard = listener.next() => heard,
        };
        let heard = match heard {
            Ok(heard) => heard,
            Err(error) => return Err(told(&device, error).await),
        };
        queue::note_changed_ttl(&device)?;
        accept::note_otherwise(&device)?;
        note_news(&device)?;
        match heard {
            Heard::Received(messages) => screen.show(messages)?,
            Heard::Typing(typing) => screen.typing(&typing)?,
            Heard::Connected(_) => screen.connected(),
            Heard::Contested(at) => output::note(show::contested(at)),
            Heard::Disconnected { error, retry_in } => {
                screen.disconnected(&Failure::from(error), retry_in);
            }
        }
    }
    say_goodbye(&mut listener, &device).await;
    match screen.unsaved {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

async fn say_goodbye(listener: &mut Listener<'_>, device: &Device) {
    // An error is none: what is not acknowledged now, or told, will be by the next command.
    let _ = timeout(FAREWELL, listener.acknowledge()).await;
    let _ = timeout(FAREWELL, device.send_receipts()).await;
}

/// What ends a listener in good order.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    at: Option<Instant>,
}

impl Stop {
    fn new(for_seconds: Option<u64>) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(Exit::Failure, format!("signals: {error}")))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            at: for_seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        })
    }

    async fn asked(&mut self) {
        let time_is_over = async {
            match self.at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = time_is_over => {}
        }
    }
}

/// What the person sees.
struct Screen<'a> {
    args: &'a ListenArgs,
    device: &'a Device,
    left: Option<u64>,
    /// Nobody reads what is shown.
    unread: bool,
    /// Whether the person was told that the service is away, and why.
    away: Option<String>,
    greeted: bool,
    unsaved: Option<Failure>,
}

impl<'a> Screen<'a> {
    fn new(args: &'a ListenArgs, device: &'a Device) -> Self {
        Self {
            args,
            device,
            left: args.count,
            unread: false,
            away: None,
            greeted: false,
            unsaved: None,
        }
    }

    fn is_done(&self) -> bool {
        self.unread || self.left == Some(0)
    }

    fn connected(&mut self) {
        if self.away.take().is_some() {
            output::note("listening again");
        } else if !self.greeted {
            output::note("listening; Ctrl-C ends it");
        }
        self.greeted = true;
    }

    /// Somebody types, or has stopped. It counts for no message.
    fn typing(&mut self, typing: &Typing) -> Result<(), Failure> {
        let around = Around::of(self.device, &[])?;
        if self.args.device.json {
            self.unread |= !output::try_line(show::typing(typing, &around).to_string())?;
        } else {
            let does = if typing.is_typing {
                "is typing"
            } else {
                "has stopped typing"
            };
            output::note(format!("{} {does}", around.label_of(&typing.by)));
        }
        Ok(())
    }

    fn disconnected(&mut self, why: &Failure, retry_in: Duration) {
        // Once for each reason: it is tried again and again.
        if self.away.as_ref() != Some(&why.message) {
            let seconds = retry_in.as_secs_f64();
            output::note(format!(
                "the service is away ({}); trying again, first in {seconds:.1} s",
                why.message
            ));
            self.away = Some(why.message.clone());
        }
    }

    /// Shows messages, as many as are asked for, and marks them as shown.
    fn show(&mut self, mut messages: Vec<Message>) -> Result<(), Failure> {
        if let Some(left) = &mut self.left {
            messages.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left = left.saturating_sub(messages.len() as u64);
        }
        if messages.is_empty() {
            return Ok(());
        }
        let saved = match &self.args.save {
            Some(folder) => {
                let (saved, unsaved) =
                    save_files(folder, &messages, self.device.who_am_i()?.device);
                if let Some(failure) = &unsaved {
                    output::note(format!("rossby: {failure}"));
                }
                self.unsaved = self.unsaved.take().or(unsaved);
                saved
            }
            None => Default::default(),
        };
        let around = Around::of(self.device, &messages)?;
        for group in self.device.changed_groups()? {
            output::note(show::group_line(&group, &around));
        }
        for message in &messages {
            let file = saved.get(&message.order);
            let line = if self.args.device.json {
                show::message(message, &around, file).to_string()
            } else {
                show::message_line(message, &around, file)
            };
            if !output::try_line(line)? {
                self.unread = true;
                return Ok(());
            }
            if let Some(alarm) = show::alarm(message, &around) {
                output::note(alarm);
            }
            // The listener tells who wrote it, once nothing more comes.
            self.device.mark_read(std::slice::from_ref(message))?;
            // One by one, so that as little as possible comes twice after a kill.
            self.device.mark_shown(message.order.saturating_add(1))?;
        }
        Ok(())
    }
}
