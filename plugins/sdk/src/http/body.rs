//! The parts of a request's body, and JSON with secrets in it. Encodes nothing: that is the host's.

use serde_json::Value;

use super::Encoding;
use crate::Secret;

/// A part of a body, in the order of the body.
pub(super) enum Part<'s> {
    Text(String),
    Value(String, Encoding),
    Secret(&'s Secret, Encoding),
}

/// `value` as JSON with secrets at these JSON pointers, or a sentence on what is wrong.
pub(super) fn json<'s, T: serde::Serialize + ?Sized>(
    value: &T,
    secrets: &[(&str, &'s Secret)],
) -> Result<Vec<Part<'s>>, String> {
    let value = serde_json::to_value(value)
        .map_err(|error| format!("the body cannot be written as JSON: {error}"))?;
    if let Some((pointer, _)) = secrets.iter().find(|(at, _)| value.pointer(at).is_none()) {
        return Err(format!("the body has no value at `{pointer}` to put a secret in"));
    }
    let mut writer = Writer { secrets, text: String::new(), parts: Vec::new() };
    writer.write("", &value);
    writer.end_text();
    Ok(writer.parts)
}

struct Writer<'a, 's> {
    secrets: &'a [(&'a str, &'s Secret)],
    text: String,
    parts: Vec<Part<'s>>,
}

impl Writer<'_, '_> {
    fn write(&mut self, at: &str, value: &Value) {
        if let Some((_, secret)) = self.secrets.iter().find(|(pointer, _)| *pointer == at) {
            self.end_text();
            self.parts.push(Part::Secret(secret, Encoding::Json));
            return;
        }
        match value {
            Value::Array(items) => self.write_array(at, items),
            Value::Object(members) => self.write_object(at, members),
            scalar => self.text.push_str(&scalar.to_string()),
        }
    }

    fn write_array(&mut self, at: &str, items: &[Value]) {
        self.text.push('[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.write(&format!("{at}/{index}"), item);
        }
        self.text.push(']');
    }

    fn write_object(&mut self, at: &str, members: &serde_json::Map<String, Value>) {
        self.text.push('{');
        for (index, (name, member)) in members.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.text.push_str(&Value::from(name.as_str()).to_string());
            self.text.push(':');
            self.write(&format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), member);
        }
        self.text.push('}');
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.parts.push(Part::Text(std::mem::take(&mut self.text)));
        }
    }
}

/// A body as tests compare it.
#[cfg(test)]
pub(super) fn shown(parts: &[Part<'_>]) -> String {
    let show = |part: &Part<'_>| match part {
        Part::Text(text) => text.clone(),
        Part::Value(value, encoding) => format!("{}({value})", name(*encoding)),
        Part::Secret(_, encoding) => format!("{}(secret)", name(*encoding)),
    };
    parts.iter().map(show).collect()
}

#[cfg(test)]
fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Raw => "raw",
        Encoding::Json => "json",
        Encoding::Form => "form",
        Encoding::Xml => "xml",
        Encoding::Base64 => "base64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_it_is() {
        for text in [r#"{"a/b":[1,"x\"y",null,{}],"c":[[]]}"#, "null", "[]", r#""text""#] {
            let value: Value = serde_json::from_str(text).unwrap_or_default();
            let parts = json(&value, &[]).unwrap_or_default();
            assert_eq!(shown(&parts), text);
        }
    }
}
