//! Runs a plugin's `issue` and `revoke` in its own tests, natively, against scripted connections.
//! Proves the plugin's logic; that it works on the real upstream, `clavigerd plugin test` proves.
//!
//! ```
//! use claviger_plugin_sdk::testing::{Host, rendered};
//! use claviger_plugin_sdk::{Error, ErrorKind, sql::{Connection, Sql}};
//!
//! assert_eq!(rendered(&Sql::new("DROP ROLE ").ident("a\"b")), "DROP ROLE \"a\"\"b\"");
//!
//! let host = Host::new().sql("admin", |sql| match sql {
//!     "SELECT 1" => Ok(vec![vec![Some("1".to_owned())]]),
//!     _ => Err(Error::new(ErrorKind::Denied, "not scripted")),
//! });
//! let seen = host.run(|| Connection::open("admin")?.query(&Sql::new("SELECT 1")));
//! assert_eq!(seen.result.map(|rows| rows.len()).ok(), Some(1));
//! assert_eq!(seen.statements, ["SELECT 1"]);
//! ```

pub(crate) mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::sql::{Row, Sql};
use crate::{Error, ErrorKind, Issue, Lease, Provider, Revoke, RevokeAll};

/// A host whose connections answer as a test says. Lives for one call.
#[derive(Default)]
pub struct Host {
    pub(crate) sql: BTreeMap<String, SqlScript>,
    pub(crate) http: BTreeMap<String, HttpScript>,
}

/// Answers the statements of one connection.
pub(crate) type SqlScript = Box<dyn FnMut(&str) -> Result<Vec<Row>, Error>>;

/// Answers the requests of one connection.
pub(crate) type HttpScript = Box<dyn FnMut(&HttpRequest) -> Result<HttpReply, Error>>;

/// What came of a call, and what the host saw of it.
#[derive(Debug)]
pub struct Seen<T> {
    /// What the call returned.
    pub result: Result<T, Error>,
    /// The SQL statements in their order, quoted as PostgreSQL is. A secret is a label such as
    /// `<secret 1: generated>`, never a value.
    pub statements: Vec<String>,
    /// The HTTP requests in their order.
    pub requests: Vec<HttpRequest>,
    /// The lines that were logged.
    pub log: Vec<String>,
}

/// What `issue` put into the lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Minted {
    /// The fields that may be shown.
    pub fields: BTreeMap<String, String>,
    /// The secret fields, with labels for values.
    pub secrets: BTreeMap<String, String>,
    /// The join keys.
    pub join_keys: BTreeMap<String, String>,
    /// What `revoke` gets back.
    pub handle: Option<String>,
    /// The credential's expiry, in Unix seconds.
    pub expires_at: u64,
}

/// A request as the upstream would see it, without the host's authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// The connection.
    pub connection: String,
    /// The method.
    pub method: String,
    /// The encoded path.
    pub path: String,
    /// The query parameters, not encoded.
    pub query: Vec<(String, String)>,
    /// The headers that the plugin set.
    pub headers: Vec<(String, String)>,
    /// The claims that the plugin added to the broker's token, `null` for none.
    pub claims: serde_json::Value,
    /// The body, with labels for secrets.
    pub body: String,
}

/// A response of a scripted upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body. Locations are looked up in JSON; XML is for `clavigerd plugin test`.
    pub body: String,
}

impl Host {
    /// A host that has bound no connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a database: `script` answers each statement with rows, or as the server would fail.
    #[must_use]
    pub fn sql(
        mut self,
        connection: &str,
        script: impl FnMut(&str) -> Result<Vec<Row>, Error> + 'static,
    ) -> Self {
        self.sql.insert(connection.to_owned(), Box::new(script));
        self
    }

    /// Binds an HTTP service: `script` answers each request.
    #[must_use]
    pub fn http(
        mut self,
        connection: &str,
        script: impl FnMut(&HttpRequest) -> Result<HttpReply, Error> + 'static,
    ) -> Self {
        self.http.insert(connection.to_owned(), Box::new(script));
        self
    }

    /// Runs a plugin's `issue`.
    pub fn issue<P: Provider>(self, issue: &Issue<P::Settings, P::Parameters>) -> Seen<Minted> {
        let minted = Minted { expires_at: issue.expires_at, ..Minted::default() };
        let lease = Lease { expires_at: issue.expires_at, minted: RefCell::new(minted) };
        let seen = self.run(|| P::issue(issue, &lease));
        seen.map(|()| lease.minted.into_inner())
    }

    /// Runs a plugin's `revoke`.
    pub fn revoke<P: Provider>(self, revoke: &Revoke<P::Settings>) -> Seen<()> {
        self.run(|| P::revoke(revoke))
    }

    /// Runs a plugin's `revoke_all`.
    pub fn revoke_all<P: RevokeAll>(self, revokes: &[Revoke<P::Settings>]) -> Seen<()> {
        self.run(|| P::revoke_all(revokes))
    }

    /// Runs any part of a plugin that reaches the host.
    pub fn run<T>(self, part: impl FnOnce() -> Result<T, Error>) -> Seen<T> {
        world::enter(self);
        let result = part();
        let (statements, requests, log) = world::leave();
        Seen { result, statements, requests, log }
    }
}

impl<T> Seen<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Seen<U> {
        let Self { result, statements, requests, log } = self;
        Seen { result: result.map(change), statements, requests, log }
    }
}

impl HttpRequest {
    pub(crate) fn new(connection: &str, method: &str) -> Self {
        Self {
            connection: connection.to_owned(),
            method: method.to_owned(),
            path: String::new(),
            query: Vec::new(),
            headers: Vec::new(),
            claims: serde_json::Value::Null,
            body: String::new(),
        }
    }
}

impl HttpReply {
    /// A response with a JSON body.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        let json = ("content-type".to_owned(), "application/json".to_owned());
        Self { status, headers: vec![json], body: body.to_string() }
    }

    /// A response without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// The body as the host shows it: every scalar hidden.
    pub(crate) fn hidden_body(&self) -> String {
        fn hide(value: &mut serde_json::Value) {
            match value {
                serde_json::Value::Array(items) => items.iter_mut().for_each(hide),
                serde_json::Value::Object(members) => members.values_mut().for_each(hide),
                scalar => *scalar = HIDDEN.into(),
            }
        }
        match serde_json::from_str::<serde_json::Value>(&self.body) {
            Ok(mut body) => {
                hide(&mut body);
                body.to_string()
            }
            Err(_) if self.body.is_empty() => String::new(),
            Err(_) => HIDDEN.to_owned(),
        }
    }

    /// The scalar at a JSON pointer.
    pub(crate) fn scalar(&self, location: &str) -> Result<Option<String>, Error> {
        let body: serde_json::Value = serde_json::from_str(&self.body).map_err(|_| {
            Error::new(ErrorKind::Other, "the response is not JSON").after_sending()
        })?;
        Ok(match body.pointer(location) {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            Some(scalar @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_))) => {
                Some(scalar.to_string())
            }
            Some(_) => {
                let message = format!("`{location}` is not one value");
                return Err(Error::new(ErrorKind::InvalidInput, message).after_sending());
            }
        })
    }
}

/// A request to mint: the settings and parameters as the configuration would have them, the rest
/// made up. Change what a test is about.
///
/// Fails as the broker does when the JSON does not fit the types.
pub fn issue<P: Provider>(
    settings: serde_json::Value,
    parameters: serde_json::Value,
) -> Result<Issue<P::Settings, P::Parameters>, Error> {
    Ok(Issue {
        intent: INTENT.to_owned(),
        session: SESSION.to_owned(),
        role: "support-triage".to_owned(),
        requester: "unix:1000".to_owned(),
        scope: "backend/scope".to_owned(),
        settings: parse("settings", settings)?,
        parameters: parse("parameters", parameters)?,
        now: NOW,
        expires_at: NOW + 600,
    })
}

/// A request to end what [`issue`] describes, of which nothing but the intent is known.
pub fn revoke<P: Provider>(settings: serde_json::Value) -> Result<Revoke<P::Settings>, Error> {
    Ok(Revoke {
        intent: INTENT.to_owned(),
        scope: "backend/scope".to_owned(),
        settings: parse("settings", settings)?,
        handle: None,
        now: NOW,
    })
}

/// A statement as text, quoted as PostgreSQL is, with labels for secrets.
pub fn rendered(statement: &Sql) -> String {
    statement.statement().shown()
}

fn parse<T: DeserializeOwned>(what: &str, json: serde_json::Value) -> Result<T, Error> {
    serde_json::from_value(json)
        .map_err(|error| Error::new(ErrorKind::InvalidConfig, format!("the {what}: {error}")))
}

/// As the broker writes intents.
const INTENT: &str = "0123456789abcdefghjkmnpqrs";

/// As the broker writes sessions.
const SESSION: &str = "zyxwvtsrqpnmkjhgfedcba9876";

/// 2026-11-23T16:35:05Z: any time will do that is the same in every run.
const NOW: u64 = 1_795_451_705;

/// What the host shows instead of a value.
const HIDDEN: &str = "[hidden]";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
    use serde_json::json;

    use super::*;
    use crate::http::Request;
    use crate::sql::Connection;
    use crate::{Secret, log};

    struct Tokens;

    #[derive(serde::Deserialize)]
    struct Settings {}

    #[derive(serde::Deserialize)]
    struct Parameters {
        scopes: Vec<String>,
    }

    impl Provider for Tokens {
        type Settings = Settings;
        type Parameters = Parameters;

        fn issue(issue: &Issue<Settings, Parameters>, lease: &Lease) -> Result<(), Error> {
            let body = json!({"name": issue.intent, "scopes": issue.parameters.scopes});
            let answer = Request::post("api").path("/tokens/").segment("a b").json(&body).send()?;
            let answer = answer.ok()?;
            log::info("made", &[("id", &answer.require("/id")?)]);
            lease.set_field("id", &answer.require("/id")?)?;
            lease.set_secret("token", &answer.take_secret("/token")?)?;
            lease.set_expires_at(issue.expires_at - 1)
        }

        fn revoke(revoke: &Revoke<Settings>) -> Result<(), Error> {
            Request::delete("api").path("/tokens/").segment(&revoke.intent).send()?.ok()?;
            Ok(())
        }
    }

    #[test]
    fn a_scripted_service_sees_the_request_and_the_lease_holds_its_answer() {
        let request = issue::<Tokens>(json!({}), json!({"scopes": ["read"]})).unwrap();
        let reply = HttpReply::json(201, &json!({"id": 7, "token": "hunter2"}));
        let host = Host::new().http("api", move |_| Ok(reply.clone()));
        let seen = host.issue::<Tokens>(&request);
        let minted = seen.result.unwrap();
        assert_eq!(minted.fields["id"], "7");
        assert_eq!(minted.secrets["token"], "<secret 1: /token>");
        assert_eq!(minted.expires_at, request.expires_at - 1);
        let sent = &seen.requests[0];
        assert_eq!((sent.method.as_str(), sent.path.as_str()), ("POST", "/tokens/a%20b"));
        assert_eq!(sent.body, format!(r#"{{"name":"{INTENT}","scopes":["read"]}}"#));
        assert_eq!(seen.log, ["Info: made id=7"]);
    }

    #[test]
    fn a_failing_service_makes_the_call_fail() {
        let host = Host::new().http("api", |_| Ok(HttpReply::empty(503)));
        let seen = host.revoke::<Tokens>(&revoke::<Tokens>(json!({})).unwrap());
        assert!(seen.result.is_err());
        let unbound = Host::new().revoke::<Tokens>(&revoke::<Tokens>(json!({})).unwrap());
        assert_eq!(unbound.result.unwrap_err().kind, ErrorKind::Denied);
    }

    #[test]
    fn statements_are_quoted_and_hold_labels_for_secrets() {
        let host = Host::new().sql("admin", |_| Ok(vec![vec![None], vec![Some("x".to_owned())]]));
        let seen = host.run(|| {
            let admin = Connection::open("admin")?;
            let secret = Secret::generate(192)?;
            let alter = Sql::new("ALTER ROLE ").ident("a").text(" PASSWORD ");
            admin.transaction(&[alter.scram_sha256(&secret, 1)])?;
            admin.query(&Sql::new("SELECT ").literal("it's"))
        });
        assert_eq!(seen.result.unwrap().len(), 2);
        assert_eq!(
            seen.statements,
            [
                "ALTER ROLE \"a\" PASSWORD '<scram-sha-256 1 of <secret 1: generated>>'",
                "SELECT 'it''s'"
            ]
        );
    }

    #[test]
    fn settings_that_do_not_fit_fail_as_in_the_broker() {
        let error = issue::<Tokens>(json!({}), json!({"scopes": 1})).err().unwrap();
        assert_eq!(error.kind, ErrorKind::InvalidConfig);
    }

    #[test]
    fn a_body_shows_its_form_and_no_value() {
        let reply = HttpReply::json(200, &json!({"a": [1, {"b": "x"}]}));
        assert_eq!(reply.hidden_body(), r#"{"a":["[hidden]",{"b":"[hidden]"}]}"#);
        assert_eq!(HttpReply { body: "<a/>".to_owned(), ..reply }.hidden_body(), "[hidden]");
    }
}
