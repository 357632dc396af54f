//! The office's streams.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use rossby_domain::ids::DeviceAddress;
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
    sign_of_life_at: Instant,
}

impl Office {
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
        let page = Bytes::from(self.office.upgrade().unwrap().fetch(self.device, &request));
        let envelopes = v1::FetchResponse::decode(page.clone()).unwrap().envelopes;
        if envelopes.is_empty() && Instant::now() < self.sign_of_life_at {
            return None;
        }
        self.after = envelopes.last().map_or(self.after, |last| last.sequence);
        self.sign_of_life_at = Instant::now() + KEEPALIVE;
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
