//! The trace a call belongs to: W3C Trace Context, of which `traceparent` alone is read and sent.
//!
//! A peer's trace is continued if it is well-formed, whoever the peer is: it has a certificate, and a trace id decides
//! nothing. `tracestate` and `baggage` are neither read nor sent on: callers may write anything into them, a person too
//! (I6). Nor is an id continued that could be a person's number written as one.
//!
//! A call has its trace whether or not spans are exported. Where they are, the ids are the exported span's; where they are
//! not, only the trace id is made and the caller's `traceparent` goes on as it came.

use std::fmt;

use http::HeaderMap;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId as OtelTraceId, TraceState},
};
use proto::random::{self, Random, SystemRandom};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tracing::{Span, field::display};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header (Trace Context §3.2).
const TRACEPARENT: &str = "traceparent";
/// `00-<32 hex>-<16 hex>-<2 hex>`.
const LENGTH: usize = 55;
/// The longest header that is read: later versions may append fields.
const MAX_LENGTH: usize = 256;
/// So many digits in a row in an id could be an ID number, or a shorter number with zeros before or behind it. One random
/// trace id in 260 has them by chance and starts a new trace; our own never have.
const NUMBER_DIGITS: usize = 16;

/// The id of a trace: shown as 32 lower-case hexadecimal digits, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Where a call stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: TraceId,
    parent: [u8; 8],
    sampled: bool,
}

impl TraceId {
    /// The id's bytes.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// An id that is neither invalid nor anybody's number.
    pub(crate) fn random(random: &dyn Random) -> Self {
        loop {
            let id = Self(random::bytes(random));
            if id.0 != [0; 16] && !could_be_a_number(&id.0) {
                return id;
            }
        }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Trace {
    /// Begins the trace of a span, or goes on with a caller's. The id is written into the span's field `trace_id`, so that
    /// each log line within shows it.
    pub fn of_span(span: &Span, caller: Option<Self>) -> Self {
        if let Some(caller) = caller {
            // Fails where nothing is exported: then there is no other span's parent to set.
            let _ = span.set_parent(Context::new().with_remote_span_context(caller.into()));
        }
        let trace = Self::exported(span).or(caller).unwrap_or_else(|| Self::new(&SystemRandom));
        span.record("trace_id", display(trace.id));
        trace
    }

    /// The trace that a caller's headers name, if they name one in the documented form and only once.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()).filter(|trace| !trace.could_be_a_number()),
            _ => None,
        }
    }

    /// The trace of a call that came through [`crate::edge`]; one of its own for any other.
    pub fn of_request<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().copied().unwrap_or_else(|| Self::new(&SystemRandom))
    }

    /// Its id.
    pub const fn id(&self) -> TraceId {
        self.id
    }

    /// Names the trace to whoever is called within `span`.
    pub fn send(&self, span: &Span, metadata: &mut MetadataMap) {
        let trace = Self::exported(span).unwrap_or(*self);
        if let Ok(value) = MetadataValue::<Ascii>::try_from(trace.traceparent()) {
            metadata.insert(TRACEPARENT, value);
        }
    }

    fn could_be_a_number(&self) -> bool {
        could_be_a_number(&self.id.0) || could_be_a_number(&self.parent)
    }

    fn new(random: &dyn Random) -> Self {
        Self { id: TraceId::random(random), parent: span_id(random), sampled: false }
    }

    /// Where a span that may be exported stands.
    fn exported(span: &Span) -> Option<Self> {
        let context = span.context();
        let span = context.span();
        let context = span.span_context();
        context.is_valid().then(|| Self {
            id: TraceId(context.trace_id().to_bytes()),
            parent: context.span_id().to_bytes(),
            sampled: context.is_sampled(),
        })
    }

    fn traceparent(&self) -> String {
        format!("00-{}-{:016x}-{:02x}", self.id, u64::from_be_bytes(self.parent), u8::from(self.sampled))
    }

    /// Trace Context §3.2.2; of later versions what version 00 has, as §4.3 says.
    fn parse(header: &[u8]) -> Option<Self> {
        let (known, rest) = header.split_at_checked(LENGTH)?;
        let separated = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let version = u8::from_be_bytes(hex(&known[..2])?);
        let complete = rest.is_empty() || (version > 0 && rest[0] == b'-');
        if !separated || !complete || version == 0xff || header.len() > MAX_LENGTH {
            return None;
        }
        let (id, parent) = (hex(&known[3..35])?, hex(&known[36..52])?);
        let flags = u8::from_be_bytes(hex(&known[53..])?);
        let trace = Self { id: TraceId(id), parent, sampled: flags & 1 == 1 };
        (id != [0; 16] && parent != [0; 8]).then_some(trace)
    }
}

impl From<Trace> for SpanContext {
    fn from(trace: Trace) -> Self {
        let flags = if trace.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let (id, parent) = (OtelTraceId::from_bytes(trace.id.0), SpanId::from_bytes(trace.parent));
        Self::new(id, parent, flags, true, TraceState::NONE)
    }
}

/// Whether an id, as it is shown, could be a person's number.
fn could_be_a_number(id: &[u8]) -> bool {
    let nibbles: Vec<u8> = id.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).collect();
    nibbles.split(|nibble| *nibble > 9).any(|digits| digits.len() >= NUMBER_DIGITS)
}

/// The id of a span: neither invalid nor anybody's number.
pub(crate) fn span_id(random: &dyn Random) -> [u8; 8] {
    loop {
        let id = random::bytes(random);
        if id != [0; 8] && !could_be_a_number(&id) {
            return id;
        }
    }
}

/// Bytes from exactly their lower-case hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (http::HeaderName::from_static(TRACEPARENT), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_well_formed_trace_is_continued() {
        let trace = Trace::of_headers(&headers(&[GOOD])).unwrap();
        assert_eq!(trace.id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.traceparent(), GOOD);
        let unsampled = GOOD.replace("-01", "-00");
        assert_eq!(Trace::of_headers(&headers(&[&unsampled])).unwrap().traceparent(), unsampled);
        // Of flags only the one that is known goes on; a later version may have more behind it.
        for later in
            [GOOD.replace("-01", "-ff"), GOOD.replacen("00", "cc", 1), format!("{GOOD}-more").replacen("00", "01", 1)]
        {
            assert_eq!(Trace::of_headers(&headers(&[&later])), Some(trace), "{later}");
        }
    }

    #[test]
    fn anything_else_starts_a_new_one() {
        let long = format!("01{}-{}", &GOOD[2..], "a".repeat(MAX_LENGTH));
        for wrong in [
            "",
            "00",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf9", "4bg9"),
            &GOOD.replace('-', "_"),
            &format!("{GOOD}-more"),
            &format!("{GOOD} "),
            &format!("01{}more", &GOOD[2..]),
            &format!("ff{}", &GOOD[2..]),
            &long,
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(Trace::of_headers(&headers(&[wrong])), None, "{wrong}");
        }
        assert_eq!(Trace::of_headers(&headers(&[GOOD, GOOD])), None, "two of them");
        assert_eq!(Trace::of_headers(&headers(&[])), None);
    }

    #[test]
    fn nobodys_number_is_a_trace() {
        for number in ["110105194912310029", "00000000000000000000013800138000", "11010519491231002a"] {
            let traceparent = format!("00-{number:a<32}-00f067aa0ba902b7-01");
            assert_eq!(Trace::of_headers(&headers(&[&traceparent])), None, "{traceparent}");
        }
        let phone = GOOD.replace("00f067aa0ba902b7", "0000013800138000");
        assert_eq!(Trace::of_headers(&headers(&[&phone])), None, "{phone}");
        for _ in 0..10_000 {
            assert!(!Trace::new(&SystemRandom).could_be_a_number());
        }
    }

    #[test]
    fn a_span_that_nobody_exports_has_a_trace_all_the_same() {
        let caller = Trace::parse(GOOD.as_bytes());
        assert_eq!(Some(Trace::of_span(&Span::none(), caller)), caller);
        let (one, other) = (Trace::of_span(&Span::none(), None), Trace::of_span(&Span::none(), None));
        assert_ne!(one.id(), other.id());
        let mut metadata = MetadataMap::new();
        one.send(&Span::none(), &mut metadata);
        assert_eq!(Trace::of_headers(&metadata.into_headers()), Some(one));
    }
}
