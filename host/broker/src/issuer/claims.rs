//! The claims that a plugin adds to a token: one JSON object, read strictly. Names nothing that
//! is the host's.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// Claims that are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClaimsError {
    /// Too long.
    #[error("claims take at most {CLAIMS_BYTES_MAX} bytes, not {0}")]
    TooLong(usize),
    /// Not an object, or one that two readers could read in two ways.
    #[error("claims must be one JSON object without repeated names: {0}")]
    Malformed(String),
    /// The host's.
    #[error("claim `{0}` is set by the host: leave it out")]
    Reserved(&'static str),
}

/// Reads a plugin's claims.
pub fn guest_claims(text: &str) -> Result<Map<String, Value>, ClaimsError> {
    if text.len() > CLAIMS_BYTES_MAX {
        return Err(ClaimsError::TooLong(text.len()));
    }
    let malformed = |error: serde_json::Error| ClaimsError::Malformed(error.to_string());
    let Strict(value) = serde_json::from_str(text).map_err(malformed)?;
    let Value::Object(claims) = value else {
        return Err(ClaimsError::Malformed("it is another value".to_owned()));
    };
    match RESERVED.iter().find(|name| claims.contains_key(**name)) {
        Some(name) => Err(ClaimsError::Reserved(name)),
        None => Ok(claims),
    }
}

/// A JSON value in which no object has a name twice: readers differ on which one counts.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::from).ok_or_else(|| E::custom("a number too large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = elements.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if values.contains_key(&name) {
                return Err(A::Error::custom("a name stands there twice"));
            }
            values.insert(name, value);
        }
        Ok(values.into())
    }
}

/// Documented in the plugin contract.
const CLAIMS_BYTES_MAX: usize = 4 * 1024;

/// What names issuer, subject, audience, lifetime and origin of a token. `cnf` too: it would bind
/// the token to a key of the plugin's choosing.
const RESERVED: [&str; 9] = ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "claviger", "cnf"];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn reads_every_kind_of_value() {
        let text = r#"{"a": [null, true, 1, -1, 1.5, "x"], "b": {"c": {}}}"#;
        let expect: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::from(guest_claims(text).unwrap()), expect);
    }

    #[test]
    fn refuses_what_is_the_hosts() {
        for name in RESERVED {
            let text = format!(r#"{{"{name}": 1}}"#);
            assert_eq!(guest_claims(&text), Err(ClaimsError::Reserved(name)));
        }
        assert!(matches!(guest_claims(r#"{"\u0073ub": 1}"#), Err(ClaimsError::Reserved("sub"))));
    }

    #[test]
    fn refuses_what_can_be_read_two_ways() {
        let deep = format!("{}{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        for text in
            ["", "[]", "1", "{} {}", r#"{"a":1,"a":2}"#, r#"{"a":[{"b":1,"\u0062":2}]}"#, &deep]
        {
            let error = guest_claims(text).unwrap_err();
            assert!(matches!(error, ClaimsError::Malformed(_)), "{text}: {error}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(4096));
        assert!(matches!(guest_claims(&long), Err(ClaimsError::TooLong(_))));
    }
}
