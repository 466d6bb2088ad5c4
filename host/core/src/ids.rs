//! Identifiers: UUIDv7 (RFC 9562) values, shown as a prefix and 26 characters of lower-case
//! Crockford base32. They sort by time of creation, and the 26 characters fit every backend's
//! name limits (MySQL allows 32 characters for a user, PostgreSQL 63 bytes).

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::time::Timestamp;

macro_rules! id {
    ($name:ident, $prefix:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A new id from the time and ten random bytes; the caller owns both.
            pub fn mint(now: Timestamp, random: &[u8; 10]) -> Self {
                let uuid = uuid::Builder::from_unix_timestamp_millis(now.unix_millis(), random);
                Self(uuid.into_uuid().into_bytes())
            }

            /// The 26 characters without the prefix, for names in other systems.
            pub fn bare(&self) -> String {
                BASE32.encode(&self.0)
            }

            /// The sixteen bytes of the UUID.
            pub const fn bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.bare())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse($prefix, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(SessionId, "ses", "One run of one role by one principal for one requester.");
id!(
    IntentId,
    "int",
    "A recorded permission to mint one credential. The backend's object carries its bare form, \
     and the lease that follows keeps it as its own id."
);
id!(DenialId, "den", "One recorded refusal.");
id!(ApprovalId, "apr", "One thing that waits for a second operator.");

/// Text that is not an id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is not an id of this kind: it looks like `{prefix}_` and 26 letters or digits")]
pub struct IdError {
    text: String,
    prefix: &'static str,
}

fn parse(prefix: &'static str, text: &str) -> Result<[u8; 16], IdError> {
    let error = || IdError { text: text.chars().take(64).collect(), prefix };
    let bare =
        text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).ok_or_else(error)?;
    let bytes = BASE32.decode(bare.as_bytes()).map_err(|_| error())?;
    bytes.try_into().map_err(|_| error())
}

/// Crockford's alphabet in lower case: ascending, so that encoded ids sort as their bytes do.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    #[expect(clippy::expect_used, reason = "a constant alphabet of 32 distinct symbols is valid")]
    specification.encoding().expect("the alphabet is valid")
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_by_time_and_parses_back() {
        let early = IntentId::mint(Timestamp::from_unix_millis(1_000), &[255; 10]);
        let late = IntentId::mint(Timestamp::from_unix_millis(1_001), &[0; 10]);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.bare().len(), 26);
        assert_eq!(early.to_string().parse(), Ok(early));
    }

    #[test]
    fn refuses_another_kind_and_garbage() {
        let id = SessionId::mint(Timestamp::from_unix_millis(1), &[7; 10]).to_string();
        for text in [id.as_str(), "", "int_", "int_ZZZ", "int_00000000000000000000000000x"] {
            assert!(text.parse::<IntentId>().is_err(), "{text}");
        }
    }
}
