//! What PostgreSQL's errors mean to a plugin.

use std::error::Error as _;

use tokio_postgres::Error;

use crate::egress::{Failure, FailureKind};

/// The failure of a statement that was sent.
pub fn of_statement(error: &Error) -> Failure {
    Failure { request_sent: true, ..of(error) }
}

/// The failure of an attempt to connect: no statement was sent.
pub fn of_connect(error: &Error) -> Failure {
    let failure = of(error);
    let kind = match failure.kind {
        FailureKind::Other => FailureKind::Unavailable,
        kind => kind,
    };
    Failure { kind, message: format!("cannot connect: {}", failure.message), ..failure }
}

fn of(error: &Error) -> Failure {
    let Some(database) = error.as_db_error() else {
        return Failure::unsent(kind_without_code(error), chain(error));
    };
    let code = database.code().code();
    Failure {
        code: Some(code.to_owned()),
        // Detail and hint are left out: they quote rows and values more often than they help.
        ..Failure::unsent(kind(code, database.message()), database.message())
    }
}

fn kind_without_code(error: &Error) -> FailureKind {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::TimedOut) => FailureKind::Timeout,
        Some(_) => FailureKind::Unavailable,
        None if error.is_closed() => FailureKind::Unavailable,
        None => FailureKind::Other,
    }
}

/// The message with its causes: tokio-postgres says only `error connecting to server` itself.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// SQLSTATE to kind, by code first and by class (its first two characters) after that.
fn kind(code: &str, message: &str) -> FailureKind {
    match code {
        "42501" => FailureKind::Denied,
        "57014" | "55P03" => FailureKind::Timeout,
        "53300" => FailureKind::RateLimited,
        "42704" | "42P01" | "42883" | "42703" | "3D000" | "3F000" => FailureKind::NotFound,
        "42710" | "42P06" | "42P07" | "42723" | "42P04" | "2BP01" | "55006" => {
            FailureKind::Conflict
        }
        // Two sessions changed the same catalog row (such as two grants on one table).
        "XX000" if message.contains("concurrently") => FailureKind::Conflict,
        _ => match code.get(..2).unwrap_or_default() {
            "28" => FailureKind::Denied,
            "08" | "53" | "57" => FailureKind::Unavailable,
            "23" | "25" | "40" | "55" => FailureKind::Conflict,
            "22" | "42" => FailureKind::InvalidInput,
            "0A" => FailureKind::Unsupported,
            _ => FailureKind::Other,
        },
    }
}
