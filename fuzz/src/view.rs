//! What a plugin sees of an answer: any bytes that a service may send, with secrets anywhere in
//! them. The view is held against other parsers than the door's own.

use std::sync::Arc;

use clavigerd::egress::http::{Grants, GuestResponse, Incoming, Policy};
use clavigerd::egress::redact::Redactor;
use serde_json::Value;

/// Reads `data` as an answer: its first byte chooses JSON or XML, and bytes 1 to 7 stand for the
/// known secret in its encodings.
pub fn run(data: &[u8]) {
    let Some((format, rest)) = data.split_first() else { return };
    let json = format % 2 == 0;
    let body = with_secrets(rest);
    let response = response(json, &body);
    let redactor = redactor();
    let view = response.body(&redactor);
    for form in forms() {
        assert!(!view.contains(&form), "{form} in the view of {}", body.escape_ascii());
    }
    for location in READS.iter().map(|read| read.replace('*', "0")) {
        let read = response.read(&location, &redactor).ok().flatten().unwrap_or_default();
        assert!(
            forms().iter().all(|form| !read.contains(form.as_str())),
            "{location} shows {read}"
        );
    }
    if json {
        hidden_in_json(&body, &view, &redactor);
    } else {
        hidden_in_xml(&body, &view, &redactor);
    }
}

/// Takes what stands at a place of an answer: up to a NUL the place, then the answer.
pub fn extract(data: &[u8]) {
    let Some((format, rest)) = data.split_first() else { return };
    let json = format % 2 == 0;
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let (Some(location), Some(body)) = (parts.next(), parts.next()) else { return };
    let Ok(location) = std::str::from_utf8(location) else { return };
    let response = response(json, body);
    let Ok(taken) = response.take(location) else { return };
    assert!(!taken.is_empty(), "nothing was taken as a secret");
    let expect = if json { at_pointer(body, location) } else { at_path(body, location) };
    assert_eq!(Some(taken.as_str()), expect.as_deref(), "{location} is another place");
    // What is taken is never seen again, wherever it stands.
    let mut redactor = redactor();
    redactor.learn(Arc::clone(&taken));
    let read = response.read("/id", &redactor).ok().flatten().unwrap_or_default();
    assert!(taken.len() < 4 || !read.contains(taken.as_str()), "{read} holds what was taken");
}

/// Every value that is not granted is `[hidden]`, every other one is itself, redacted.
fn hidden_in_json(body: &[u8], view: &str, redactor: &Redactor) {
    let Ok(original) = serde_json::from_slice::<Value>(body) else {
        assert!(view.is_empty() || view == HIDDEN, "{view} is a view of what is no JSON");
        return;
    };
    if view == HIDDEN {
        // Ambiguous, or deeper than any service nests: hidden whole.
        return;
    }
    let seen = serde_json::from_str(view).expect("the view of JSON is JSON");
    same_json(&original, &seen, (&mut Vec::new(), redactor));
}

fn same_json(original: &Value, seen: &Value, (steps, redactor): (&mut Vec<String>, &Redactor)) {
    match (original, seen) {
        (Value::Object(original), Value::Object(seen)) => {
            // Two names may be redacted to the same one; then a reader keeps one of them.
            for (name, value) in original {
                let shown = redactor.clean_value(name);
                let clean = shown == *name;
                steps.push(name.clone());
                let found = seen.get(&shown).expect("every name is in the view");
                if clean {
                    same_json(value, found, (steps, redactor));
                }
                steps.pop();
            }
        }
        (Value::Array(original), Value::Array(seen)) => {
            assert_eq!(original.len(), seen.len());
            for (index, (value, found)) in original.iter().zip(seen).enumerate() {
                steps.push(index.to_string());
                same_json(value, found, (steps, redactor));
                steps.pop();
            }
        }
        (scalar, seen) if !granted(steps) => assert_eq!(seen, HIDDEN, "{steps:?} was {scalar}"),
        (Value::String(text), seen) => assert_eq!(*seen, redactor.clean_value(text).as_str()),
        (scalar, seen) => {
            let text = scalar.to_string();
            let clean = redactor.clean_value(&text);
            assert!(*seen == *scalar || *seen == clean.as_str(), "{steps:?}: {text} became {seen}");
        }
    }
}

fn hidden_in_xml(body: &[u8], view: &str, redactor: &Redactor) {
    let text = std::str::from_utf8(body).ok();
    let Some(original) = text.and_then(|text| roxmltree::Document::parse(text).ok()) else {
        assert!(view.is_empty() || view == HIDDEN, "{view} is a view of what is no XML");
        return;
    };
    // A name that held a secret is none any more.
    if view == HIDDEN || tags(view).any(|tag| tag.contains(REDACTED)) {
        return;
    }
    let seen = roxmltree::Document::parse(view).expect("the view of XML is XML");
    same_xml(original.root_element(), seen.root_element(), (&mut Vec::new(), redactor));
}

fn same_xml(
    original: roxmltree::Node<'_, '_>,
    seen: roxmltree::Node<'_, '_>,
    (steps, redactor): (&mut Vec<String>, &Redactor),
) {
    let name = original.tag_name().name();
    assert_eq!(name, seen.tag_name().name());
    assert_eq!(seen.attributes().count(), 0, "attributes have no place, and so are not seen");
    steps.push(name.to_owned());
    let (parts, shown) = (elements(original), elements(seen));
    assert_eq!(parts.len(), shown.len());
    if parts.is_empty() {
        let expect =
            if granted(steps) { redactor.clean_value(&text(original)) } else { HIDDEN.to_owned() };
        assert_eq!(text(seen), expect, "{steps:?}");
    }
    for (part, shown) in parts.into_iter().zip(shown) {
        same_xml(part, shown, (steps, redactor));
    }
    steps.pop();
}

fn tags(view: &str) -> impl Iterator<Item = &str> {
    view.split('<').skip(1).filter_map(|after| after.split('>').next())
}

fn elements<'a, 'input>(node: roxmltree::Node<'a, 'input>) -> Vec<roxmltree::Node<'a, 'input>> {
    node.children().filter(roxmltree::Node::is_element).collect()
}

fn text(node: roxmltree::Node<'_, '_>) -> String {
    node.children().filter(roxmltree::Node::is_text).filter_map(|text| text.text()).collect()
}

fn granted(steps: &[String]) -> bool {
    READS.iter().any(|read| {
        let pattern: Vec<_> = read.split('/').skip(1).collect();
        pattern.len() == steps.len()
            && pattern.iter().zip(steps).all(|(wanted, step)| *wanted == "*" || wanted == step)
    })
}

fn at_pointer(body: &[u8], location: &str) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    Some(match value.pointer(location)? {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

fn at_path(body: &[u8], location: &str) -> Option<String> {
    let document = roxmltree::Document::parse(std::str::from_utf8(body).ok()?).ok()?;
    let mut found = vec![document.root()];
    for step in location.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        let named = |part: &roxmltree::Node<'_, '_>| part.tag_name().name() == step;
        found = found.into_iter().flat_map(elements).filter(named).collect();
    }
    let [one] = found.as_slice() else { return None };
    Some(text(*one))
}

fn response(json: bool, body: &[u8]) -> GuestResponse {
    let reads: Vec<_> = READS.iter().map(ToString::to_string).collect();
    let grants = Grants { methods: &[], paths: &[], reads: &reads };
    let policy = Policy::meet(grants, grants).expect("these grants are sound");
    let mut headers = http::HeaderMap::new();
    let content_type = if json { "application/json" } else { "application/xml" };
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    let incoming = Incoming { status: http::StatusCode::OK, headers, body: body.to_vec().into() };
    GuestResponse::new(&incoming, Arc::new(policy))
}

fn redactor() -> Redactor {
    Redactor::new([Arc::new(SECRET.to_owned().into())])
}

/// `bytes` with the secret in the place of each byte from 1 to 7.
fn with_secrets(bytes: &[u8]) -> Vec<u8> {
    let forms = forms();
    let mut body = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match usize::from(*byte).checked_sub(1).and_then(|form| forms.get(form)) {
            Some(form) => body.extend_from_slice(form.as_bytes()),
            None => body.push(*byte),
        }
    }
    body
}

/// The secret, and what encodings make of it. Those in base64 are what is sure to stand there when
/// it begins at one of three places in a longer text.
fn forms() -> [String; 7] {
    let secret = SECRET.as_bytes();
    let base64 = |shift: usize| {
        let mut bytes = vec![b'x'; shift];
        bytes.extend_from_slice(secret);
        let text = data_encoding::BASE64.encode(&bytes);
        let digits = text.get((shift * 8).div_ceil(6)..bytes.len() * 8 / 6).expect("digits");
        digits.to_owned()
    };
    [
        SECRET.to_owned(),
        data_encoding::HEXLOWER.encode(secret),
        base64(0),
        base64(1),
        base64(2),
        secret.iter().map(|byte| format!("%{byte:02X}")).collect(),
        SECRET.to_uppercase(),
    ]
}

const HIDDEN: &str = "[hidden]";
const REDACTED: &str = "[redacted]";
const SECRET: &str = "root/S3CRET+0123456789";
const READS: [&str; 4] = ["/id", "/items/*/name", "/Answer/Result/Expiration", "/Answer/Id"];
