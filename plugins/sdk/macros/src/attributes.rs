//! Reads `#[serde(…)]`, `#[schema(…)]` and doc comments. Refuses what a schema cannot express.

use proc_macro2::Span;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, Lit, LitStr, Meta, Result, Token};

use crate::naming::Rule;

/// What serde is told about a struct or an enum.
#[derive(Default)]
pub struct Container {
    /// How its fields or variants are renamed.
    pub rename_all: Option<Rule>,
    /// Whether every field may be left out.
    pub default: bool,
}

/// What serde is told about a field or a variant.
#[derive(Default)]
pub struct Member {
    /// Its name.
    pub rename: Option<String>,
    /// Whether it may be left out.
    pub default: bool,
    /// Whether it is not read at all.
    pub skip: bool,
}

/// One limit of `#[schema(…)]`, as a keyword of JSON Schema.
pub struct Limit {
    /// Such as `maxLength`.
    pub keyword: &'static str,
    /// Its value.
    pub value: Value,
    /// Where it stands.
    pub span: Span,
}

/// A value that an attribute can hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer.
    Integer(i128),
    /// A text.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

impl Value {
    /// As JSON.
    pub fn json(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Text(text) => json_string(text),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

/// A text as JSON.
pub fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What serde is told about the type.
pub fn container(attributes: &[Attribute]) -> Result<Container> {
    let mut found = Container::default();
    each(attributes, "serde", |meta| {
        match name(meta).as_str() {
            "rename_all" => found.rename_all = Some(rule(meta)?),
            "default" => {
                found.default = true;
                skip_value(meta)?;
            }
            "deny_unknown_fields" => {}
            "bound" | "crate" | "expecting" | "rename" => skip_value(meta)?,
            other => return Err(meta.error(refused(other))),
        }
        Ok(())
    })?;
    Ok(found)
}

/// What serde is told about one field or variant.
pub fn member(attributes: &[Attribute]) -> Result<Member> {
    let mut found = Member::default();
    each(attributes, "serde", |meta| {
        match name(meta).as_str() {
            "rename" => found.rename = deserialize_name(meta)?,
            "default" => {
                found.default = true;
                skip_value(meta)?;
            }
            "skip" | "skip_deserializing" => found.skip = true,
            "skip_serializing" => {}
            "skip_serializing_if" | "serialize_with" | "bound" => skip_value(meta)?,
            other => return Err(meta.error(refused(other))),
        }
        Ok(())
    })?;
    Ok(found)
}

/// The limits of a field.
pub fn limits(attributes: &[Attribute]) -> Result<Vec<Limit>> {
    let mut found: Vec<Limit> = Vec::new();
    each(attributes, "schema", |meta| {
        let name = name(meta);
        let Some((_, keyword)) = LIMITS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = LIMITS.iter().map(|(known, _)| format!("`{known}`")).collect();
            return Err(meta.error(format!("`{name}` is no limit: write {}", known.join(", "))));
        };
        if found.iter().any(|limit| limit.keyword == *keyword) {
            return Err(meta.error(format!("`{name}` stands here twice")));
        }
        found.push(Limit { keyword, value: value(meta)?, span: meta.path.span() });
        Ok(())
    })?;
    Ok(found)
}

/// The doc comment as one text: lines joined, paragraphs kept apart by a line break.
pub fn description(attributes: &[Attribute]) -> Option<String> {
    let mut paragraphs = vec![String::new()];
    for line in attributes.iter().filter_map(doc_line) {
        match (line.trim(), paragraphs.last_mut()) {
            ("", _) => paragraphs.push(String::new()),
            (line, Some(last)) => {
                if !last.is_empty() {
                    last.push(' ');
                }
                last.push_str(line);
            }
            (_, None) => {}
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    (!paragraphs.is_empty()).then(|| paragraphs.join("\n"))
}

fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        Expr::Lit(literal) if pair.path.is_ident("doc") => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

fn each(
    attributes: &[Attribute],
    name: &str,
    mut read: impl FnMut(&ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    let named = attributes.iter().filter(|attribute| attribute.path().is_ident(name));
    named.into_iter().try_for_each(|attribute| attribute.parse_nested_meta(|meta| read(&meta)))
}

fn name(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(ToString::to_string).unwrap_or_default()
}

fn rule(meta: &ParseNestedMeta<'_>) -> Result<Rule> {
    let text: LitStr = meta.value()?.parse()?;
    Rule::named(&text.value())
        .ok_or_else(|| Error::new(text.span(), "serde has no rule of that name for `rename_all`"))
}

/// `rename = "…"`, or the `deserialize` of `rename(serialize = "…", deserialize = "…")`.
fn deserialize_name(meta: &ParseNestedMeta<'_>) -> Result<Option<String>> {
    if meta.input.peek(Token![=]) {
        return Ok(Some(meta.value()?.parse::<LitStr>()?.value()));
    }
    let mut found = None;
    meta.parse_nested_meta(|inner| {
        let text: LitStr = inner.value()?.parse()?;
        if inner.path.is_ident("deserialize") {
            found = Some(text.value());
        }
        Ok(())
    })?;
    Ok(found)
}

fn skip_value(meta: &ParseNestedMeta<'_>) -> Result<()> {
    if meta.input.peek(Token![=]) {
        meta.value()?.parse::<Expr>()?;
    }
    Ok(())
}

fn value(meta: &ParseNestedMeta<'_>) -> Result<Value> {
    let input = meta.value()?;
    let minus: Option<Token![-]> = input.parse()?;
    let literal: Lit = input.parse()?;
    match (&literal, minus) {
        (Lit::Int(number), minus) => {
            let number: i128 = number.base10_parse()?;
            Ok(Value::Integer(if minus.is_some() { -number } else { number }))
        }
        (Lit::Str(text), None) => Ok(Value::Text(text.value())),
        (Lit::Bool(flag), None) => Ok(Value::Flag(flag.value)),
        _ => Err(Error::new(literal.span(), "write an integer, a text, `true` or `false`")),
    }
}

fn refused(name: &str) -> String {
    format!(
        "`Schema` cannot express serde's `{name}`: write the type without it, or put the schema \
         into the manifest by hand"
    )
}

/// The attribute's names and the keywords that they become.
const LIMITS: [(&str, &str); 8] = [
    ("minimum", "minimum"),
    ("maximum", "maximum"),
    ("min_length", "minLength"),
    ("max_length", "maxLength"),
    ("pattern", "pattern"),
    ("min_items", "minItems"),
    ("max_items", "maxItems"),
    ("default", "default"),
];
