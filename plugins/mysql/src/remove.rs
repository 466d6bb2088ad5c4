//! Ends a login: close it, end its connections, drop it. Every step may be repeated, so a crash
//! between any two costs nothing but the repetition.

use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, ErrorKind};

use crate::CANNOT_USER;

/// Leaves no login of this name and no connection of it.
///
/// The order matters. The connections of a dropped account go on working, so they end first; and
/// they end only after the account is closed, so that none can follow them.
pub fn login(admin: &Connection, login: &str) -> Result<(), Error> {
    let close = Sql::new("ALTER USER ").ident(login).text(" ACCOUNT LOCK");
    match admin.execute(&close) {
        Err(error) if error.has_code(CANNOT_USER) => return Ok(()),
        closed => closed.map_err(explain)?,
    };
    end_connections(admin, login)?;
    match admin.execute(&Sql::new("DROP USER ").ident(login)) {
        Err(error) if error.has_code(CANNOT_USER) => Ok(()),
        dropped => dropped.map(drop).map_err(explain),
    }
}

/// Ends the login's connections until the server finds none to end. It tells how many it has
/// signalled, and goes on counting one that is still undoing its work.
fn end_connections(admin: &Connection, login: &str) -> Result<(), Error> {
    for look in 1..=LOOKS_MAX {
        let signalled =
            admin.execute(&Sql::new("KILL HARD USER ").ident(login)).map_err(explain)?;
        if signalled == 0 {
            return Ok(());
        }
        admin.query(&Sql::new("SELECT SLEEP(0.01 * ").number(look).text(")"))?;
    }
    let message = format!("connections of `{login}` have not ended yet: it is closed, try again");
    Err(Error::new(ErrorKind::Timeout, message).after_sending())
}

fn explain(error: Error) -> Error {
    if error.kind == ErrorKind::Denied {
        return error.with_advice("the connection's user needs CREATE USER and CONNECTION ADMIN");
    }
    error
}

/// With pauses of 10 to 150 ms more than a second, where connections end within a few
/// milliseconds. Two statements a look stay under the call's 64.
const LOOKS_MAX: u64 = 15;
