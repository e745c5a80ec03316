//! The gateway's own metrics: `gateway_<noun>_{total,seconds}`. Labels are member, outcome, reason, kind; never a person,
//! a handle or a token (I6).

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};
use proto::{
    contract::recognition::Outcome,
    member::Member,
    refusal::{Reason, reason_name},
    time::Clock,
};

use crate::unsubstantiated::{Tally, Unsubstantiated};

/// What exchanges count.
#[derive(Clone, Debug)]
pub(crate) struct ExchangeMetrics {
    exchanges: Counter<u64>,
    refusals: Counter<u64>,
    home: Histogram<f64>,
    home_failures: Counter<u64>,
    unsubstantiated: Counter<u64>,
}

/// What the record counts.
#[derive(Clone, Debug)]
pub(crate) struct RecordMetrics {
    pub(crate) records: Counter<u64>,
    pub(crate) failures: Counter<u64>,
    pub(crate) commit_seconds: Histogram<f64>,
}

/// What delivery counts.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryMetrics {
    pub(crate) calls: Counter<u64>,
    pub(crate) records: Counter<u64>,
    pub(crate) waiting: Gauge<u64>,
    pub(crate) waiting_bytes: Gauge<u64>,
}

impl ExchangeMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        Self {
            exchanges: counter("gateway_exchanges", "Answers, by home member and outcome."),
            refusals: counter("gateway_refusals", "Refused exchanges, by reason."),
            home: meter
                .f64_histogram("gateway_home")
                .with_unit("s")
                .with_description("Lookups at home members.")
                .with_boundaries(vec![0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0])
                .build(),
            home_failures: counter("gateway_home_failures", "Lookups without a valid answer, by home member and kind."),
            unsubstantiated: counter(
                "gateway_unsubstantiated",
                "Answers on assignments that the policy does not admit, by home member and authority.",
            ),
        }
    }

    pub(crate) fn answered(&self, home: Member, outcome: Outcome) {
        self.exchanges.add(1, &[member(home), KeyValue::new("outcome", outcome_word(outcome))]);
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refusals.add(1, &[KeyValue::new("reason", reason_name(reason))]);
    }

    pub(crate) fn looked_up(&self, home: Member, took: Duration) {
        self.home.record(took.as_secs_f64(), &[member(home)]);
    }

    pub(crate) fn home_failed(&self, home: Member, kind: &'static str) {
        self.home_failures.add(1, &[member(home), KeyValue::new("kind", kind)]);
    }

    /// By what the authority is counted as: a lying member must not be able to make labels, nor to write in them.
    pub(crate) fn unsubstantiated(&self, home: Member, authority: String) {
        self.unsubstantiated.add(1, &[member(home), KeyValue::new("authority", authority)]);
    }
}

/// Shows at every scrape how the authorities stand whose assignments the policy does not admit.
pub(crate) fn show_unsubstantiated(meter: &Meter, counts: &Arc<Unsubstantiated>, clock: &Arc<dyn Clock>) {
    let gauge = |name, what, value: fn(&Tally) -> u64| {
        let (counts, clock) = (counts.clone(), clock.clone());
        let observed = meter.u64_observable_gauge(name).with_description(what).with_callback(move |observer| {
            for tally in counts.tallies(clock.now()) {
                let labels = [member(tally.home), KeyValue::new("authority", tally.authority.clone())];
                observer.observe(value(&tally), &labels);
            }
        });
        observed.build();
    };
    gauge(
        "gateway_unsubstantiated_travelers",
        "Travelers in the window whose assignment the policy does not admit, by home member and authority.",
        |tally| tally.travelers,
    );
    gauge("gateway_unsubstantiated_alarm", "1 while the alarm for these travelers stands, else 0.", |tally| {
        u64::from(tally.alarm_since.is_some())
    });
}

impl RecordMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        Self {
            records: counter("gateway_records", "Access records made durable."),
            failures: counter("gateway_record_failures", "Commits of the access record that failed."),
            commit_seconds: meter
                .f64_histogram("gateway_record_commit")
                .with_unit("s")
                .with_description("Commits of the access record.")
                .with_boundaries(vec![0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0])
                .build(),
        }
    }
}

impl DeliveryMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        let gauge = |name, what| meter.u64_gauge(name).with_description(what).build();
        Self {
            calls: counter(
                "gateway_deliveries",
                "Deliveries of access records, by home member and outcome. A dispute wants somebody who looks.",
            ),
            records: counter("gateway_delivered_records", "Access records sent to their home members."),
            waiting: gauge("gateway_undelivered_records", "Access records that wait for their home member."),
            waiting_bytes: gauge("gateway_undelivered_bytes", "Their bytes: what the bounds are on."),
        }
    }
}

/// The outcome in metrics, traces and `gateway status`.
pub(crate) fn outcome_word(outcome: Outcome) -> String {
    outcome.as_str_name().trim_start_matches("OUTCOME_").to_ascii_lowercase()
}

fn member(member: Member) -> KeyValue {
    KeyValue::new("member", member.to_string())
}
