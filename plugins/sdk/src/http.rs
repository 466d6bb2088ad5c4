//! HTTP through the connections that the operator has bound. Address, TLS and credentials are the
//! host's; of a response the plugin reads what its manifest names under `reads`, and takes the
//! rest as secrets, unseen.

mod body;
mod failure;

use crate::bindings::claviger::egress::http as host;
use crate::{Error, ErrorKind, Secret};

use self::body::Part;
use self::failure::Answer;

pub use crate::bindings::claviger::egress::http::Encoding;

/// The address of a connection as clients should use it, such as `https://api.internal:8443`: no
/// path, no slash at the end.
pub fn address(connection: &str) -> Result<String, Error> {
    host::address(connection)
}

/// A request put together from parts that the host encodes.
///
/// ```no_run
/// # use claviger_plugin_sdk::{Error, Secret, http::Request};
/// # fn tokens(user: &str) -> Result<Secret, Error> {
/// let answer = Request::post("api")
///     .path("/v1/users/")
///     .segment(user)
///     .path("/tokens")
///     .json(&serde_json::json!({ "scopes": ["read"] }))
///     .send()?
///     .ok()?;
/// answer.take_secret("/token")
/// # }
/// ```
#[must_use]
pub struct Request<'s> {
    connection: String,
    method: String,
    head: Vec<Head>,
    body: Vec<Part<'s>>,
    problem: Option<Error>,
}

#[derive(Debug, PartialEq, Eq)]
enum Head {
    Path(&'static str),
    Segment(String),
    Query(String, String),
    Header(String, String),
    Claims(String),
}

impl<'s> Request<'s> {
    /// A request through the connection of this name, with any method that the manifest lists.
    pub fn new(connection: &str, method: &str) -> Self {
        Self {
            connection: connection.to_owned(),
            method: method.to_owned(),
            head: Vec::new(),
            body: Vec::new(),
            problem: None,
        }
    }

    /// A `GET` request.
    pub fn get(connection: &str) -> Self {
        Self::new(connection, "GET")
    }

    /// A `POST` request.
    pub fn post(connection: &str) -> Self {
        Self::new(connection, "POST")
    }

    /// A `PUT` request.
    pub fn put(connection: &str) -> Self {
        Self::new(connection, "PUT")
    }

    /// A `PATCH` request.
    pub fn patch(connection: &str) -> Self {
        Self::new(connection, "PATCH")
    }

    /// A `DELETE` request.
    pub fn delete(connection: &str) -> Self {
        Self::new(connection, "DELETE")
    }

    /// Adds path that stands in the plugin's source: `/v1/users/`. Values come in with
    /// [`segment`](Self::segment).
    pub fn path(mut self, text: &'static str) -> Self {
        self.head.push(Head::Path(text));
        self
    }

    /// Adds a value to the path. The host encodes it, so that it stays within one segment.
    pub fn segment(mut self, value: &str) -> Self {
        self.head.push(Head::Segment(value.to_owned()));
        self
    }

    /// Adds a query parameter. The host encodes both.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.head.push(Head::Query(name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a header. Those of authentication, of routing and of the connection are the host's.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push(Head::Header(name.to_owned(), value.to_owned()));
        self
    }

    /// Adds claims to the token with which the broker authenticates this request: a JSON object.
    /// Only where the operator bound the connection with `web-identity` and granted these claims,
    /// and at most once.
    pub fn claims<T: serde::Serialize + ?Sized>(mut self, claims: &T) -> Self {
        match serde_json::to_string(claims) {
            Ok(claims) => self.head.push(Head::Claims(claims)),
            Err(error) => self.spoil(&error.to_string()),
        }
        self
    }

    /// The body is this value as JSON.
    pub fn json<T: serde::Serialize + ?Sized>(self, value: &T) -> Self {
        self.json_with_secrets(value, &[])
    }

    /// The body is this value as JSON, with secrets at these JSON pointers. What stands there is
    /// replaced, so leave an empty string in its place.
    ///
    /// ```no_run
    /// # use claviger_plugin_sdk::{Secret, http::Request};
    /// # fn request<'s>(login: &str, password: &'s Secret) -> Request<'s> {
    /// Request::post("api").path("/v1/users").json_with_secrets(
    ///     &serde_json::json!({ "login": login, "password": "" }),
    ///     &[("/password", password)],
    /// )
    /// # }
    /// ```
    pub fn json_with_secrets<T: serde::Serialize + ?Sized>(
        mut self,
        value: &T,
        secrets: &[(&str, &'s Secret)],
    ) -> Self {
        match body::json(value, secrets) {
            Ok(parts) => self.body.extend(parts),
            Err(message) => self.spoil(&message),
        }
        self.content_type("application/json")
    }

    /// Adds fields to a body of `application/x-www-form-urlencoded`.
    pub fn form(mut self, fields: &[(&str, &str)]) -> Self {
        for (name, value) in fields {
            self.begin_form_field(name);
            self.body.push(Part::Value((*value).to_owned(), Encoding::Form));
        }
        self.content_type(FORM)
    }

    /// Adds a field with a secret to a body of `application/x-www-form-urlencoded`.
    pub fn form_secret(mut self, name: &str, secret: &'s Secret) -> Self {
        self.begin_form_field(name);
        self.body.push(Part::Secret(secret, Encoding::Form));
        self.content_type(FORM)
    }

    /// Adds body text that stands in the plugin's source, for bodies that are neither JSON nor a
    /// form. Set their type with [`header`](Self::header).
    pub fn text(mut self, text: &'static str) -> Self {
        self.body.push(Part::Text(text.to_owned()));
        self
    }

    /// Adds a value to the body.
    pub fn value(mut self, value: &str, encoding: Encoding) -> Self {
        self.body.push(Part::Value(value.to_owned(), encoding));
        self
    }

    /// Adds a secret to the body.
    pub fn secret(mut self, secret: &'s Secret, encoding: Encoding) -> Self {
        self.body.push(Part::Secret(secret, encoding));
        self
    }

    /// Sends it and reads the whole response, whatever its status. At most 8 times in a call,
    /// refused requests included.
    pub fn send(self) -> Result<Response, Error> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let request = host::Request::new(&self.connection, &self.method);
        for head in &self.head {
            match head {
                Head::Path(text) => request.path(text),
                Head::Segment(value) => request.segment(value),
                Head::Query(name, value) => request.query(name, value),
                Head::Header(name, value) => request.header(name, value),
                Head::Claims(claims) => request.claims(claims),
            }
        }
        for part in &self.body {
            match part {
                Part::Text(text) => request.text(text),
                Part::Value(value, encoding) => request.value(value, *encoding),
                Part::Secret(secret, encoding) => request.secret(secret, *encoding),
            }
        }
        request.send().map(Response)
    }

    fn spoil(&mut self, message: &str) {
        self.problem.get_or_insert(Error::new(ErrorKind::InvalidInput, message));
    }

    fn begin_form_field(&mut self, name: &str) {
        let separator = if self.body.is_empty() { "" } else { "&" };
        self.body.push(Part::Text(separator.to_owned()));
        self.body.push(Part::Value(name.to_owned(), Encoding::Form));
        self.body.push(Part::Text("=".to_owned()));
    }

    fn content_type(mut self, value: &str) -> Self {
        let header = Head::Header("content-type".to_owned(), value.to_owned());
        if !self.head.contains(&header) {
            self.head.push(header);
        }
        self
    }
}

/// A response, read to its end.
///
/// A *location* is a JSON pointer such as `/token/expires_in`, or in XML the names of the elements
/// from the root down, `/Answer/Result/Expiration`. It names exactly one value.
pub struct Response(host::Response);

impl Response {
    /// The status, such as 200.
    pub fn status(&self) -> u16 {
        self.0.status()
    }

    /// This response if its status is 2xx, and otherwise the contract's error for it.
    pub fn ok(self) -> Result<Self, Error> {
        self.ok_or_at(None, None)
    }

    /// As [`ok`](Self::ok), with the upstream's own code and message read from these locations,
    /// which must be under the manifest's `reads`.
    pub fn ok_or_at(self, code: Option<&str>, message: Option<&str>) -> Result<Self, Error> {
        let status = self.status();
        if (200..300).contains(&status) {
            return Ok(self);
        }
        let read = |location: Option<&str>| location.and_then(|at| self.0.read(at).ok().flatten());
        Err(failure::of(&Answer {
            status,
            retry_after: self.header("retry-after"),
            code: read(code),
            message: read(message),
        }))
    }

    /// A header that every plugin may read, such as `date` or `location`.
    pub fn header(&self, name: &str) -> Option<String> {
        self.0.header(name)
    }

    /// The body with every value that the plugin may not read replaced by `[hidden]`.
    pub fn body(&self) -> String {
        self.0.body()
    }

    /// The value at a location under the manifest's `reads`; `None` if it is not there.
    pub fn read(&self, location: &str) -> Result<Option<String>, Error> {
        self.0.read(location)
    }

    /// The value at a location that must be there.
    pub fn require(&self, location: &str) -> Result<String, Error> {
        let missing = || {
            let message = format!("the answer has no value at `{location}`");
            Error::new(ErrorKind::Other, message).after_sending()
        };
        self.read(location)?.ok_or_else(missing)
    }

    /// Takes the value at a location as a secret, unseen. Any location will do.
    pub fn take_secret(&self, location: &str) -> Result<Secret, Error> {
        self.0.take_secret(location)
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_keeps_its_order() {
        let request = Request::get("api")
            .path("/v1/users/")
            .segment("a/b")
            .query("page", "1")
            .header("accept", "application/json");
        let text = str::to_owned;
        assert_eq!(request.method, "GET");
        assert_eq!(
            request.head,
            [
                Head::Path("/v1/users/"),
                Head::Segment(text("a/b")),
                Head::Query(text("page"), text("1")),
                Head::Header(text("accept"), text("application/json")),
            ]
        );
    }

    #[test]
    fn a_form_is_joined_and_names_its_type_once() {
        let request = Request::post("api").form(&[("a", "1")]).form(&[("b&", "2")]);
        assert_eq!(body::shown(&request.body), "form(a)=form(1)&form(b&)=form(2)");
        assert_eq!(request.head, [Head::Header("content-type".to_owned(), FORM.to_owned())]);
    }

    #[test]
    fn what_cannot_be_serialised_is_told_when_it_is_sent() {
        let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = Request::post("api").json(&keys).send().err();
        assert_eq!(error.map(|error| error.kind), Some(ErrorKind::InvalidInput));
    }
}
