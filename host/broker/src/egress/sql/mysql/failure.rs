//! What MySQL's and MariaDB's errors mean to a plugin.

use std::error::Error as _;

use mysql_async::{DriverError, Error, IoError, ServerError};

use crate::egress::sql::session::too_much;
use crate::egress::{Failure, FailureKind};

/// The failure of a statement that was sent.
pub fn of_statement(error: &Error) -> Failure {
    Failure { request_sent: true, ..of(error) }
}

/// The failure of an attempt to connect: no statement was sent.
pub fn of_connect(error: &Error) -> Failure {
    let failure = of(error);
    let kind = match failure.kind {
        FailureKind::Other | FailureKind::NotFound => FailureKind::Unavailable,
        kind => kind,
    };
    Failure { kind, message: format!("cannot connect: {}", failure.message), ..failure }
}

fn of(error: &Error) -> Failure {
    match error {
        Error::Server(error) => Failure {
            code: Some(code(error)),
            ..Failure::unsent(kind(error), error.message.clone())
        },
        Error::Driver(DriverError::PacketTooLarge) => too_much(),
        // The same, found while reading; the driver hides its type.
        Error::Io(IoError::Io(io)) if io.to_string().contains("max_allowed_packet") => too_much(),
        Error::Driver(DriverError::LocalInfile(_)) => {
            let message = "`LOAD DATA LOCAL` is not served: the broker's files stay with it";
            Failure::unsent(FailureKind::Unsupported, message)
        }
        Error::Io(IoError::Io(io)) if io.kind() == std::io::ErrorKind::TimedOut => {
            Failure::unsent(FailureKind::Timeout, chain(error))
        }
        Error::Io(_) | Error::Driver(_) => Failure::unsent(FailureKind::Unavailable, chain(error)),
        Error::Other(_) | Error::Url(_) => Failure::unsent(FailureKind::Other, chain(error)),
    }
}

/// The SQLSTATE, unless it is one of the two that say nothing: then the server's own number.
fn code(error: &ServerError) -> String {
    match error.state.as_str() {
        "HY000" | "42000" => error.code.to_string(),
        state => state.to_owned(),
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// The server's number to kind first, and the SQLSTATE's class (its first two characters) after.
fn kind(error: &ServerError) -> FailureKind {
    match error.code {
        // Access denied, in the many forms of it.
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1410 | 1698 | 1095 => FailureKind::Denied,
        // The limits of time for statements and for locks, and statements that were ended.
        1205 | 1317 | 1969 | 3024 => FailureKind::Timeout,
        // Too many connections: of all, of this user, or within the hour.
        1040 | 1203 | 1226 => FailureKind::RateLimited,
        // Unknown database, account, grant, routine or role.
        1049 | 1133 | 1141 | 1305 | 1959 | 3523 => FailureKind::NotFound,
        // An account that is there already, or that is not: the same number for both.
        1396 if error.message.contains("CREATE") => FailureKind::Conflict,
        1396 => FailureKind::NotFound,
        // A database or table that is there already.
        1007 | 1050 => FailureKind::Conflict,
        // The server is read-only, or the connection was ended.
        1290 | 1792 | 1836 | 1927 => FailureKind::Unavailable,
        // Not in a prepared statement.
        1295 => FailureKind::Unsupported,
        _ => of_class(error.state.as_str()),
    }
}

fn of_class(state: &str) -> FailureKind {
    match state {
        "42S02" | "42S22" => FailureKind::NotFound,
        _ => match state.get(..2).unwrap_or_default() {
            "28" => FailureKind::Denied,
            "08" => FailureKind::Unavailable,
            "23" | "25" | "40" => FailureKind::Conflict,
            "21" | "22" | "42" => FailureKind::InvalidInput,
            "0A" => FailureKind::Unsupported,
            "70" => FailureKind::Timeout,
            _ => FailureKind::Other,
        },
    }
}
