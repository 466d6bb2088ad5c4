//! The macros of `claviger-plugin-sdk`: a schema from a Rust type, and a manifest that was checked
//! before the plugin was built. Nothing here runs inside a plugin.

mod attributes;
mod manifest;
mod naming;
mod schema;
mod shape;

use proc_macro::TokenStream;

/// Writes the JSON Schema (2020-12) of a struct or of an enum of plain words.
///
/// Doc comments become descriptions. What is an `Option` or has `#[serde(default)]` may be left
/// out, the rest is required, and unknown keys are refused. Names are serde's: `rename` and
/// `rename_all` count. Limits stand in `#[schema(…)]`: `minimum`, `maximum`, `min_length`,
/// `max_length`, `pattern`, `min_items`, `max_items` and `default`, which is documentation only
/// and needs a `#[serde(default…)]` that does it. In a list, limits are those of its items.
///
/// What JSON Schema cannot say of the type is a compile error and not a schema that lies.
#[proc_macro_derive(Schema, attributes(schema))]
pub fn derive_schema(input: TokenStream) -> TokenStream {
    schema::derive(input.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// The bytes of a plugin's manifest: the file beside its `Cargo.toml`, checked, with the schemas
/// of the provider's types where the file has none. `export!` calls it.
#[proc_macro]
pub fn manifest(input: TokenStream) -> TokenStream {
    manifest::embed(input.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}
