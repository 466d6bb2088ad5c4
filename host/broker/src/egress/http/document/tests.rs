//! What a guest sees of documents, as tables.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::egress::http::location::Pattern;

fn read(content_type: &str, body: &str) -> Document {
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
    }
    Document::read(&headers, body.as_bytes())
}

fn shown(document: &Document, reads: &[&str]) -> String {
    let reads: Vec<_> = reads.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    document.render(
        |steps, text| reads.iter().any(|read| read.grants(steps)).then(|| text.to_owned()),
        str::to_owned,
    )
}

#[test]
fn every_scalar_is_hidden_unless_it_is_granted() {
    for (content_type, body, reads, expect) in [
        (
            "application/json",
            r#"{"a":1,"b":[true,null,"x"]}"#,
            &[][..],
            r#"{"a":"[hidden]","b":["[hidden]","[hidden]","[hidden]"]}"#,
        ),
        (
            "application/json",
            r#"{"a":1,"b":[true,null,"x\""]}"#,
            &["/a", "/b/*"],
            r#"{"a":1,"b":[true,null,"x\""]}"#,
        ),
        (
            "application/json",
            r#"{"a":{"id":"i","t":"s"}}"#,
            &["/*/id"],
            r#"{"a":{"id":"i","t":"[hidden]"}}"#,
        ),
        ("application/json", r#"{"a":{"id":"i"}}"#, &["/a"], r#"{"a":{"id":"[hidden]"}}"#),
        ("application/problem+json; charset=utf-8", "{}", &[], "{}"),
        ("APPLICATION/JSON", "[]", &[], "[]"),
        ("application/json", r#""secret""#, &[], r#""[hidden]""#),
        ("application/json", r#""id""#, &[""], r#""id""#),
        ("application/json", r#"{"a":1} x"#, &["/a"], "[hidden]"),
        ("application/json", r#"{"a":1,"a":2}"#, &["/a"], "[hidden]"),
        ("application/json", r#"{"a":1,"\u0061":2}"#, &["/a"], "[hidden]"),
        ("application/json", "<a>1</a>", &["/a"], "[hidden]"),
        (
            "text/xml",
            r#"<a x="s">t<b>1</b><b/><c><!-- s --></c></a>"#,
            &["/a/b"],
            "<a><b>1</b><b></b><c>[hidden]</c></a>",
        ),
        (
            "application/atom+xml",
            r#"<n:a xmlns:n="urn:x"><n:b>&lt;1</n:b></n:a>"#,
            &["/a/b"],
            "<a><b>&lt;1</b></a>",
        ),
        ("text/xml", "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", &["/a"], "[hidden]"),
        ("text/xml", r#"{"a":1}"#, &["/a"], "[hidden]"),
        ("text/plain", r#"{"a":1}"#, &["/a"], "[hidden]"),
        ("text/html", "<a>1</a>", &["/a"], "[hidden]"),
        ("", r#"{"a":1}"#, &["/a"], "[hidden]"),
        ("application/jsonp", r#"{"a":1}"#, &["/a"], "[hidden]"),
        ("", "", &[], ""),
        ("application/json", "", &[], ""),
    ] {
        assert_eq!(shown(&read(content_type, body), reads), expect, "{content_type} {body}");
    }
}

#[test]
fn a_location_names_exactly_one_scalar() {
    let json = r#"{"a":{"b/c":[10,"x"]},"n":null,"t":true,"f":1.5,"e":""}"#;
    let xml = "<a><one>1</one><two>2</two><two>3</two><in><x>4</x></in></a>";
    for (content_type, body, location, expect) in [
        ("application/json", json, "/a/b~1c/0", "=10"),
        ("application/json", json, "/a/b~1c/1", "=x"),
        ("application/json", json, "/a/b~1c/01", "nothing"),
        ("application/json", json, "/a/b~1c/2", "nothing"),
        ("application/json", json, "/a/b~1c/-", "nothing"),
        ("application/json", json, "/a/b~1c", "several"),
        ("application/json", json, "", "several"),
        ("application/json", json, "/n", "nothing"),
        ("application/json", json, "/n/x", "nothing"),
        ("application/json", json, "/t", "=true"),
        ("application/json", json, "/f", "=1.5"),
        ("application/json", json, "/e", "="),
        ("text/xml", xml, "/a/one", "=1"),
        ("text/xml", xml, "/a/two", "several"),
        ("text/xml", xml, "/a/in", "several"),
        ("text/xml", xml, "/a/in/x", "=4"),
        ("text/xml", xml, "/b/one", "nothing"),
        ("text/plain", "x", "", "unreadable"),
        ("application/json", "", "/a", "nothing"),
    ] {
        let document = read(content_type, body);
        let found = match document.find(&Location::parse(location).unwrap()) {
            None => "unreadable".to_owned(),
            Some(Found::Nothing) => "nothing".to_owned(),
            Some(Found::Several) => "several".to_owned(),
            Some(Found::One(text)) => format!("={}", text.as_str()),
        };
        assert_eq!(found, expect, "{location}");
    }
}

#[test]
fn what_is_too_deep_or_too_much_is_hidden() {
    let nested = |open: &str, close: &str, depth: usize| open.repeat(depth) + &close.repeat(depth);
    for (content_type, body) in [
        ("application/json", nested("[", "]", 100)),
        ("application/json", nested("[", "]", 100_000)),
        ("application/json", nested("{\"a\":", "}", 100)),
        ("text/xml", nested("<a>", "</a>", 100)),
        ("text/xml", nested("<a>", "</a>", 30_000)),
        ("text/xml", format!("<r>{}</r>", "<a/>".repeat(60_000))),
    ] {
        assert_eq!(shown(&read(content_type, &body), &[]), HIDDEN, "{}", &body[..20]);
    }
    assert!(shown(&read("application/json", &nested("[", "]", 60)), &[]).starts_with("[["));
}
