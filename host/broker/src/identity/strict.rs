//! JSON that strangers wrote, read strictly: a name that stands twice in one object is refused,
//! since two readers could take different values. Knows no claim.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The object that `bytes` are.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, StrictError> {
    let Strict(value) = serde_json::from_slice(bytes).map_err(|error| {
        if error.to_string().contains(TWICE) { StrictError::Twice } else { StrictError::Malformed }
    })?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(StrictError::Malformed),
    }
}

/// Why text is not taken as an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrictError {
    /// It is no JSON object.
    #[error("it is no JSON object")]
    Malformed,
    /// A name stands twice.
    #[error("a name stands twice in one object")]
    Twice,
}

/// A value in which no object has a name twice. serde_json bounds how deep it may nest.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(Value::Object(object))
    }
}

const TWICE: &str = "a name stands twice in one object";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice_however_deep_and_however_written() {
        for (text, expect) in [
            (r#"{"a":1,"a":1}"#, StrictError::Twice),
            (r#"{"a":1,"\u0061":2}"#, StrictError::Twice),
            (r#"{"a":{"b":[{"c":1,"c":2}]}}"#, StrictError::Twice),
            ("[]", StrictError::Malformed),
            ("", StrictError::Malformed),
            (r#"{"a":1} {"#, StrictError::Malformed),
            (r#"{"a":1}x"#, StrictError::Malformed),
            ("{\"a\":\"\\ud800\"}", StrictError::Malformed),
        ] {
            assert_eq!(object(text.as_bytes()).err(), Some(expect), "{text}");
        }
        let deep = format!("{}{}", r#"{"a":"#.repeat(500), "}".repeat(500));
        assert_eq!(object(deep.as_bytes()).err(), Some(StrictError::Malformed));
        assert_eq!(object(b"{\"a\":\"\xff\"}").err(), Some(StrictError::Malformed));
        let text = r#"{"a":[1,-1,1.5,"x",null,true],"b":{}}"#;
        assert_eq!(Value::Object(object(text.as_bytes()).unwrap()).to_string(), text);
    }
}
