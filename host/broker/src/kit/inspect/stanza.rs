//! The piece of `claviger.toml` that would grant a plugin all that it asks for. Values that only
//! the operator knows are examples.

use std::fmt::Write;

use serde_json::Value;

use crate::plugin::{Auth, ConnectionKind, ConnectionRequest, Dialect, Manifest};

/// The stanza for a plugin at `path` with this digest.
pub fn of(manifest: &Manifest, path: &str, sha256: &str) -> String {
    let name = manifest.id.rsplit('.').next().unwrap_or("plugin");
    let backend = format!("my-{name}");
    let mut text =
        format!("[plugins.{name}]\npath = {}\nsha256 = \"{sha256}\"\n", Value::from(path));
    let _always = write!(text, "\n[backends.{backend}]\nplugin = \"{name}\"\n");
    let settings = keys(&manifest.settings_schema);
    if !settings.is_empty() {
        let optional = settings.lines().all(|line| line.starts_with('#'));
        let mark = if optional { "# " } else { "" };
        let _always = write!(text, "{mark}[backends.{backend}.settings]\n{settings}");
    }
    for (connection, request) in &manifest.connections {
        let head = format!("[backends.{backend}.connections.{connection}]\n");
        let mark = if request.optional { "# " } else { "" };
        text.push('\n');
        for line in format!("{head}{}", binding(request, &backend)).lines() {
            let _always = writeln!(text, "{mark}{line}");
        }
    }
    let _always = write!(
        text,
        "\n[backends.{backend}.scopes.example]\nauthorization = \"{name}.use\"\nmax_ttl = \"30m\"\n{}",
        keys(&manifest.parameters_schema)
    );
    text
}

fn binding(request: &ConnectionRequest, backend: &str) -> String {
    match request.kind {
        ConnectionKind::Sql => {
            let address = match request.dialects.first() {
                Some(Dialect::Mysql) => "mysql://db.internal:3306/database?sslmode=verify-full",
                Some(Dialect::Postgres) | None => {
                    "postgres://db.internal:5432/database?sslmode=verify-full"
                }
            };
            format!("address = \"{address}\"\n{}", auth(Auth::Password, backend))
        }
        ConnectionKind::Http => {
            let scheme = request.auth.first().copied().unwrap_or(Auth::None);
            let lists = [
                ("methods", &request.methods),
                ("paths", &request.paths),
                ("reads", &request.reads),
            ];
            let mut text = format!("address = \"https://api.internal\"\n{}", auth(scheme, backend));
            for (name, values) in lists.into_iter().filter(|(_, values)| !values.is_empty()) {
                let _always = writeln!(text, "{name} = {}", Value::from(values.clone()));
            }
            text.push_str(
                "# reach = [\"private\"]    # if the address is in a network of your own\n",
            );
            text
        }
        ConnectionKind::Jwt => "audiences = [\"https://api.example\"]\n".to_owned(),
    }
}

fn auth(scheme: Auth, backend: &str) -> String {
    let file = format!("file:/run/secrets/{backend}");
    let value = match scheme {
        Auth::None => "{ none = {} }".to_owned(),
        Auth::Password => {
            format!("{{ password = {{ user = \"claviger\", password = \"{file}\" }} }}")
        }
        Auth::Bearer => format!("{{ bearer = {{ token = \"{file}\" }} }}"),
        Auth::Basic => format!("{{ basic = {{ user = \"claviger\", password = \"{file}\" }} }}"),
        Auth::Header => format!("{{ header = {{ name = \"x-api-key\", value = \"{file}\" }} }}"),
        Auth::Sigv4 => format!(
            "{{ sigv4 = {{ access_key_id = \"{file}-id\", secret_access_key = \"{file}\", \
             region = \"eu-central-1\", service = \"sts\" }} }}"
        ),
        Auth::OAuth2ClientCredentials => format!(
            "{{ oauth2-client-credentials = {{ token_url = \"https://login.internal/token\", \
             client_id = \"claviger\", client_secret = \"{file}\" }} }}"
        ),
        Auth::TokenExchange => {
            "{ token-exchange = { token_url = \"https://login.internal/token\", \
                                subject_audience = \"https://login.internal\" } }"
                .to_owned()
        }
        Auth::GoogleServiceAccount => format!(
            "{{ google-service-account = {{ key = \"{file}\", \
             scopes = [\"https://www.googleapis.com/auth/cloud-platform\"] }} }}"
        ),
        Auth::WebIdentity => {
            "{ web-identity = { audience = \"https://api.internal\" } }".to_owned()
        }
        Auth::Mtls => format!("{{ mtls = {{ certificate = \"client.pem\", key = \"{file}\" }} }}"),
    };
    format!("auth = {value}\n")
}

/// The keys of an object schema, those that are required first; the others as comments.
fn keys(schema: &Value) -> String {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let mut text = String::new();
    let properties = schema.get("properties").and_then(Value::as_object);
    let (wanted, others): (Vec<_>, Vec<_>) =
        properties.into_iter().flatten().partition(|(name, _)| required.contains(&name.as_str()));
    for ((name, property), mark) in
        wanted.into_iter().map(|key| (key, "")).chain(others.into_iter().map(|key| (key, "# ")))
    {
        let said = property.get("description").and_then(Value::as_str).unwrap_or_default();
        let said = said.lines().next().unwrap_or_default();
        let _always = writeln!(text, "# {said}\n{mark}{name} = {}", example(property));
    }
    text
}

fn example(property: &Value) -> Value {
    let kept = property.get("default").or_else(|| property.pointer("/enum/0"));
    if let Some(value) = kept {
        return value.clone();
    }
    match property.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => property.get("minimum").cloned().unwrap_or_else(|| 1.into()),
        Some("boolean") => false.into(),
        Some("array") => Value::Array(vec![example(property.get("items").unwrap_or(&Value::Null))]),
        _ => "…".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn required_keys_stand_first_and_the_others_are_comments() {
        let schema = json!({
            "required": ["group"],
            "properties": {
                "count": {"type": "integer", "default": 3, "description": "How many."},
                "group": {"type": "string", "description": "Which."},
                "tags": {"type": "array", "items": {"enum": ["a"]}, "description": "Some."},
            },
        });
        let expect =
            "# Which.\ngroup = \"…\"\n# How many.\n# count = 3\n# Some.\n# tags = [\"a\"]\n";
        assert_eq!(keys(&schema), expect);
    }
}
