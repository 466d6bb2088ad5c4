//! Derives `Schema`: puts a type's JSON Schema together from text and from other types' schemas.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Field, Fields, Item, ItemEnum, ItemStruct, Result, Type};

use crate::attributes::{self, Container, Limit, Value, json_string};
use crate::shape::{Declared, Shape};

/// The implementation of `Schema` for the type in `input`.
pub fn derive(input: TokenStream) -> Result<TokenStream> {
    let item: Item = syn::parse2(input)?;
    let (ident, pieces) = match &item {
        Item::Struct(item) => (&item.ident, pieces_of_struct(item)?),
        Item::Enum(item) => (&item.ident, pieces_of_enum(item)?),
        other => return Err(Error::new(other.span(), "`Schema` is for structs and enums")),
    };
    let parts = pieces.0.iter().map(Piece::tokens);
    Ok(quote! {
        impl ::claviger_plugin_sdk::Schema for #ident {
            const KEYWORDS: &'static str = {
                const PARTS: &[&str] = &[#(#parts),*];
                const BYTES: [u8; ::claviger_plugin_sdk::guest::length(PARTS)] =
                    ::claviger_plugin_sdk::guest::joined(PARTS);
                ::claviger_plugin_sdk::guest::text(&BYTES)
            };
        }
    })
}

/// A schema's text, in order.
#[derive(Default)]
struct Pieces<'t>(Vec<Piece<'t>>);

enum Piece<'t> {
    Text(String),
    /// The keywords of another type.
    Of(&'t Type),
}

impl Piece<'_> {
    fn tokens(&self) -> TokenStream {
        match self {
            Self::Text(text) => quote!(#text),
            Self::Of(named) => {
                quote_spanned!(named.span()=> <#named as ::claviger_plugin_sdk::Schema>::KEYWORDS)
            }
        }
    }
}

impl<'t> Pieces<'t> {
    fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            _ => self.0.push(Piece::Text(text.to_owned())),
        }
    }

    /// The keywords of a shape, without those that `limits` say better.
    fn shape(&mut self, shape: &Shape<'t>, limits: &[Limit]) {
        match shape {
            Shape::Text => self.text(r#""type":"string""#),
            Shape::Flag => self.text(r#""type":"boolean""#),
            Shape::Number => self.text(r#""type":"number""#),
            Shape::Integer { least, most } => {
                self.text(r#""type":"integer""#);
                for (keyword, bound) in [("minimum", least), ("maximum", most)] {
                    let said = limits.iter().any(|limit| limit.keyword == keyword);
                    if let (Some(bound), false) = (bound, said) {
                        self.text(&format!(r#","{keyword}":{bound}"#));
                    }
                }
            }
            Shape::List(items) => {
                self.text(r#""type":"array","items":{"#);
                self.shape(items, limits);
                if !matches!(**items, Shape::List(_)) {
                    self.limits(limits, Scope::Value);
                }
                self.text("}");
            }
            Shape::Map(values) => {
                self.text(r#""type":"object","additionalProperties":{"#);
                self.shape(values, &[]);
                self.text("}");
            }
            Shape::Named(named) => self.0.push(Piece::Of(named)),
        }
    }

    fn limits(&mut self, limits: &[Limit], scope: Scope) {
        for limit in limits.iter().filter(|limit| Scope::of(limit) == scope) {
            self.text(&format!(",\"{}\":{}", limit.keyword, limit.value.json()));
        }
    }
}

/// What a limit is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The value; in a list, each item.
    Value,
    /// The list as a whole.
    List,
    /// The key.
    Key,
}

impl Scope {
    fn of(limit: &Limit) -> Self {
        match limit.keyword {
            "minItems" | "maxItems" => Self::List,
            "default" => Self::Key,
            _ => Self::Value,
        }
    }
}

fn pieces_of_struct(item: &ItemStruct) -> Result<Pieces<'_>> {
    if !item.generics.params.is_empty() {
        return Err(Error::new(item.generics.span(), "`Schema` cannot be derived for generics"));
    }
    let Fields::Named(fields) = &item.fields else {
        let hint = "`Schema` needs named fields: without any, write `struct Settings {}`";
        return Err(Error::new(item.fields.span(), hint));
    };
    let container = attributes::container(&item.attrs)?;
    let mut required = Vec::new();
    let mut properties = Pieces::default();
    for field in &fields.named {
        let Some(property) = Property::parse(field, &container)? else { continue };
        if property.required {
            required.push(json_string(&property.name));
        }
        if !properties.0.is_empty() {
            properties.text(",");
        }
        property.write(&mut properties);
    }
    let mut pieces = Pieces::default();
    pieces.text(r#""type":"object","additionalProperties":false"#);
    if !required.is_empty() {
        pieces.text(&format!(r#","required":[{}]"#, required.join(",")));
    }
    pieces.text(r#","properties":{"#);
    for piece in properties.0 {
        match piece {
            Piece::Text(text) => pieces.text(&text),
            named @ Piece::Of(_) => pieces.0.push(named),
        }
    }
    pieces.text("}");
    Ok(pieces)
}

fn pieces_of_enum(item: &ItemEnum) -> Result<Pieces<'_>> {
    let container = attributes::container(&item.attrs)?;
    let mut words = Vec::new();
    for variant in &item.variants {
        if !matches!(variant.fields, Fields::Unit) {
            let hint = "`Schema` is for enums of plain words: this variant holds values";
            return Err(Error::new(variant.fields.span(), hint));
        }
        let member = attributes::member(&variant.attrs)?;
        if member.skip {
            continue;
        }
        let own = variant.ident.to_string();
        let renamed = container.rename_all.map_or(own.clone(), |rule| rule.variant(&own));
        words.push(json_string(&member.rename.unwrap_or(renamed)));
    }
    if words.is_empty() {
        return Err(Error::new(item.ident.span(), "an enum without variants has no value"));
    }
    let mut pieces = Pieces::default();
    pieces.text(&format!(r#""type":"string","enum":[{}]"#, words.join(",")));
    Ok(pieces)
}

/// One key of an object.
struct Property<'t> {
    name: String,
    description: Option<String>,
    required: bool,
    shape: Shape<'t>,
    limits: Vec<Limit>,
}

impl<'t> Property<'t> {
    /// `None` for a field that serde does not read.
    fn parse(field: &'t Field, container: &Container) -> Result<Option<Self>> {
        let member = attributes::member(&field.attrs)?;
        if member.skip {
            return Ok(None);
        }
        let own = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        let own = own.trim_start_matches("r#");
        let renamed = container.rename_all.map_or(own.to_owned(), |rule| rule.field(own));
        let Declared { optional, shape } = Declared::parse(&field.ty)?;
        let limits = attributes::limits(&field.attrs)?;
        let default = container.default || member.default;
        for limit in &limits {
            fits(limit, &shape, default)?;
        }
        in_order(&limits)?;
        Ok(Some(Self {
            name: member.rename.unwrap_or(renamed),
            description: attributes::description(&field.attrs),
            required: !optional && !default,
            shape,
            limits,
        }))
    }

    fn write(&self, pieces: &mut Pieces<'t>) {
        pieces.text(&format!("{}:{{", json_string(&self.name)));
        if let Some(description) = &self.description {
            pieces.text(&format!(r#""description":{},"#, json_string(description)));
        }
        pieces.shape(&self.shape, &self.limits);
        if !matches!(self.shape, Shape::List(_)) {
            pieces.limits(&self.limits, Scope::Value);
        }
        pieces.limits(&self.limits, Scope::List);
        pieces.limits(&self.limits, Scope::Key);
        pieces.text("}");
    }
}

/// Refuses a limit that says nothing about values of this shape, or that the type exceeds.
fn fits(limit: &Limit, shape: &Shape<'_>, default: bool) -> Result<()> {
    let refuse = |message: &str| Err(Error::new(limit.span, message));
    match (limit.keyword, &limit.value, shape.innermost()) {
        ("default", _, _) if !default => {
            refuse("nothing applies this default: add `#[serde(default = \"…\")]`")
        }
        ("default", value, _) => match (value, shape) {
            (Value::Integer(_), Shape::Integer { .. } | Shape::Number)
            | (Value::Text(_), Shape::Text | Shape::Named(_))
            | (Value::Flag(_), Shape::Flag) => Ok(()),
            _ => refuse("this default is not a value of the field's type"),
        },
        ("minimum" | "maximum", Value::Integer(bound), Shape::Integer { least, most }) => {
            if least.is_some_and(|least| *bound < least) || most.is_some_and(|most| *bound > most) {
                return refuse("this lies outside the field's type");
            }
            Ok(())
        }
        ("minimum" | "maximum", Value::Integer(_), Shape::Number) => Ok(()),
        ("minimum" | "maximum", ..) => refuse("a whole number that limits a number"),
        ("minItems" | "maxItems", Value::Integer(0..), _) if matches!(shape, Shape::List(_)) => {
            Ok(())
        }
        ("minItems" | "maxItems", ..) => refuse("a whole number that limits a list"),
        ("pattern", Value::Text(_), Shape::Text) => Ok(()),
        ("pattern", ..) => refuse("a regular expression that limits a text"),
        (_, Value::Integer(0..), Shape::Text) => Ok(()),
        _ => refuse("a whole number that limits the length of a text"),
    }
}

/// Refuses a least value above the greatest.
fn in_order(limits: &[Limit]) -> Result<()> {
    let bound = |keyword: &str| {
        limits.iter().find_map(|limit| match limit.value {
            Value::Integer(bound) if limit.keyword == keyword => Some((bound, limit.span)),
            _ => None,
        })
    };
    for (least, most) in
        [("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")]
    {
        if let (Some((least, _)), Some((most, span))) = (bound(least), bound(most))
            && least > most
        {
            return Err(Error::new(span, "no value lies between these two limits"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn refusal(input: &str) -> String {
        derive(input.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn refuses_what_a_schema_would_say_wrongly() {
        for (input, sentence) in [
            ("struct S(u32);", "needs named fields"),
            ("struct S<T> { a: T }", "generics"),
            ("enum E { A(u32) }", "holds values"),
            ("struct S { a: (u32, u32) }", "`Schema` knows"),
            ("struct S { a: Vec<Option<u32>> }", "cannot be left out"),
            ("struct S { a: BTreeMap<u32, u32> }", "`String` keys"),
            ("struct S { #[serde(flatten)] a: T }", "serde's `flatten`"),
            ("#[serde(untagged)] enum E { A }", "serde's `untagged`"),
            ("#[serde(rename_all = \"Train-Case\")] struct S {}", "no rule"),
            ("struct S { #[schema(minimum = 1)] a: String }", "limits a number"),
            ("struct S { #[schema(max_length = 1)] a: u32 }", "length of a text"),
            ("struct S { #[schema(max_items = 1)] a: String }", "limits a list"),
            ("struct S { #[schema(pattern = 1)] a: String }", "regular expression"),
            ("struct S { #[schema(maximum = 300)] a: u8 }", "outside the field's type"),
            ("struct S { #[schema(minimum = -1)] a: u32 }", "outside the field's type"),
            ("struct S { #[schema(minimum = 9, maximum = 1)] a: u32 }", "between these two"),
            ("struct S { #[schema(default = 3)] a: u32 }", "nothing applies"),
            ("struct S { #[serde(default)] #[schema(default = \"x\")] a: u32 }", "not a value"),
            ("struct S { #[schema(maximal = 3)] a: u32 }", "`maximal` is no limit"),
            ("struct S { #[schema(maximum = 3, maximum = 4)] a: u32 }", "twice"),
        ] {
            let found = refusal(input);
            assert!(found.contains(sentence), "{input}: {found}");
        }
    }
}
