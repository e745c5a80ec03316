//! Time as the protocol counts it: whole seconds since 1970 UTC, always passed in by whoever asks.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How far two honest clocks may be apart.
pub const CLOCK_LEEWAY: Duration = Duration::from_secs(30);

/// An instant in whole seconds since 1970-01-01T00:00:00Z, as CWT's NumericDate (RFC 8392 §2) without fractions.
/// At most [`UnixTime::MAX`], the end of the year 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// 9999-12-31T23:59:59Z: later instants are not valid on the wire.
    pub const MAX: Self = Self(253_402_300_799);

    /// The instant `seconds` after 1970; later ones are taken as [`Self::MAX`].
    pub const fn from_secs(seconds: u64) -> Self {
        if seconds > Self::MAX.0 { Self::MAX } else { Self(seconds) }
    }

    /// Seconds since 1970.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// Whole seconds from `earlier` to `self`, zero if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` plus a duration, fractions dropped.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self::from_secs(self.0.saturating_add(duration.as_secs()))
    }

    /// `self` minus a duration, not before 1970.
    #[must_use]
    pub const fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_secs()))
    }

    /// From protobuf's well-known type, fractions dropped; `None` if it is before 1970, after [`Self::MAX`], or none at all.
    pub fn from_protobuf(timestamp: &prost_types::Timestamp) -> Option<Self> {
        let seconds = u64::try_from(timestamp.seconds).ok().filter(|seconds| *seconds <= Self::MAX.0)?;
        (0..1_000_000_000).contains(&timestamp.nanos).then_some(Self(seconds))
    }

    /// As protobuf's well-known type.
    pub fn to_protobuf(self) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds: i64::try_from(self.0).unwrap_or(i64::MAX), nanos: 0 }
    }
}

impl fmt::Display for UnixTime {
    /// RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()) {
            Some(instant) => instant.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

/// A text that is not an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an instant of RFC 3339, e.g. 2027-01-15T08:00:00Z")]
pub struct NotAnInstant;

impl FromStr for UnixTime {
    type Err = NotAnInstant;

    /// RFC 3339 with any offset; fractions of a second are dropped.
    fn from_str(text: &str) -> Result<Self, NotAnInstant> {
        let instant: jiff::Timestamp = text.parse().map_err(|_| NotAnInstant)?;
        u64::try_from(instant.as_second()).map(Self::from_secs).map_err(|_| NotAnInstant)
    }
}

/// Where the wall clock comes from.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> UnixTime;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        // A clock before 1970 is broken; everything it dates will be refused as not yet valid.
        UnixTime::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
    }
}

/// A clock that its owner sets: for tests, simulations, and trying a start on day 90.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub const fn at(now: UnixTime) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_secs(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobufs_instants_are_taken_within_their_bounds() {
        let read = |seconds, nanos| UnixTime::from_protobuf(&prost_types::Timestamp { seconds, nanos });
        let max = UnixTime::MAX.as_secs().cast_signed();
        assert_eq!(read(1_800_000_000, 999_999_999), Some(UnixTime::from_secs(1_800_000_000)));
        assert_eq!((read(0, 0), read(max, 0)), (Some(UnixTime::from_secs(0)), Some(UnixTime::MAX)));
        assert_eq!([read(-1, 0), read(max + 1, 0), read(0, -1), read(0, 1_000_000_000)], [None; 4]);
    }

    #[test]
    fn shows_rfc3339_and_stays_in_range() {
        assert_eq!(UnixTime::from_secs(1_616_457_600).to_string(), "2021-03-23T00:00:00Z");
        assert_eq!(UnixTime::from_secs(u64::MAX), UnixTime::MAX);
        assert_eq!(UnixTime::from_secs(5).minus(Duration::from_secs(9)).as_secs(), 0);
        assert_eq!(UnixTime::from_secs(5).since(UnixTime::from_secs(9)), 0);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(UnixTime::from_secs(10));
        assert_eq!(clock.now().as_secs(), 10);
        clock.advance(Duration::from_secs(90 * 86_400));
        assert_eq!(clock.now().since(UnixTime::from_secs(10)), 90 * 86_400);
    }
}
