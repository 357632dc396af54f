//! The office's streams.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_proto::v1;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::caller::Caller;
use super::{Office, refused};
use crate::connection::{Exchange, Retry, WireError, WireStream};

/// After how long without mail a stream gives a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How a stream ends.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// In good order.
    Over,
    /// The connection breaks.
    Lost,
    /// Nothing comes any more, and nobody says so.
    Silent,
    /// The service ends it.
    Refused(&'static str, Retry),
}

/// The streams that are open.
#[derive(Debug, Default)]
pub struct Streams {
    opened: u64,
    newest: BTreeMap<DeviceAddress, u64>,
    /// What was sent to boxes without being stored.
    signals: Vec<(BoxId, v1::Signal)>,
    /// All streams up to this one have ended so.
    cut: Option<(u64, Cut)>,
}

impl Streams {
    /// How a stream has ended, if it has.
    fn ended(&self, number: u64, device: &DeviceAddress) -> Option<Cut> {
        if let Some((_, cut)) = self.cut.filter(|(upto, _)| number <= *upto) {
            return Some(cut);
        }
        let replaced = self
            .newest
            .get(device)
            .is_some_and(|newest| *newest > number);
        replaced.then_some(Cut::Refused("SUBSCRIPTION_REPLACED", Retry::No))
    }
}

/// A stream to one device.
#[derive(Debug)]
pub struct OfficeStream {
    office: Weak<Office>,
    changes: watch::Receiver<()>,
    caller: Caller,
    device: DeviceAddress,
    number: u64,
    after: u64,
    messages: u64,
    /// How many of the signals it has seen.
    signals: usize,
    sign_of_life_at: Instant,
}

impl Office {
    /// Gives a signal to the streams that are open.
    pub(super) fn notify(&self, caller: DeviceAddress, request: v1::NotifyRequest) -> Vec<u8> {
        let box_id = BoxId::from_bytes(request.recipient_box_id[..].try_into().unwrap()).unwrap();
        self.signal(
            box_id,
            v1::Signal {
                sender_box_id: Bytes::copy_from_slice(caller.box_id.as_bytes()),
                sender_device_id: Bytes::copy_from_slice(caller.device.as_bytes()),
                body: request.body,
            },
        );
        v1::NotifyResponse {}.encode_to_vec()
    }

    /// The same, whoever sent it, and when.
    pub fn signal(&self, to: BoxId, signal: v1::Signal) {
        self.state.lock().streams.signals.push((to, signal));
        self.changes.send_replace(());
    }

    /// All signals that were ever sent.
    pub fn signals(&self) -> Vec<v1::Signal> {
        let streams = &self.state.lock().streams;
        streams
            .signals
            .iter()
            .map(|(_, signal)| signal.clone())
            .collect()
    }

    /// Every stream that is open ends so.
    pub fn cut(&self, cut: Cut) {
        let streams = &mut self.state.lock().streams;
        streams.cut = Some((streams.opened, cut));
        self.changes.send_replace(());
    }

    /// How many streams were ever opened.
    pub fn streams_opened(&self) -> u64 {
        self.state.lock().streams.opened
    }

    pub(super) fn stream(&self, caller: Caller, exchange: &Exchange<'_>) -> OfficeStream {
        let request = v1::SubscribeRequest::decode(exchange.message.clone()).unwrap();
        let device = caller.address.unwrap();
        let streams = &mut self.state.lock().streams;
        streams.opened += 1;
        let number = streams.opened;
        let signals = streams.signals.len();
        streams.newest.insert(device, number);
        self.changes.send_replace(());
        OfficeStream {
            office: Weak::clone(&self.me),
            changes: self.changes.subscribe(),
            caller,
            device,
            number,
            after: request.after,
            messages: 0,
            signals,
            sign_of_life_at: Instant::now(),
        }
    }
}

impl OfficeStream {
    fn page(&mut self) -> Option<Bytes> {
        let request = v1::FetchRequest {
            after: self.after,
            max_envelopes: 0,
        };
        let office = self.office.upgrade().unwrap();
        let page = Bytes::from(office.fetch(self.device, &request));
        let mut page = v1::FetchResponse::decode(page).unwrap();
        {
            let streams = &office.state.lock().streams;
            let new = streams.signals.iter().skip(self.signals);
            let own = new.filter(|(to, _)| *to == self.device.box_id);
            page.signals = own.map(|(_, signal)| signal.clone()).collect();
            self.signals = streams.signals.len();
        }
        let is_empty = page.envelopes.is_empty() && page.signals.is_empty();
        if is_empty && Instant::now() < self.sign_of_life_at {
            return None;
        }
        self.after = page
            .envelopes
            .last()
            .map_or(self.after, |last| last.sequence);
        self.sign_of_life_at = Instant::now() + KEEPALIVE;
        let page = Bytes::from(page.encode_to_vec());
        let path = "/rossby.v1.Mailbox/Subscribe";
        let vouched = self.caller.vouch(path, &page, Some(self.messages));
        self.messages += 1;
        let message = v1::SubscribeResponse {
            page,
            server_authorization: vouched.unwrap(),
        };
        Some(message.encode_to_vec().into())
    }
}

#[async_trait]
impl WireStream for OfficeStream {
    async fn next(&mut self) -> Result<Option<Bytes>, WireError> {
        yield_now().await;
        loop {
            self.changes.mark_unchanged();
            let office = self.office.upgrade().unwrap();
            let ended = office.state.lock().streams.ended(self.number, &self.device);
            match ended {
                None => {}
                Some(Cut::Over) => return Ok(None),
                Some(Cut::Lost) => return Err(WireError::Lost("cut".to_owned())),
                Some(Cut::Silent) => std::future::pending().await,
                Some(Cut::Refused(code, retry)) => return Err(refused(code, retry)),
            }
            drop(office);
            if let Some(page) = self.page() {
                return Ok(Some(page));
            }
            tokio::select! {
                _ = self.changes.changed() => {}
                () = sleep_until(self.sign_of_life_at) => {}
            }
        }
    }
}
