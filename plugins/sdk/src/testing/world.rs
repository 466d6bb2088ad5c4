//! The scripted host of the thread: what the native bindings call. One call at a time.

use std::cell::RefCell;

use crate::bindings::claviger::egress::http::Encoding;
use crate::sql::Row;
use crate::testing::{Host, HttpReply, HttpRequest};
use crate::{Error, ErrorKind};

/// What the host has, and what it saw.
#[derive(Default)]
struct World {
    host: Host,
    statements: Vec<String>,
    requests: Vec<HttpRequest>,
    log: Vec<String>,
    secrets: u32,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

/// Begins a call on `host`.
pub fn enter(host: Host) {
    WORLD.with_borrow_mut(|world| *world = World { host, ..World::default() });
}

/// Ends the call; tells the statements, the requests and the log.
pub fn leave() -> (Vec<String>, Vec<HttpRequest>, Vec<String>) {
    let world = WORLD.take();
    (world.statements, world.requests, world.log)
}

/// A label for a secret that no test can mistake for a value.
pub fn next_secret(of: &str) -> String {
    WORLD.with_borrow_mut(|world| {
        world.secrets += 1;
        format!("<secret {}: {of}>", world.secrets)
    })
}

/// Whether a database is bound under this name.
pub fn open_sql(connection: &str) -> Result<(), Error> {
    WORLD.with_borrow(|world| match world.host.sql.contains_key(connection) {
        true => Ok(()),
        false => Err(unbound(connection)),
    })
}

/// Runs one statement.
pub fn run_sql(connection: &str, statement: String) -> Result<Vec<Row>, Error> {
    WORLD.with_borrow_mut(|world| {
        let script = world.host.sql.get_mut(connection).ok_or_else(|| unbound(connection))?;
        let answer = script(&statement);
        world.statements.push(statement);
        answer
    })
}

/// Whether a service is bound under this name.
pub fn open_http(connection: &str) -> Result<(), Error> {
    WORLD.with_borrow(|world| match world.host.http.contains_key(connection) {
        true => Ok(()),
        false => Err(unbound(connection)),
    })
}

/// Sends one request.
pub fn send(request: &HttpRequest) -> Result<HttpReply, Error> {
    WORLD.with_borrow_mut(|world| {
        let script = world.host.http.get_mut(&request.connection);
        let script = script.ok_or_else(|| unbound(&request.connection))?;
        let answer = script(request);
        world.requests.push(request.clone());
        answer
    })
}

/// Keeps a line of the log.
pub fn log(line: String) {
    WORLD.with_borrow_mut(|world| world.log.push(line));
}

/// A value as it is written into a body.
pub fn encoded(value: &str, encoding: Encoding) -> String {
    match encoding {
        Encoding::Raw => value.to_owned(),
        Encoding::Json => serde_json::Value::from(value).to_string(),
        Encoding::Form => percent_encoded(value),
        Encoding::Xml => value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;"),
        Encoding::Base64 => format!("<base64 of {value}>"),
    }
}

/// A value within one segment of a path. Labels of secrets stay readable.
pub fn percent_encoded(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    value.bytes().map(byte).collect()
}

fn unbound(connection: &str) -> Error {
    let message = format!("connection `{connection}` is not scripted: add it to the `Host`");
    Error::new(ErrorKind::Denied, message)
}
