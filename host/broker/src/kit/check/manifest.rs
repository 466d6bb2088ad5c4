//! What a reviewer would object to in a manifest that parses: empty words, schemas that check
//! nothing, connections that say too little.

use serde_json::Value;

use super::Finding;
use crate::plugin::{ConnectionKind, ConnectionRequest, Manifest};

/// Everything that is wrong with a manifest.
pub fn findings(manifest: &Manifest) -> Vec<Finding> {
    let mut findings = identity(manifest);
    findings.extend(schema("settings-schema", &manifest.settings_schema));
    findings.extend(schema("parameters-schema", &manifest.parameters_schema));
    findings.extend(credential(manifest));
    for (name, request) in &manifest.connections {
        findings.extend(connection(name.as_str(), request));
    }
    findings.extend(life(manifest));
    let mute = manifest.join_keys.iter().filter(|(_, place)| place.trim().is_empty());
    findings.extend(mute.map(|(name, _)| {
        let problem = format!("join key `{name}` does not say where the upstream logs it");
        object(problem, "name the place, such as `user= in log_line_prefix`")
    }));
    findings
}

fn object(problem: impl Into<String>, remedy: &str) -> Finding {
    Finding::new("manifest", problem, remedy)
}

fn identity(manifest: &Manifest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let dotted = |id: &str| {
        id.contains('.')
            && id.split('.').all(|part| {
                let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                !part.is_empty() && part.chars().all(known)
            })
    };
    if !dotted(&manifest.id) {
        let problem = format!("`id` is `{}`", manifest.id);
        findings
            .push(object(problem, "write a dotted name in lower case, such as `example.tokens`"));
    }
    let mut numbers = manifest.version.split(['-', '+']).next().unwrap_or_default().split('.');
    let number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    if !(number(numbers.next()) && number(numbers.next()) && number(numbers.next())) {
        let problem = format!("`version` is `{}`", manifest.version);
        findings.push(object(problem, "write a semantic version, such as `0.1.0`"));
    }
    let title = manifest.title.chars().count();
    if title == 0 || title > TITLE_CHARS_MAX || manifest.title.contains('\n') {
        let problem = format!("`title` has {title} characters");
        findings.push(object(problem, "write one line of at most 100 characters"));
    }
    findings
}

fn schema(which: &'static str, schema: &Value) -> Vec<Finding> {
    if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
        let problem = format!("`{which}` is no JSON Schema 2020-12: {error}");
        return vec![object(problem, "mend the schema, or derive it with `#[derive(Schema)]`")];
    }
    let mut findings = Vec::new();
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        let problem = format!("`{which}` does not say `\"type\": \"object\"`");
        findings.push(object(problem, "the broker checks a JSON object against it"));
    }
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        let problem = format!("`{which}` allows keys that it does not name");
        findings.push(object(
            problem,
            "write `\"additionalProperties\": false`: it finds typing errors",
        ));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        if property.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
            let problem = format!("`{which}` does not describe `{name}`");
            findings.push(object(problem, "say what it does: operators see nothing else of it"));
        }
    }
    findings
}

fn credential(manifest: &Manifest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let fields = &manifest.credential.fields;
    if !fields.iter().any(|(_, field)| field.secret) {
        let remedy = "mark what must not be seen with `\"secret\": true` and set it with \
                      `set-secret`; plain fields are logged and shown";
        findings.push(object("no field of the credential is secret", remedy));
    }
    for (name, field) in fields {
        let Some(env) = &field.env else { continue };
        let known = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if env.is_empty() || !env.chars().all(known) || env.starts_with("CLAVIGER_") {
            let problem = format!("field `{name}` names the variable `{env}`");
            findings
                .push(object(problem, "write the upper-case name under which clients look for it"));
        }
    }
    findings
}

fn connection(name: &str, request: &ConnectionRequest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wrong = |problem: &str, remedy: &str| {
        findings.push(object(format!("connection `{name}` {problem}"), remedy));
    };
    if request.why.trim().is_empty() {
        wrong(
            "does not say why it is needed",
            "write what for: the operator reads it and grants it",
        );
    }
    match request.kind {
        ConnectionKind::Sql => {
            if request.dialects.is_empty() || request.auth.is_empty() {
                wrong(
                    "lists no `dialects` or no `auth`",
                    "list those that the plugin was tested with",
                );
            }
        }
        ConnectionKind::Http => {
            if request.methods.is_empty() || request.paths.is_empty() || request.auth.is_empty() {
                wrong(
                    "lists no `methods`, `paths` or `auth`",
                    "list the ones that it uses and no others",
                );
            }
            if request.paths.iter().any(|path| path == "/") {
                wrong("asks for every path", "name what its paths begin with");
            }
            if request.reads.iter().any(|location| location == "/*" || location == "*") {
                wrong("asks to read whatever an answer holds", "name the parts that it reads");
            }
        }
        ConnectionKind::Jwt => {}
    }
    findings
}

fn life(manifest: &Manifest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let least = manifest.ttl.min_secs;
    if least == 0 || least > TTL_MIN_SECS_MAX {
        let problem = format!("`ttl.min-secs` is {least}");
        findings
            .push(object(problem, "write the shortest life that the upstream gives: 1 to 43200"));
    }
    if manifest.orphan_ttl_secs_max.is_some_and(|most| most < least) {
        findings.push(object(
            "`orphan-ttl-secs-max` lies below `ttl.min-secs`, so that nothing could be issued",
            "raise it, or tag what is made upstream with the intent and write `null`",
        ));
    }
    findings
}

/// One line on a terminal.
const TITLE_CHARS_MAX: usize = 100;

/// The longest session: what lives longer can never be issued.
const TTL_MIN_SECS_MAX: u64 = 12 * 60 * 60;
