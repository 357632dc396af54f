//! Listening: messages as they come.
//!
//! ```text
//!   open (another server after each failure) ──► page ──► verify, store ──► Heard::Received
//!        ▲                                         ▲                            │ shown
//!        └──── broken, over, silent ◄──────────────┴──── acknowledge ◄──────────┘ next call
//! ```
//!
//! A stream always begins after the cursor that the service knows. What was stored and not yet
//! acknowledged comes again and is recognised by its envelope id, so nothing rests on what this
//! device believes of the queue.
//!
//! What this device has to send and the service would not take as too much at a time goes out meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use rossby_domain::ids::Sequence;
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use tokio::time::{Instant, sleep_until};

use super::receiving::{QueueStatus, Received, status_of};
use super::{Device, DeviceError, Message, Typing};
use crate::connection::{CallError, OpenStream, Refusal, Retry, Signer, StreamEnd};
use crate::store::MarksRow;

/// How often in a row another listener of this device may take this one's place before it gives up:
/// once may be an earlier try of its own that came late.
const MAX_REPLACED: u32 = 3;
/// A stream that lasted this long worked: what was wrong before it has passed.
const SETTLED: Duration = Duration::from_secs(60);
/// However long the service asks to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Signals that are kept until it is their turn.
const MAX_SIGNALS: usize = 16;
/// After how long receipts are sent again that could not be sent.
const RECEIPTS_AGAIN: Duration = Duration::from_secs(30);
/// Acknowledged at the latest after so many pages, however fast they come.
const MAX_UNACKNOWLEDGED_PAGES: u32 = 4;

/// What a listener hears.
#[derive(Debug)]
pub enum Heard {
    /// The service is there, and says how the queue stands. Everything that waits comes next.
    Connected(QueueStatus),
    /// Messages that were not here before, in the order of the box. They are stored.
    Received(Vec<Message>),
    /// One of the box's phones or emails goes to another box at this time, unless somebody says no
    /// ([`Device::keep_identifier`]).
    Contested(Timestamp),
    /// A contact types, or has stopped. It is not stored, and comes once or not at all.
    Typing(Typing),
    /// The service is away. The listener tries again by itself.
    Disconnected {
        /// What happened.
        error: DeviceError,
        /// When it is tried again.
        retry_in: Duration,
    },
}

/// Hears messages as they come. Holds nothing that is not stored.
#[derive(Debug)]
pub struct Listener<'a> {
    device: &'a Device,
    signer: Signer,
    stream: Option<OpenStream>,
    /// When the stream was opened.
    opened_at: Instant,
    /// Whether the device has not asked yet, since then, what key the service shows for it.
    is_new: bool,
    /// The page that came last, until it is stored.
    page: Option<v1::FetchResponse>,
    /// Signals that came with pages.
    signals: VecDeque<v1::Signal>,
    /// The last sequence of the stream that is stored.
    after: Sequence,
    /// What is stored and not yet acknowledged.
    unacknowledged: Option<Sequence>,
    unacknowledged_pages: u32,
    /// Whether the next page is on its way already.
    more: bool,
    /// What went wrong with the end of a page whose beginning was handed out.
    failed: Option<DeviceError>,
    /// What was heard last of identifiers that are to go.
    reset_at: Option<Timestamp>,
    /// Tries since a stream last worked.
    tries: u32,
    /// How often this one was replaced since a stream last lasted. That a stream brings mail says
    /// nothing: two listeners that drive each other out hear some all the while.
    replaced: u32,
    not_before: Instant,
    /// When receipts are sent again that could not be sent.
    receipts_after: Instant,
}

impl Device {
    /// Listens for messages. Nothing is sent before [`Listener::next`].
    ///
    /// # Errors
    /// [`DeviceError::NotRegistered`], [`DeviceError::NotAuthorised`], [`DeviceError::Store`].
    pub fn listen(&self) -> Result<Listener<'_>, DeviceError> {
        let marks = self.store.get::<MarksRow>(&())?.unwrap_or_default();
        Ok(Listener {
            device: self,
            signer: self.signer()?,
            stream: None,
            opened_at: Instant::now(),
            is_new: false,
            page: None,
            signals: VecDeque::new(),
            after: Sequence(0),
            // Its acknowledgement may have been lost.
            unacknowledged: (marks.cursor > marks.acknowledged).then_some(marks.cursor),
            unacknowledged_pages: 0,
            more: false,
            failed: None,
            reset_at: None,
            tries: 0,
            replaced: 0,
            not_before: Instant::now(),
            receipts_after: Instant::now(),
        })
    }
}

impl Listener<'_> {
    /// The next thing heard; waits for it as long as it takes. What it handed out last is
    /// acknowledged first: call it again once that is dealt with.
    ///
    /// Nothing is lost if it is dropped before it returns.
    ///
    /// # Errors
    /// [`DeviceError`] where trying again would not help.
    pub async fn next(&mut self) -> Result<Heard, DeviceError> {
        loop {
            if let Some(error) = self.failed.take() {
                return self.disconnected(error, Duration::ZERO);
            }
            if let Some(heard) = self.store_page().await? {
                return Ok(heard);
            }
            while let Some(signal) = self.signals.pop_front() {
                if let Some(typing) = self.device.hear_signal(&self.signer, &signal)? {
                    return Ok(Heard::Typing(typing));
                }
            }
            if self.stream.is_none() {
                // What is not acknowledged yet comes again and is recognised.
                if let Some(heard) = self.connect().await? {
                    return Ok(heard);
                }
                continue;
            }
            if self.is_new {
                // On an open stream, so that it costs nobody time who is away. The next one makes up
                // for an error.
                let _ = self.device.keep_key_published().await;
                let _ = self.device.greet().await;
                self.is_new = false;
            }
            if !self.more {
                // A stream may last for days.
                let _ = self.device.rotate_if_due().await;
                let _ = self.device.greet_strangers().await;
                self.device.settle_policy_soon().await;
            }
            if !self.more || self.unacknowledged_pages >= MAX_UNACKNOWLEDGED_PAGES {
                self.acknowledge().await;
            }
            match self.await_page().await {
                None => {}
                Some(Ok(mut page)) => {
                    let room = MAX_SIGNALS.saturating_sub(self.signals.len());
                    let signals = std::mem::take(&mut page.signals);
                    self.signals.extend(signals.into_iter().take(room));
                    self.page = Some(page);
                }
                Some(Err(end)) => {
                    if let Some(heard) = self.ended(end)? {
                        return Ok(heard);
                    }
                }
            }
        }
    }

    /// The next page of the stream, or how it ended; `None` if there is no stream, or something else was done meanwhile.
    async fn await_page(&mut self) -> Option<Result<v1::FetchResponse, StreamEnd>> {
        let device = self.device;
        let stream = self.stream.as_mut()?;
        let rated_until = device.rated_until();
        if self.more || !device.owes_receipts() || Instant::now() < self.receipts_after {
            return tokio::select! {
                biased;
                page = stream.next() => Some(page),
                // What was too much at a time goes out when its time has come.
                () = reached(rated_until) => {
                    let _ = device.resend_rated().await;
                    None
                }
            };
        }
        // Receipts go out while nothing comes, so that they hold nothing up.
        tokio::select! {
            biased;
            page = stream.next() => Some(page),
            () = reached(rated_until) => {
                let _ = device.resend_rated().await;
                None
            }
            sent = device.send_receipts() => {
                if !matches!(sent, Ok(0)) {
                    self.receipts_after = Instant::now() + RECEIPTS_AGAIN;
                }
                None
            }
        }
    }

    /// Acknowledges what was handed out, if the service is there now. Otherwise that is done by
    /// whoever listens or receives next.
    pub async fn acknowledge(&mut self) {
        let Some(upto) = self.unacknowledged else {
            return;
        };
        match self.device.acknowledge(&self.signer, upto).await {
            // Later: with the next page or sign of life.
            Err(error) if error.may_pass() => {}
            // Done; or refused, and then what it was about comes again and is recognised.
            Ok(()) | Err(_) => {
                self.unacknowledged = None;
                self.unacknowledged_pages = 0;
            }
        }
    }

    /// Stores the page that has come, if any.
    async fn store_page(&mut self) -> Result<Option<Heard>, DeviceError> {
        let Some(page) = &self.page else {
            return Ok(None);
        };
        let reset_at = status_of(page.status).reset_at;
        if std::mem::replace(&mut self.reset_at, reset_at) != reset_at
            && let Some(at) = reset_at
        {
            return Ok(Some(Heard::Contested(at)));
        }
        self.more = page.more;
        if page.envelopes.is_empty() {
            self.page = None;
            return Ok(None);
        }
        let mut received = Received {
            messages: Vec::new(),
            status: status_of(page.status),
            interrupted: None,
        };
        self.device.note_ttl(&received.status)?;
        let _one_at_a_time = self.device.receiving.lock().await;
        // The page stays here until it is stored, so that being dropped meanwhile loses nothing.
        let envelopes = page.envelopes.clone();
        let stored = self
            .device
            .store_page(&self.signer, envelopes, self.after, &mut received)
            .await?;
        self.page = None;
        self.tries = 0;
        if stored > self.after {
            self.after = stored;
            self.unacknowledged = Some(stored);
            self.unacknowledged_pages += 1;
        }
        self.failed = received.interrupted;
        // What is left of it is done the next time.
        let _ = self.device.settle_groups().await;
        self.device.settle_profiles_soon().await;
        // What was known already needs no word.
        let heard = (!received.messages.is_empty()).then_some(received.messages);
        Ok(heard.map(Heard::Received))
    }

    /// Makes a try at opening a stream.
    async fn connect(&mut self) -> Result<Option<Heard>, DeviceError> {
        sleep_until(self.not_before).await;
        let request = v1::SubscribeRequest {
            after: 0,
            max_envelopes: 0,
        };
        let turn = usize::try_from(self.tries).unwrap_or_default();
        let connection = &self.device.connection;
        match connection.subscribe(&request, &self.signer, turn).await {
            Ok(mut stream) => {
                let first = stream.next().await;
                self.after = Sequence(0);
                self.stream = Some(stream);
                self.opened_at = Instant::now();
                self.is_new = true;
                match first {
                    Ok(page) => {
                        let status = status_of(page.status);
                        self.device.note_ttl(&status)?;
                        self.page = Some(page);
                        Ok(Some(Heard::Connected(status)))
                    }
                    Err(end) => self.ended(end),
                }
            }
            Err((error, wait)) => self.broken(error, wait),
        }
    }

    /// The stream has ended.
    fn ended(&mut self, end: StreamEnd) -> Result<Option<Heard>, DeviceError> {
        if let (StreamEnd::Broken(_), Some(stream)) = (&end, &self.stream) {
            self.device.connection.leave(stream);
        }
        self.stream = None;
        self.more = false;
        if self.opened_at.elapsed() >= SETTLED {
            (self.tries, self.replaced) = (0, 0);
        }
        match end {
            StreamEnd::Over => {
                self.not_before = Instant::now() + self.device.connection.pause_before(0)?;
                Ok(None)
            }
            StreamEnd::Broken(error) => self.broken(error, Duration::ZERO),
        }
    }

    fn broken(&mut self, error: CallError, wait: Duration) -> Result<Option<Heard>, DeviceError> {
        let refusal = error.refusal();
        let asked = refusal.and_then(|refusal| refusal.retry_after);
        let wait = wait.max(asked.unwrap_or_default());
        if refusal.is_some_and(Refusal::is_about_time) && self.tries == 0 {
            // Signed for another time: the next try will be right.
            self.pause(wait)?;
            return Ok(None);
        }
        self.replaced += u32::from(refusal.is_some_and(is_replaced));
        self.disconnected(error.into(), wait).map(Some)
    }

    fn disconnected(&mut self, error: DeviceError, wait: Duration) -> Result<Heard, DeviceError> {
        self.stream = None;
        self.page = None;
        self.more = false;
        let may_pass = match &error {
            DeviceError::Call(CallError::Refused(refusal)) if is_replaced(refusal) => {
                self.replaced < MAX_REPLACED
            }
            DeviceError::Call(CallError::Refused(refusal)) => {
                refusal.retry == Retry::Same || refusal.is_about_time()
            }
            other => other.may_pass(),
        };
        if !may_pass {
            return Err(error);
        }
        let retry_in = self.pause(wait)?;
        Ok(Heard::Disconnected { error, retry_in })
    }

    /// When the next try may be made: after a pause that grows.
    fn pause(&mut self, at_least: Duration) -> Result<Duration, DeviceError> {
        let pause = self.device.connection.pause_before(self.tries)?;
        self.tries = self.tries.saturating_add(1);
        let pause = pause.max(at_least.min(LONGEST_WAIT));
        self.not_before = Instant::now() + pause;
        Ok(pause)
    }
}

/// Waits for a time; for ever, if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn is_replaced(refusal: &Refusal) -> bool {
    refusal.code == "SUBSCRIPTION_REPLACED"
}
