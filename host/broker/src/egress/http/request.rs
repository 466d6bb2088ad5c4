//! A request as a guest puts it together: every part encoded as it comes in, every limit kept.
//! Knows neither address nor credential.

use std::sync::Arc;

use http::{HeaderMap, Method};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::encode::{Encoding, percent};
use super::{headers, path};
use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};
use crate::issuer::guest_claims;

/// A request under construction. The first thing that is wrong is kept for `send`.
pub struct GuestRequest {
    /// The connection's name.
    pub connection: String,
    method: String,
    path: String,
    query: String,
    headers: HeaderMap,
    header_bytes: usize,
    body: Vec<Part>,
    body_bytes: usize,
    claims: Option<Claims>,
    problem: Option<Failure>,
}

/// As written, and what it says.
struct Claims {
    written: String,
    members: Map<String, Value>,
}

enum Part {
    Plain(String),
    /// What the guest put there without seeing it.
    Secret(SharedSecret),
}

/// A request in its one form, of which nothing can be read in two ways.
pub struct Canonical {
    /// The method.
    pub method: Method,
    /// The encoded path.
    pub path: String,
    /// The encoded path and query.
    pub path_and_query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
    /// What the broker's token is to say besides.
    pub claims: Option<Map<String, Value>>,
    /// All that the guest wrote itself, with a gap for each secret that it put into the body.
    pub written: Vec<u8>,
}

impl GuestRequest {
    /// An empty one.
    pub fn new(connection: String, method: String) -> Self {
        Self {
            connection,
            method,
            path: String::new(),
            query: String::new(),
            headers: HeaderMap::new(),
            header_bytes: 0,
            body: Vec::new(),
            body_bytes: 0,
            claims: None,
            problem: None,
        }
    }

    /// Adds literal path.
    pub fn path(&mut self, text: &str) {
        match path::literal_problem(text) {
            Some(problem) => self.spoil(problem),
            None => self.add_path(text),
        }
    }

    /// Adds a value to the path.
    pub fn segment(&mut self, value: &str) {
        // Without it the path would name the collection instead of the thing.
        if value.is_empty() {
            return self.spoil("a value in the path is not empty");
        }
        if self.fits_path(value.len()) {
            self.add_path(&percent(value));
        }
    }

    /// Adds a query parameter.
    pub fn query(&mut self, name: &str, value: &str) {
        if !self.fits_path(name.len() + value.len()) {
            return;
        }
        let separator = if self.query.is_empty() { '?' } else { '&' };
        let parameter = format!("{separator}{}={}", percent(name), percent(value));
        if self.fits_path(parameter.len()) {
            self.query.push_str(&parameter);
        }
    }

    /// Adds a header.
    pub fn header(&mut self, name: &str, value: &str) {
        self.header_bytes = self.header_bytes.saturating_add(name.len() + value.len());
        if self.header_bytes > HEADER_BYTES_MAX || self.headers.len() >= HEADERS_MAX {
            return self.spoil("a request takes at most 32 headers and 8 KiB of them");
        }
        match headers::guest(name, value) {
            Ok((name, value)) => drop(self.headers.append(name, value)),
            Err(problem) => self.spoil(problem),
        }
    }

    /// Adds claims to the broker's token.
    pub fn claims(&mut self, text: String) {
        if self.claims.is_some() {
            return self.spoil("a request takes claims once");
        }
        match guest_claims(&text) {
            Ok(members) => self.claims = Some(Claims { written: text, members }),
            Err(error) => {
                self.refuse(Failure::unsent(FailureKind::InvalidInput, error.to_string()));
            }
        }
    }

    /// Adds literal body.
    pub fn text(&mut self, text: &str) {
        if self.fits_body(text.len()) {
            self.add_plain(text);
        }
    }

    /// Adds a value to the body.
    pub fn value(&mut self, value: &str, encoding: Encoding) {
        if !self.fits_body(value.len()) {
            return;
        }
        let encoded = encoding.write(value);
        if self.fits_body(encoded.len()) {
            self.add_plain(&encoded);
        }
    }

    /// Adds an encoded secret to the body.
    pub fn secret(&mut self, encoded: &SharedSecret) {
        if self.fits_body(encoded.len()) {
            self.body_bytes += encoded.len();
            self.add_part(Part::Secret(Arc::clone(encoded)));
        }
    }

    /// Makes `send` fail so, unless something was wrong before.
    pub fn refuse(&mut self, failure: Failure) {
        self.problem.get_or_insert(failure);
    }

    /// The request in its one form, or what is wrong with it.
    pub fn canonical(&self) -> Result<Canonical, Failure> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        if let Some(problem) = path::problem(&self.path) {
            return Err(refusal(problem));
        }
        let method =
            self.method.parse().map_err(|_| refusal("a method is a word such as `GET`"))?;
        let path_and_query = format!("{}{}", self.path, self.query);
        let (body, written) = self.bodies();
        let mut seen = path_and_query.clone().into_bytes();
        for (name, value) in &self.headers {
            seen.extend([b"\n", name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
        }
        let claims = self.claims.as_ref();
        let said = claims.map(|claims| claims.written.as_bytes()).unwrap_or_default();
        seen.extend([b"\n", said, b"\n", written.as_slice()].concat());
        Ok(Canonical {
            method,
            path: self.path.clone(),
            path_and_query,
            headers: self.headers.clone(),
            body,
            claims: claims.map(|claims| claims.members.clone()),
            written: seen,
        })
    }

    fn bodies(&self) -> (Zeroizing<Vec<u8>>, Vec<u8>) {
        // All at once: a vector that grows leaves copies of what it held.
        let mut body = Zeroizing::new(Vec::with_capacity(self.body_bytes));
        let mut written = Vec::new();
        for part in &self.body {
            match part {
                Part::Plain(text) => {
                    body.extend_from_slice(text.as_bytes());
                    written.extend_from_slice(text.as_bytes());
                }
                Part::Secret(text) => {
                    body.extend_from_slice(text.as_bytes());
                    written.push(b'\n');
                }
            }
        }
        (body, written)
    }

    fn add_path(&mut self, encoded: &str) {
        if self.fits_path(encoded.len()) {
            self.path.push_str(encoded);
        }
    }

    fn add_plain(&mut self, text: &str) {
        self.body_bytes += text.len();
        match self.body.last_mut() {
            Some(Part::Plain(last)) => last.push_str(text),
            _ => self.add_part(Part::Plain(text.to_owned())),
        }
    }

    fn add_part(&mut self, part: Part) {
        if self.body.len() >= PARTS_MAX {
            return self.spoil("a body takes at most 64 secrets");
        }
        self.body.push(part);
    }

    fn fits_path(&mut self, more: usize) -> bool {
        let fits = self.path.len() + self.query.len() + more <= PATH_BYTES_MAX;
        if !fits {
            self.spoil("path and query take at most 4 KiB");
        }
        fits
    }

    fn fits_body(&mut self, more: usize) -> bool {
        let fits = self.body_bytes + more <= BODY_BYTES_MAX;
        if !fits {
            self.spoil("a body takes at most 64 KiB");
        }
        fits
    }

    fn spoil(&mut self, problem: &'static str) {
        self.problem.get_or_insert_with(|| refusal(problem));
    }
}

fn refusal(problem: &'static str) -> Failure {
    Failure::unsent(FailureKind::InvalidInput, problem)
}

/// Documented in the plugin contract, as the next three: what servers commonly take at least.
const PATH_BYTES_MAX: usize = 4 * 1024;

/// Documented in the plugin contract.
const HEADERS_MAX: usize = 32;

/// Documented in the plugin contract.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// Documented in the plugin contract: a large policy document fits.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The 64 secrets and the text between them.
const PARTS_MAX: usize = 129;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn get(build: impl Fn(&mut GuestRequest)) -> Result<Canonical, Failure> {
        let mut request = GuestRequest::new("api".to_owned(), "GET".to_owned());
        build(&mut request);
        request.canonical()
    }

    fn encoded(secret: &str, encoding: Encoding) -> SharedSecret {
        Arc::new(encoding.write(secret))
    }

    #[test]
    fn claims_are_taken_once() {
        let once = get(|request| {
            request.path("/v1");
            request.claims(r#"{"team": "finance"}"#.to_owned());
        });
        assert_eq!(once.unwrap().claims.unwrap()["team"], "finance");
        let twice = get(|request| {
            request.path("/v1");
            request.claims("{}".to_owned());
            request.claims("{}".to_owned());
        });
        assert_eq!(twice.err().unwrap().message, "a request takes claims once");
    }

    #[test]
    fn parts_are_encoded_where_they_go() {
        let canonical = get(|request| {
            request.path("/v1/users/");
            request.segment("a/b c");
            request.path("/keys");
            request.query("q", "x&y=z");
            request.query("r&", "");
            request.header("Accept", "application/json");
            request.text("{\"name\":");
            request.value("a\"b", Encoding::Json);
            request.text(",\"p\":");
            request.secret(&encoded("s\"1", Encoding::Json));
            request.text("}");
        })
        .unwrap();
        assert_eq!(canonical.path, "/v1/users/a%2Fb%20c/keys");
        assert_eq!(canonical.path_and_query, "/v1/users/a%2Fb%20c/keys?q=x%26y%3Dz&r%26=");
        assert_eq!(canonical.body.as_slice(), br#"{"name":"a\"b","p":"s\"1"}"#);
        let written = String::from_utf8(canonical.written).unwrap();
        assert!(written.contains("accept: application/json"), "{written}");
        assert!(written.contains(r#""a\"b""#) && !written.contains("s\\\"1"), "{written}");
    }

    fn check(sentence: &str, build: impl Fn(&mut GuestRequest)) {
        match get(build) {
            Ok(_) => assert!(sentence.is_empty(), "passed instead of `{sentence}`"),
            Err(failure) => {
                let told = !sentence.is_empty() && failure.message.contains(sentence);
                assert!(told, "{} instead of `{sentence}`", failure.message);
                assert_eq!(failure.kind, FailureKind::InvalidInput);
                assert!(!failure.request_sent);
            }
        }
    }

    fn long(count: usize) -> String {
        "x".repeat(count)
    }

    #[test]
    fn what_breaks_a_rule_is_refused_before_it_is_sent() {
        let path = |segments: &'static [&'static str]| {
            move |request: &mut GuestRequest| {
                request.path("/a/");
                segments.iter().for_each(|segment| request.segment(segment));
            }
        };
        let header = |name: &'static str, value: &'static str| {
            move |request: &mut GuestRequest| {
                request.path("/");
                request.header(name, value);
            }
        };
        check("", |request| request.path("/"));
        check("begins with a slash", |_| ());
        check("begins with a slash", |request| request.path("https://evil.example/"));
        check("empty segment", |request| request.path("//evil.example/"));
        check("`query`", |request| request.path("/a?b"));
        check("neither `.` nor `..`", path(&[".."]));
        check("neither `.` nor `..`", path(&[".", "."]));
        check("not empty", path(&[""]));
        check("is the host's", header("host", "evil"));
        check("printable ASCII", header("x-a", "1\r\nhost: evil"));
    }

    #[test]
    fn what_breaks_a_limit_is_refused_before_it_is_sent() {
        fn at_root(sentence: &str, add: impl Fn(&mut GuestRequest)) {
            check(sentence, |request| {
                request.path("/");
                add(request);
            });
        }
        at_root("at most 4 KiB", |r| r.segment(&"ä".repeat(1_000)));
        at_root("at most 4 KiB", |r| r.query(&long(2_000), &long(2_100)));
        at_root("", |r| (0..32).for_each(|_| r.header("x-a", "1")));
        at_root("at most 32 headers", |r| (0..33).for_each(|_| r.header("x-a", "1")));
        at_root("8 KiB", |r| r.header("x-a", &long(8_190)));
        at_root("", |r| r.text(&long(65_536)));
        at_root("at most 64 KiB", |r| r.text(&long(65_537)));
        at_root("at most 64 KiB", |r| r.value(&long(60_000), Encoding::Base64));
        at_root("64 secrets", |r| (0..130).for_each(|_| r.secret(&encoded("s", Encoding::Raw))));
        check("", |request| request.path(&format!("/{}", long(4_095))));
        check("at most 4 KiB", |request| request.path(&format!("/{}", long(4_096))));
    }

    #[test]
    fn a_method_is_one_word() {
        for method in ["", "GET /", "GET\r\n", "GÉT"] {
            let mut request = GuestRequest::new("api".to_owned(), method.to_owned());
            request.path("/");
            assert!(request.canonical().is_err(), "{method:?}");
        }
    }
}
