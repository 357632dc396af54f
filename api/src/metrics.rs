//! Figures for operators. Nothing here is labelled by box, device or identifier.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

use crate::call::RpcPath;
use crate::error::Code;
use crate::rates::Limit;

/// What calls are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    rpc: &'static str,
    code: &'static str,
}

/// A label for the method alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabel {
    rpc: &'static str,
}

/// What deliveries are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CourierLabels {
    courier: &'static str,
    outcome: &'static str,
}

/// What became of an attempt at handing over a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CourierOutcome {
    /// Handed over.
    Sent,
    /// Not now; it is tried again.
    Failed,
    /// Not now and not later: the address or the message was refused.
    Refused,
    /// The code in the outbox does not open.
    Unreadable,
}

impl CourierOutcome {
    /// The label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why something ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// What was done too often.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

/// What an operator did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActLabel {
    act: &'static str,
}

/// Where a method's usual calls are counted.
#[derive(Debug)]
struct Usual {
    answered: Counter,
    latency: Histogram,
}

/// The figures of the doors. Clones of the parts are shared with the registry.
#[derive(Debug)]
pub struct Metrics {
    calls: Family<CallLabels, Counter>,
    latency: Family<RpcLabel, Histogram>,
    /// Those of calls that were answered well, by method, found once.
    usual: [OnceLock<Usual>; RpcPath::ALL.len()],
    relayed: Family<RpcLabel, Counter>,
    envelopes_refused: Family<CallLabels, Counter>,
    nonces: Gauge<u64, AtomicU64>,
    courier: Family<CourierLabels, Counter>,
    subscriptions: Gauge,
    subscription_wakes: Counter,
    subscriptions_ended: Family<ReasonLabel, Counter>,
    limited: Family<LimitLabel, Counter>,
    spam_reports: Counter,
    suspensions: Family<ActLabel, Counter>,
}

impl Metrics {
    /// Makes the figures and registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        // 0.5 ms to 4 s.
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_5, 2.0, 14));
        Arc::new(Self {
            calls: figure(
                registry,
                "rossby_calls",
                "Calls answered here, by method and code (OK or an error code)",
                Family::default(),
            ),
            latency: figure(
                registry,
                "rossby_call_seconds",
                "Time from a call's arrival to its answer",
                Family::new_with_constructor(buckets),
            ),
            usual: Default::default(),
            relayed: figure(
                registry,
                "rossby_calls_relayed",
                "Calls that came here and were answered by the leader of the caller's group elsewhere",
                Family::default(),
            ),
            envelopes_refused: figure(
                registry,
                "rossby_envelopes_refused",
                "Envelopes of answered Sends that were refused, by code",
                Family::default(),
            ),
            nonces: figure(
                registry,
                "rossby_hawk_nonces",
                "Nonces that this node remembers",
                Gauge::default(),
            ),
            courier: figure(
                registry,
                "rossby_courier_deliveries",
                "Attempts at handing over a verification code, by courier and outcome",
                Family::default(),
            ),
            subscriptions: figure(
                registry,
                "rossby_subscriptions",
                "Subscriptions that this node serves now",
                Gauge::default(),
            ),
            subscription_wakes: figure(
                registry,
                "rossby_subscription_wakes",
                "Times that a change of its box woke a subscription",
                Counter::default(),
            ),
            subscriptions_ended: figure(
                registry,
                "rossby_subscriptions_ended",
                "Subscriptions that have ended, by reason",
                Family::default(),
            ),
            limited: figure(
                registry,
                "rossby_rate_limited",
                "Envelopes, lookups and codes that were refused because of a rate at the doors, by limit",
                Family::default(),
            ),
            spam_reports: figure(
                registry,
                "rossby_spam_reports",
                "Reports of unwanted mail that were counted: one for each two boxes",
                Counter::default(),
            ),
            suspensions: figure(
                registry,
                "rossby_suspensions",
                "Orders of operators by which boxes were suspended, or not any more",
                Family::default(),
            ),
        })
    }

    /// Something was done too often.
    pub fn limited(&self, limit: Limit) {
        let limit = limit.as_str();
        self.limited.get_or_create(&LimitLabel { limit }).inc();
    }

    /// A report of a box was counted.
    pub fn reported(&self) {
        self.spam_reports.inc();
    }

    /// A box was suspended, or lets send again.
    pub fn suspension_set(&self, suspended: bool) {
        let act = if suspended { "suspend" } else { "unsuspend" };
        self.suspensions.get_or_create(&ActLabel { act }).inc();
    }

    /// A subscription began.
    pub fn subscription_began(&self) {
        self.subscriptions.inc();
    }

    /// A change of its box woke a subscription.
    pub fn subscription_woke(&self) {
        self.subscription_wakes.inc();
    }

    /// A subscription has ended.
    pub fn subscription_ended(&self, reason: &'static str) {
        self.subscriptions.dec();
        self.subscriptions_ended
            .get_or_create(&ReasonLabel { reason })
            .inc();
    }

    /// A call was answered; `refusal` is its code if it was refused.
    pub fn answered(&self, path: RpcPath, refusal: Option<Code>, took: Duration) {
        let rpc = path.name();
        let usual = self.usual.get(path as usize).map(|usual| {
            usual.get_or_init(|| Usual {
                answered: self
                    .calls
                    .get_or_create_owned(&CallLabels { rpc, code: "OK" }),
                latency: self.latency.get_or_create_owned(&RpcLabel { rpc }),
            })
        });
        let Some(usual) = usual else { return };
        match refusal.map(Code::as_str) {
            None => usual.answered.inc(),
            Some(code) => self.calls.get_or_create(&CallLabels { rpc, code }).inc(),
        };
        usual.latency.observe(took.as_secs_f64());
    }

    /// A call was relayed to another node, which answered it.
    pub fn relayed(&self, path: RpcPath) {
        let rpc = path.name();
        self.relayed.get_or_create(&RpcLabel { rpc }).inc();
    }

    /// An envelope of a Send was refused.
    pub fn envelope_refused(&self, code: Code) {
        let labels = CallLabels {
            rpc: RpcPath::Send.name(),
            code: code.as_str(),
        };
        self.envelopes_refused.get_or_create(&labels).inc();
    }

    /// This many nonces are remembered.
    pub fn set_nonces(&self, count: u64) {
        self.nonces.set(count);
    }

    /// A courier was given a code.
    pub fn courier(&self, courier: &'static str, outcome: CourierOutcome) {
        let outcome = outcome.as_str();
        self.courier
            .get_or_create(&CourierLabels { courier, outcome })
            .inc();
    }
}

/// Registers a figure.
fn figure<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, figure: M) -> M {
    registry.register(name, help, figure.clone());
    figure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.answered(RpcPath::Send, None, Duration::from_millis(3));
        metrics.answered(
            RpcPath::Fetch,
            Some(Code::Unauthenticated),
            Duration::from_millis(3),
        );
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(
            text.contains(r#"rossby_calls_total{rpc="Send",code="OK"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"rossby_calls_total{rpc="Fetch",code="UNAUTHENTICATED"} 1"#));
        assert!(text.contains(r#"rossby_call_seconds_count{rpc="Send"} 1"#));
    }
}
