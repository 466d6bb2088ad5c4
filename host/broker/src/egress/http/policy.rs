//! What one connection may be used for: what the manifest asked for and the operator granted.
//! Decides; sends nothing.

use http::Method;

use super::location::{Location, Pattern};
use super::path;
use crate::egress::{Failure, FailureKind};

/// The grants of one connection.
pub struct Policy {
    methods: Vec<Method>,
    paths: Vec<String>,
    reads: Vec<Pattern>,
}

/// Grants as manifests and operators write them.
#[derive(Clone, Copy)]
pub struct Grants<'a> {
    /// Methods, such as `POST`.
    pub methods: &'a [String],
    /// What paths begin with, such as `/v1/users`.
    pub paths: &'a [String],
    /// Places in responses, such as `/items/*/id`.
    pub reads: &'a [String],
}

impl Policy {
    /// What was both asked for and granted. Refuses grants that nobody asked for, and a grant that
    /// leaves the plugin without something it asked for, save reads: those may be withheld.
    pub fn meet(asked: Grants<'_>, granted: Grants<'_>) -> Result<Self, String> {
        let methods = meet_methods(asked.methods, granted.methods)?;
        let paths = meet_paths(asked.paths, granted.paths)?;
        let reads = meet_reads(asked.reads, granted.reads)?;
        Ok(Self { methods, paths, reads })
    }

    /// Whether a request may be sent. The host, the port and the scheme are not asked about: the
    /// guest has no way to name them.
    pub fn admit(&self, method: &Method, path: &str) -> Result<(), Failure> {
        if !self.methods.contains(method) {
            let message = format!("the connection is not granted `{method}`: see its `methods`");
            return Err(Failure::unsent(FailureKind::Denied, message));
        }
        if !self.paths.iter().any(|prefix| path::lies_below(path, prefix)) {
            let message = "the connection is not granted this path: see its `paths`";
            return Err(Failure::unsent(FailureKind::Denied, message));
        }
        Ok(())
    }

    /// Whether the guest may see the scalar at these steps.
    pub fn may_read(&self, steps: &[String]) -> bool {
        self.reads.iter().any(|pattern| pattern.grants(steps))
    }

    /// As `may_read`, with a sentence for the plugin's author.
    pub fn admit_read(&self, location: &Location) -> Result<(), Failure> {
        if self.may_read(location.steps()) {
            return Ok(());
        }
        // The location is not repeated: what a guest says comes back redacted, and so would tell
        // it which of its guesses at a taken secret is right.
        let message = "the connection may not read this location: ask for it under `reads` in \
                       the manifest and grant it under `reads` of the connection, or take it as \
                       a secret";
        Err(Failure::sent(FailureKind::Denied, message))
    }
}

fn meet_methods(asked: &[String], granted: &[String]) -> Result<Vec<Method>, String> {
    for method in asked.iter().chain(granted) {
        if !METHODS.contains(&method.as_str()) {
            return Err(format!("`{method}` is none of the methods {}", METHODS.join(", ")));
        }
    }
    if let Some(extra) = granted.iter().find(|method| !asked.contains(method)) {
        return Err(not_asked("methods", extra));
    }
    if let Some(missing) = asked.iter().find(|method| !granted.contains(method)) {
        return Err(not_given("methods", missing));
    }
    Ok(granted.iter().filter_map(|method| method.parse().ok()).collect())
}

fn meet_paths(asked: &[String], granted: &[String]) -> Result<Vec<String>, String> {
    for prefix in asked.iter().chain(granted) {
        if let Some(problem) = path::literal_problem(prefix).or_else(|| path::problem(prefix)) {
            return Err(format!("`{prefix}` in `paths` begins no path: {problem}"));
        }
    }
    let below = |granted: &&String| asked.iter().any(|asked| path::lies_below(granted, asked));
    if let Some(extra) = granted.iter().find(|granted| !below(granted)) {
        return Err(not_asked("paths", extra));
    }
    let met = |asked: &&String| granted.iter().any(|granted| path::lies_below(granted, asked));
    if let Some(missing) = asked.iter().find(|asked| !met(asked)) {
        return Err(not_given("paths", missing));
    }
    Ok(granted.to_vec())
}

fn meet_reads(asked: &[String], granted: &[String]) -> Result<Vec<Pattern>, String> {
    let parse = |text: &String| {
        let wrong = |problem| format!("`{text}` in `reads` is no location: {problem}");
        Pattern::parse(text).map_err(wrong)
    };
    let asked = asked.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let mut reads = Vec::with_capacity(granted.len());
    for text in granted {
        let pattern = parse(text)?;
        if !asked.iter().any(|asked| asked.covers(&pattern)) {
            return Err(not_asked("reads", text));
        }
        reads.push(pattern);
    }
    Ok(reads)
}

fn not_asked(key: &str, what: &str) -> String {
    format!("`{what}` in `{key}` is nothing that the plugin asks for: remove it")
}

fn not_given(key: &str, what: &str) -> String {
    format!("the plugin asks for `{what}` in `{key}`, which is not granted")
}

/// Those with a meaning for resources. `CONNECT` opens a tunnel, and `TRACE` sends the broker's
/// own credential back.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    type Lists = [&'static [&'static str]; 3];

    fn meet(asked: Lists, granted: Lists) -> Result<Policy, String> {
        let owned =
            |lists: Lists| lists.map(|l| l.iter().map(ToString::to_string).collect::<Vec<_>>());
        let (asked, granted) = (owned(asked), owned(granted));
        let grants = |lists: &[Vec<String>; 3]| -> [Vec<String>; 3] { lists.clone() };
        let ([m1, p1, r1], [m2, p2, r2]) = (grants(&asked), grants(&granted));
        Policy::meet(
            Grants { methods: &m1, paths: &p1, reads: &r1 },
            Grants { methods: &m2, paths: &p2, reads: &r2 },
        )
    }

    #[test]
    fn grants_meet_what_was_asked_for() {
        let asked: Lists = [&["GET", "DELETE"], &["/v1"], &["/items/*/id", "/message"]];
        for (granted, sentence) in [
            ([&["GET", "DELETE"][..], &["/v1"], &["/items/*/id"]], ""),
            ([&["DELETE", "GET"], &["/v1/users", "/v1/groups/"], &["/items/0/id"]], ""),
            ([&["GET", "DELETE"], &["/v1"], &[]], ""),
            ([&["GET"], &["/v1"], &[]], "asks for `DELETE` in `methods`"),
            ([&["GET", "DELETE", "PUT"], &["/v1"], &[]], "`PUT` in `methods` is nothing"),
            ([&["GET", "DELETE", "TRACE"], &["/v1"], &[]], "`TRACE` is none of the methods"),
            ([&["get", "DELETE"], &["/v1"], &[]], "`get` is none of the methods"),
            ([&["GET", "DELETE"], &[], &[]], "asks for `/v1` in `paths`"),
            ([&["GET", "DELETE"], &["/v1", "/v2"], &[]], "`/v2` in `paths` is nothing"),
            ([&["GET", "DELETE"], &["/"], &[]], "`/` in `paths` is nothing"),
            ([&["GET", "DELETE"], &["/v1/.."], &[]], "begins no path"),
            ([&["GET", "DELETE"], &["/v1"], &["/items/*/*"]], "`/items/*/*` in `reads` is nothing"),
            ([&["GET", "DELETE"], &["/v1"], &["items"]], "is no location"),
        ] {
            match meet(asked, granted) {
                Ok(_) => assert!(sentence.is_empty(), "{granted:?}"),
                Err(error) => assert!(!sentence.is_empty() && error.contains(sentence), "{error}"),
            }
        }
    }

    #[test]
    fn only_granted_methods_and_paths_are_admitted() {
        let policy =
            meet([&["GET"], &["/v1/users"], &[]], [&["GET"], &["/v1/users"], &[]]).unwrap();
        for (method, path, expect) in [
            (Method::GET, "/v1/users/7", true),
            (Method::DELETE, "/v1/users/7", false),
            (Method::HEAD, "/v1/users/7", false),
            (Method::GET, "/v1/users-admin", false),
            (Method::GET, "/", false),
        ] {
            let admitted = policy.admit(&method, path);
            assert_eq!(admitted.is_ok(), expect, "{method} {path}");
            assert!(
                admitted.err().is_none_or(|f| f.kind == FailureKind::Denied && !f.request_sent)
            );
        }
    }
}
