//! A point in time as the broker records it: milliseconds since the Unix epoch, UTC. Reads no clock.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z. Shown, serialised and parsed as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment that lies `millis` after the Unix epoch.
    pub const fn from_unix_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// The beginning of its second.
    pub const fn whole_second(self) -> Self {
        Self(self.0 - self.0 % 1000)
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn unix_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The moment `duration` later; stops at the end of representable time instead of wrapping.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// How long from `earlier` until this moment; zero if this moment comes first.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RFC 3339 has four year digits; what lies beyond year 9999 is shown as its last moment.
        let shown = SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.min(RFC3339_MILLIS_MAX));
        humantime::format_rfc3339_millis(shown).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self::from).map_err(serde::de::Error::custom)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// 9999-12-31T23:59:59.999Z.
const RFC3339_MILLIS_MAX: u64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_round_trip_through_json() {
        for millis in [0, 1, 1_795_000_000_123, RFC3339_MILLIS_MAX] {
            let time = Timestamp::from_unix_millis(millis);
            let text = serde_json::to_string(&time).unwrap_or_default();
            assert_eq!(serde_json::from_str::<Timestamp>(&text).ok(), Some(time), "{text}");
        }
    }

    #[test]
    fn never_wraps() {
        let end = Timestamp::from_unix_millis(u64::MAX).after(Duration::from_secs(1));
        assert_eq!(end.unix_millis(), u64::MAX);
        assert_eq!(end.to_string(), "9999-12-31T23:59:59.999Z");
    }
}
