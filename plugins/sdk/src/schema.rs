//! What a type says of the JSON that it is read from, and how schemas become one text while the
//! plugin is compiled. The schemas are written by `#[derive(Schema)]`.

/// A type whose JSON Schema is known when the plugin is compiled.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no JSON schema",
    label = "needs a schema for the manifest",
    note = "add `#[derive(claviger_plugin_sdk::Schema)]` to it, or write the schema into the manifest by hand"
)]
pub trait Schema {
    /// The keywords of its schema (JSON Schema 2020-12): what stands between the braces, such as
    /// `"type":"string"`.
    const KEYWORDS: &'static str;
}

/// The bytes in all parts together.
pub const fn length(mut parts: &[&str]) -> usize {
    let mut length = 0;
    while let Some((part, rest)) = parts.split_first() {
        length += part.len();
        parts = rest;
    }
    length
}

/// All parts, one after the other. `N` is their [`length`].
pub const fn joined<const N: usize>(mut parts: &[&str]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while let Some((part, rest)) = parts.split_first() {
        let (_, free) = bytes.split_at_mut(at);
        free.split_at_mut(part.len()).0.copy_from_slice(part.as_bytes());
        at += part.len();
        parts = rest;
    }
    bytes
}

/// The text of joined parts, which are text themselves.
pub const fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, dead_code, reason = "a test may panic; only schemas are read")]
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    /// Not in the schema: the field that holds it says what it is for.
    #[derive(claviger_plugin_sdk_macros::Schema, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Access {
        ReadOnly,
        ReadWrite,
        #[serde(rename = "all")]
        Everything,
        #[serde(skip)]
        Secret,
    }

    #[derive(claviger_plugin_sdk_macros::Schema, serde::Deserialize)]
    struct Inner {
        #[schema(minimum = -3, maximum = 3)]
        level: i8,
    }

    #[derive(claviger_plugin_sdk_macros::Schema, serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Outer {
        /// What it is called:
        /// a "name".
        ///
        /// And more.
        #[schema(min_length = 1, max_length = 63, pattern = "^[a-z]+$")]
        full_name: String,
        #[serde(default)]
        #[schema(default = true)]
        on: bool,
        r#type: Option<Access>,
        inner: Inner,
        #[schema(max_items = 4, max_length = 8)]
        tags: Vec<String>,
        limits: BTreeMap<String, u16>,
        #[serde(rename = "n", default)]
        #[schema(maximum = 10, default = 0)]
        number: u32,
        #[serde(skip)]
        left_out: u64,
        ratio: f64,
    }

    #[derive(claviger_plugin_sdk_macros::Schema, serde::Deserialize)]
    struct Nothing {}

    fn schema_of<T: Schema>() -> serde_json::Value {
        serde_json::from_str(&format!("{{{}}}", T::KEYWORDS)).unwrap()
    }

    #[test]
    fn a_struct_tells_what_it_is_read_from() {
        let access = json!({"type": "string", "enum": ["read-only", "read-write", "all"]});
        let expect = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["fullName", "inner", "tags", "limits", "ratio"],
            "properties": {
                "fullName": {
                    "description": "What it is called: a \"name\".\nAnd more.",
                    "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z]+$",
                },
                "on": {"type": "boolean", "default": true},
                "type": access,
                "inner": {
                    "type": "object", "additionalProperties": false, "required": ["level"],
                    "properties": {"level": {"type": "integer", "minimum": -3, "maximum": 3}},
                },
                "tags": {
                    "type": "array", "maxItems": 4,
                    "items": {"type": "string", "maxLength": 8},
                },
                "limits": {
                    "type": "object",
                    "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 65535},
                },
                "n": {"type": "integer", "minimum": 0, "maximum": 10, "default": 0},
                "ratio": {"type": "number"},
            },
        });
        assert_eq!(schema_of::<Outer>(), expect);
        let empty = json!({"type": "object", "additionalProperties": false, "properties": {}});
        assert_eq!(schema_of::<Nothing>(), empty);
    }

    #[test]
    fn serde_reads_what_the_schema_allows() {
        let least = json!({
            "fullName": "x", "inner": {"level": 0}, "tags": [], "limits": {}, "ratio": 1.5,
            "type": "all",
        });
        let outer: Outer = serde_json::from_value(least).unwrap();
        assert!(matches!(outer.r#type, Some(Access::Everything)) && !outer.on);
    }
}
