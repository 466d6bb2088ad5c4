//! Writes values so that they cannot become syntax. Judges no value.

use data_encoding::BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

/// How a value is written into a body; the plugin contract's `encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Raw,
    /// A JSON string, with its quotation marks.
    Json,
    /// A name or value of `application/x-www-form-urlencoded`.
    Form,
    /// Text of an XML element or of a quoted attribute.
    Xml,
    /// Base64 (RFC 4648, section 4).
    Base64,
}

impl Encoding {
    /// `value` in this encoding.
    pub fn write(self, value: &str) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::Raw => value.to_owned(),
            Self::Json => serde_json::Value::from(value).to_string(),
            // RFC 3986's escapes instead of the URL standard's, which differ for `*` and `~`: every
            // reader understands both, and one that writes the form anew to check a signature over
            // it, as moto does, writes these.
            Self::Form => percent(value).replace("%20", "+"),
            Self::Xml => xml(value),
            Self::Base64 => BASE64.encode(value.as_bytes()),
        })
    }
}

/// `value` as one segment of a path, or as one name or value of a query.
pub fn percent(value: &str) -> String {
    utf8_percent_encode(value, UNRESERVED).to_string()
}

fn xml(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            // A reader turns these into spaces or newlines unless they are written as numbers.
            '\t' => text.push_str("&#9;"),
            '\n' => text.push_str("&#10;"),
            '\r' => text.push_str("&#13;"),
            other => text.push(other),
        }
    }
    text
}

/// What RFC 3986, section 2.3, calls reserved, and everything that is no ASCII.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_becomes_syntax() {
        let value = "a b\"&<>'=\\/\n+%ä~*";
        for (encoding, expect) in [
            (Encoding::Raw, value),
            (Encoding::Json, r#""a b\"&<>'=\\/\n+%ä~*""#),
            (Encoding::Form, "a+b%22%26%3C%3E%27%3D%5C%2F%0A%2B%25%C3%A4~%2A"),
            (Encoding::Xml, "a b&quot;&amp;&lt;&gt;&#39;=\\/&#10;+%ä~*"),
            (Encoding::Base64, "YSBiIiY8Pic9XC8KKyXDpH4q"),
        ] {
            assert_eq!(encoding.write(value).as_str(), expect);
        }
        assert_eq!(percent(value), "a%20b%22%26%3C%3E%27%3D%5C%2F%0A%2B%25%C3%A4~%2A");
    }
}
