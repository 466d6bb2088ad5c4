//! Ends a login: close it, end its sessions, take its objects away, drop it. Every step may be
//! repeated, so a crash between any two costs nothing but the repetition.

use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, ErrorKind};

use crate::settings::Settings;

/// Leaves no login of this name and no session of it.
///
/// The order matters. A dropped role's sessions go on working and can no longer be found by
/// name, so they end first; and they end only after the login is closed and that is committed,
/// so that none can follow them.
pub fn login(admin: &Connection, login: &str, settings: &Settings) -> Result<(), Error> {
    // Only here does an unknown role mean that there is nothing left to do: later it may be the
    // heir that is unknown.
    match close(admin, &[login]) {
        Err(error) if error.has_code(UNDEFINED_OBJECT) => return Ok(()),
        closed => closed.map_err(|error| explain(error, login))?,
    }
    let dropped = match drop_when_unused(admin, &[login], LOOKS_MAX) {
        Err(error) if error.has_code(DEPENDENT_OBJECTS) => {
            drop_with_objects(admin, login, settings)
        }
        dropped => dropped,
    };
    dropped.map_err(|error| explain(error, login))
}

/// Leaves none of these logins and no session of them, in the same order and with a few statements
/// for all. Fails, for each to be ended alone, if one of them owns anything.
pub fn logins(admin: &Connection, logins: &[String]) -> Result<(), Error> {
    let look = Sql::new("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY (");
    let found = admin.query(&look.literal(&array(logins)).text("::name[])"))?;
    let there: Vec<&str> = found.iter().filter_map(|row| row.first()?.as_deref()).collect();
    if there.is_empty() {
        return Ok(());
    }
    close(admin, &there)?;
    drop_when_unused(admin, &there, LOOKS_TOGETHER_MAX)
}

/// Not flushed on its own: if the server crashes before the drop is, the sessions are gone too
/// and `revoke` comes again.
fn close(admin: &Connection, logins: &[&str]) -> Result<(), Error> {
    let mut statements = vec![Sql::new("SET LOCAL synchronous_commit = off")];
    let closed = |login: &&str| Sql::new("ALTER ROLE ").ident(login).text(" NOLOGIN");
    statements.extend(logins.iter().map(closed));
    admin.transaction(&statements)
}

/// Signals the logins' sessions until a look finds none, and drops them in the same breath.
fn drop_when_unused(admin: &Connection, logins: &[&str], looks: u64) -> Result<(), Error> {
    for look in 1..=looks {
        match drop_if_unused(admin, logins) {
            Err(error) if error.has_code(NOT_A_NUMBER) => {}
            ended => return ended,
        }
        admin.query(&Sql::new("SELECT pg_catalog.pg_sleep(0.01 * ").number(look).text(")"))?;
    }
    let names = logins.join("`, `");
    let message = format!("sessions of `{names}` have not ended yet: it is closed, try again");
    Err(Error::new(ErrorKind::Timeout, message).after_sending())
}

/// One round trip: a look that finds sessions signals them and fails on purpose, which keeps the
/// transaction from reaching the drop.
fn drop_if_unused(admin: &Connection, logins: &[&str]) -> Result<(), Error> {
    let look = Sql::new(
        "SELECT (CASE count(pg_catalog.pg_terminate_backend(pid)) WHEN 0 THEN '0' \
         ELSE 'the login still has sessions' END)::int \
         FROM pg_catalog.pg_stat_activity WHERE usename = ANY (",
    );
    let look = look.literal(&array(logins)).text("::name[])");
    admin.transaction(&[look, drop_roles(logins)])
}

/// Drops a login together with what it owns or was granted in the connection's database. The
/// membership is what `DROP OWNED` asks for, and goes with the role.
fn drop_with_objects(admin: &Connection, login: &str, settings: &Settings) -> Result<(), Error> {
    let mut statements = vec![Sql::new("GRANT ").ident(login).text(" TO CURRENT_USER")];
    if let Some(heir) = &settings.reassign_owned_to {
        statements.push(Sql::new("REASSIGN OWNED BY ").ident(login).text(" TO ").ident(heir));
    }
    statements.push(Sql::new("DROP OWNED BY ").ident(login));
    statements.push(drop_roles(&[login]));
    admin.transaction(&statements)
}

/// With 32 logins these are the 64 parts that a statement may have.
fn drop_roles(logins: &[&str]) -> Sql {
    logins.iter().enumerate().fold(Sql::new("DROP ROLE "), |sql, (index, name)| {
        let sql = if index > 0 { sql.text(", ") } else { sql };
        sql.ident(name)
    })
}

/// As PostgreSQL writes an array. The names are the plugin's own, of letters, digits and `_`.
fn array<N: AsRef<str>>(logins: &[N]) -> String {
    let names: Vec<_> = logins.iter().map(AsRef::as_ref).collect();
    format!("{{{}}}", names.join(","))
}

fn explain(error: Error, login: &str) -> Error {
    match error.code.as_deref() {
        Some(DEPENDENT_OBJECTS) => error.with_kind(ErrorKind::Conflict).with_advice(&format!(
            "`{login}` is closed and its sessions have ended, but it owns objects that others \
             depend on or that lie in another database: run `DROP OWNED BY {login}` there"
        )),
        Some(INSUFFICIENT_PRIVILEGE) => error.with_kind(ErrorKind::Denied).with_advice(
            "the connection's user needs CREATEROLE, `GRANT pg_signal_backend TO …` and \
             membership in `reassign_owned_to`",
        ),
        Some(UNDEFINED_OBJECT) => error
            .with_kind(ErrorKind::InvalidConfig)
            .with_advice("name an existing role as `reassign_owned_to`"),
        _ => error,
    }
}

/// With pauses of 10 to 150 ms more than a second, where sessions end within a few milliseconds.
/// Three statements a look stay under the call's 64.
const LOOKS_MAX: u64 = 15;
/// With pauses of 10 to 50 ms a sixth of a second for all of them. Beside a statement for each of 32
/// logins, these looks stay under the call's 64 too.
const LOOKS_TOGETHER_MAX: u64 = 5;
/// SQLSTATE `invalid_text_representation`: how the look says that it found sessions. Not a
/// division by zero, which is how the host says that the call's time is up.
const NOT_A_NUMBER: &str = "22P02";
/// SQLSTATE `undefined_object`: a role does not exist.
const UNDEFINED_OBJECT: &str = "42704";
/// SQLSTATE `dependent_objects_still_exist`.
const DEPENDENT_OBJECTS: &str = "2BP01";
/// SQLSTATE `insufficient_privilege`.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_operator_must_do() {
        for (code, kind, advice) in [
            ("2BP01", ErrorKind::Conflict, "run `DROP OWNED BY clav_x` there"),
            ("42501", ErrorKind::Denied, "pg_signal_backend"),
            ("42704", ErrorKind::InvalidConfig, "`reassign_owned_to`"),
            ("57P01", ErrorKind::Other, "refused"),
        ] {
            let mut error = Error::new(ErrorKind::Other, "refused");
            error.code = Some(code.to_owned());
            let error = explain(error, "clav_x");
            assert_eq!(error.kind, kind, "{code}");
            assert!(error.message.contains(advice), "{}", error.message);
        }
    }
}
