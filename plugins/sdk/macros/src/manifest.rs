//! Checks a plugin's manifest while the plugin is built, and puts the schemas of its types into it.
//! The host checks again what it loads: this only tells the author earlier.

use std::fmt;
use std::path::{Path, PathBuf};

use proc_macro2::TokenStream;
use quote::quote;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use syn::parse::{Parse, ParseStream};
use syn::{Error, LitStr, Result, Token, Type};

/// An expression for the bytes of the manifest that `input` names, as `Provider, "file"`.
pub fn embed(input: TokenStream) -> Result<TokenStream> {
    let Input { provider, path } = syn::parse2(input)?;
    let refuse = |problem: String| Error::new(path.span(), problem);
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let file = folder.join(path.value());
    let text = std::fs::read_to_string(&file)
        .map_err(|error| refuse(format!("`{}` cannot be read: {error}", path.value())))?;
    let missing = missing_schemas(&text)
        .map_err(|problem| refuse(format!("{}:{problem}", shown(&file, &folder))))?;
    let body = text.trim_end().trim_end_matches('}').trim_end();
    let parts = missing.iter().map(|schema| schema.tokens(&provider));
    let file = file.display().to_string();
    Ok(quote! {{
        // Makes the compiler look at the file again when it has changed.
        const _: &[u8] = ::core::include_bytes!(#file);
        const PARTS: &[&str] = &[#body, #(#parts,)* "}\n"];
        const BYTES: [u8; ::claviger_plugin_sdk::guest::length(PARTS)] =
            ::claviger_plugin_sdk::guest::joined(PARTS);
        &BYTES
    }})
}

struct Input {
    provider: Type,
    path: LitStr,
}

impl Parse for Input {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let provider = input.parse()?;
        input.parse::<Token![,]>()?;
        Ok(Self { provider, path: input.parse()? })
    }
}

/// A schema that the manifest leaves to the provider's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Schema {
    Settings,
    Parameters,
}

impl Schema {
    fn tokens(self, provider: &Type) -> TokenStream {
        let (key, part) = match self {
            Self::Settings => ("settings-schema", quote!(Settings)),
            Self::Parameters => ("parameters-schema", quote!(Parameters)),
        };
        let before = format!(",\n  \"{key}\": {{\"$schema\":\"{DIALECT}\",");
        quote! {
            #before,
            <<#provider as ::claviger_plugin_sdk::Provider>::#part
                as ::claviger_plugin_sdk::Schema>::KEYWORDS,
            "}"
        }
    }
}

fn shown(file: &Path, folder: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).display().to_string()
}

/// Which schemas the manifest leaves out, or what is wrong with it and where, as `line: problem`.
fn missing_schemas(text: &str) -> std::result::Result<Vec<Schema>, String> {
    let manifest: Manifest = serde_json::from_str(text)
        .map_err(|error| format!("{}:{}: {error}", error.line(), error.column()))?;
    manifest.sensible().map_err(|(key, problem)| format!("{}: {problem}", line_of(text, &key)))?;
    let given = [manifest.settings_schema.is_some(), manifest.parameters_schema.is_some()];
    let missing = [Schema::Settings, Schema::Parameters].into_iter().zip(given);
    Ok(missing.filter(|(_, given)| !given).map(|(schema, _)| schema).collect())
}

fn line_of(text: &str, key: &str) -> usize {
    let key = serde_json::Value::from(key).to_string();
    let before = text.find(&key).and_then(|at| text.get(..at)).unwrap_or_default();
    before.matches('\n').count() + 1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Manifest {
    id: String,
    version: String,
    abi: String,
    title: String,
    settings_schema: Option<serde_json::Map<String, serde_json::Value>>,
    parameters_schema: Option<serde_json::Map<String, serde_json::Value>>,
    credential: Credential,
    #[serde(default)]
    connections: Entries<Connection>,
    #[serde(rename = "revocation")]
    _revocation: Revocation,
    #[serde(rename = "ttl")]
    _ttl: Ttl,
    #[serde(default, rename = "orphan-ttl-secs-max")]
    _orphan_ttl_secs_max: Option<u64>,
    #[serde(default)]
    join_keys: Entries<String>,
    #[serde(default, rename = "limits-class")]
    _limits_class: Option<LimitsClass>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    kind: String,
    fields: Entries<Field>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    #[serde(default, rename = "secret")]
    _secret: bool,
    #[serde(default)]
    env: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connection {
    kind: Kind,
    #[serde(default)]
    dialects: Vec<Dialect>,
    #[serde(default)]
    auth: Vec<Auth>,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    reads: Vec<String>,
    why: String,
    #[serde(default, rename = "optional")]
    _optional: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Sql,
    Http,
    Jwt,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Dialect {
    Postgres,
    Mysql,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Auth {
    None,
    Password,
    Bearer,
    Basic,
    Header,
    Sigv4,
    #[serde(rename = "oauth2-client-credentials")]
    OAuth2ClientCredentials,
    TokenExchange,
    GoogleServiceAccount,
    WebIdentity,
    Mtls,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Revocation {
    #[serde(rename = "class")]
    _class: Class,
    #[serde(rename = "residual-exposure-secs")]
    _residual_exposure_secs: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Class {
    Revocable,
    DenyByPolicy,
    ExpireOnly,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Ttl {
    #[serde(rename = "min-secs")]
    _min_secs: u64,
    #[serde(default, rename = "enforced-by")]
    _enforced_by: Enforcer,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Enforcer {
    #[default]
    Upstream,
    Broker,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LimitsClass {
    Standard,
    Interpreted,
}

/// The key that is wrong, and why.
type Problem = (String, String);

impl Manifest {
    fn sensible(&self) -> std::result::Result<(), Problem> {
        let refuse = |key: &str, problem: String| Err((key.to_owned(), problem));
        if self.abi != ABI {
            return refuse("abi", format!("this SDK makes plugins for `{ABI}`"));
        }
        let texts = [
            ("id", &self.id),
            ("version", &self.version),
            ("title", &self.title),
            ("kind", &self.credential.kind),
        ];
        if let Some((key, _)) = texts.iter().find(|(_, text)| text.trim().is_empty()) {
            return refuse(key, format!("`{key}` is empty"));
        }
        if self.credential.fields.0.is_empty() {
            return refuse("fields", "a credential has at least one field".to_owned());
        }
        at_most("fields", self.credential.fields.0.len(), FIELDS_MAX)?;
        at_most("join-keys", self.join_keys.0.len(), JOIN_KEYS_MAX)?;
        for (name, field) in &self.credential.fields.0 {
            if let Some(env) = &field.env
                && (env.is_empty() || env.contains(['=', ' ', '\0']))
            {
                return refuse(name, format!("`{env}` cannot be the name of a variable"));
            }
        }
        for (name, connection) in &self.connections.0 {
            connection.sensible().map_err(|problem| (name.clone(), problem))?;
        }
        Ok(())
    }
}

impl Connection {
    fn sensible(&self) -> std::result::Result<(), String> {
        let http = !(self.methods.is_empty() && self.paths.is_empty() && self.reads.is_empty());
        let wrong = match self.kind {
            _ if self.why.trim().is_empty() => "say under `why` what it is for: operators read it",
            Kind::Sql if self.dialects.is_empty() => "an SQL connection lists its `dialects`",
            Kind::Sql if self.auth.is_empty() => "an SQL connection lists how it logs in: `auth`",
            Kind::Http if self.methods.is_empty() => "an HTTP connection lists its `methods`",
            Kind::Http if self.paths.is_empty() => "an HTTP connection lists its `paths`",
            Kind::Http if self.auth.is_empty() => "an HTTP connection lists its `auth` schemes",
            Kind::Sql | Kind::Jwt if http => "`methods`, `paths` and `reads` are for kind `http`",
            Kind::Http | Kind::Jwt if !self.dialects.is_empty() => "`dialects` are for kind `sql`",
            _ => return Ok(()),
        };
        Err(wrong.to_owned())
    }
}

fn at_most(key: &str, count: usize, most: usize) -> std::result::Result<(), Problem> {
    if count > most {
        return Err((key.to_owned(), format!("{count} are too many: a lease holds {most}")));
    }
    Ok(())
}

/// An object's entries; a key that stands twice is refused.
struct Entries<T>(Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Each<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, T)> = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if entries.iter().any(|(known, _)| *known == key) {
                        map.next_value::<IgnoredAny>()?;
                        return Err(A::Error::custom(format!("`{key}` is listed twice")));
                    }
                    entries.push((key, map.next_value()?));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Each(std::marker::PhantomData))
    }
}

/// The contract that the SDK's bindings are made of. The host has the same in `manifest.rs`.
const ABI: &str = "claviger:provider@0.1.0";

/// What schemas are written in.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Documented in the plugin contract.
const FIELDS_MAX: usize = 16;

/// Documented in the plugin contract.
const JOIN_KEYS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const GOOD: &str = r#"{
  "id": "example.x", "version": "0.1.0", "abi": "claviger:provider@0.1.0", "title": "t",
  "credential": { "kind": "k", "fields": { "user": {}, "password": { "secret": true } } },
  "connections": {
    "admin": { "kind": "sql", "dialects": ["postgres"], "auth": ["password"], "why": "w" }
  },
  "revocation": { "class": "revocable", "residual-exposure-secs": 0 },
  "ttl": { "min-secs": 1 }
}"#;

    #[test]
    fn takes_the_schemas_that_the_file_leaves_out() {
        assert_eq!(missing_schemas(GOOD), Ok(vec![Schema::Settings, Schema::Parameters]));
        let own = GOOD.replacen('{', "{ \"parameters-schema\": { \"type\": \"object\" },", 1);
        assert_eq!(missing_schemas(&own), Ok(vec![Schema::Settings]));
    }

    #[test]
    fn takes_the_word_on_who_ends_a_credential() {
        for word in ["upstream", "broker"] {
            let ttl = format!("\"min-secs\": 1, \"enforced-by\": \"{word}\"");
            assert!(missing_schemas(&GOOD.replacen("\"min-secs\": 1", &ttl, 1)).is_ok(), "{word}");
        }
    }

    #[test]
    fn says_where_and_what_is_wrong() {
        for (good, bad, place, sentence) in [
            ("\"title\": \"t\"", "\"titel\": \"t\"", "2:", "unknown field `titel`"),
            ("\"ttl\": { \"min-secs\": 1 }", "\"join-keys\": {}", "9:", "missing field `ttl`"),
            ("\"why\": \"w\" }", "\"why\": \"w\"", "", "expected"),
            ("provider@0.1.0", "provider@9.0.0", "2:", "this SDK makes plugins for"),
            ("\"kind\": \"sql\"", "\"kind\": \"smtp\"", "5:", "unknown variant `smtp`"),
            ("\"why\": \"w\"", "\"why\": \" \"", "5:", "operators read it"),
            ("[\"postgres\"]", "[]", "5:", "lists its `dialects`"),
            ("\"kind\": \"sql\"", "\"kind\": \"http\"", "5:", "lists its `methods`"),
            ("\"user\": {}", "\"password\": {}", "3:", "`password` is listed twice"),
            ("\"user\": {}", "\"user\": { \"env\": \"A B\" }", "3:", "name of a variable"),
            ("\"class\": \"revocable\"", "\"class\": \"maybe\"", "7:", "unknown variant `maybe`"),
            (
                "\"min-secs\": 1",
                "\"min-secs\": 1, \"enforced-by\": \"me\"",
                "8:",
                "unknown variant `me`",
            ),
        ] {
            let found = missing_schemas(&GOOD.replacen(good, bad, 1)).unwrap_err();
            assert!(found.starts_with(place) && found.contains(sentence), "{bad}: {found}");
        }
    }
}
