//! Creates a login; renews it when an earlier answer was lost. The server keeps no transaction
//! round these statements, so each may be the last one: what it leaves is a login without rights
//! and with a password that nobody knows, which `revoke` finds by its name.

use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, ErrorKind, Secret};

use crate::CANNOT_USER;
use crate::settings::Parameters;

/// Leaves exactly one login of this name, with this password.
pub fn login(
    admin: &Connection,
    login: &str,
    parameters: &Parameters,
    password: &Secret,
) -> Result<(), Error> {
    let role = &parameters.grant_role;
    let create = with_attributes(Sql::new("CREATE USER ").ident(login), parameters, password);
    let made = match admin.execute(&create) {
        Err(error) if error.has_code(CANNOT_USER) => renew(admin, login, parameters, password),
        made => made,
    };
    made.map_err(|error| explain(error, role))?;
    let grant = Sql::new("GRANT ").ident(role).text(" TO ").ident(login);
    let default = Sql::new("SET DEFAULT ROLE ").ident(role).text(" FOR ").ident(login);
    admin
        .execute(&grant)
        .and_then(|_| admin.execute(&default))
        .map(drop)
        // The host speaks of the statement that failed; the call has made a login by now.
        .map_err(|error| explain(error.after_sending(), role))
}

/// Gives an intent's existing login a new password. It does not say `ACCOUNT UNLOCK`: a login
/// whose end has begun stays closed, whatever arrives late.
fn renew(
    admin: &Connection,
    login: &str,
    parameters: &Parameters,
    password: &Secret,
) -> Result<u64, Error> {
    let alter = with_attributes(Sql::new("ALTER USER ").ident(login), parameters, password);
    admin.execute(&alter)
}

fn with_attributes(statement: Sql, parameters: &Parameters, password: &Secret) -> Sql {
    statement
        .text(" IDENTIFIED WITH mysql_native_password AS ")
        .mysql_native(password)
        .text(" WITH MAX_USER_CONNECTIONS ")
        .number(parameters.max_user_connections.into())
}

fn explain(error: Error, role: &str) -> Error {
    if error.has_code(INVALID_ROLE) {
        return error.with_kind(ErrorKind::NotFound).with_advice(&format!(
            "create the role `{role}`, grant it to the connection's user `WITH ADMIN OPTION`, or \
             name another one as `grant_role`"
        ));
    }
    if error.has_code(CANNOT_USER) {
        return error
            .with_kind(ErrorKind::Conflict)
            .with_advice("a role of this name exists: it is none of the broker's, so look at it");
    }
    if error.kind == ErrorKind::Denied {
        return error.with_advice(&format!(
            "the connection's user needs CREATE USER, UPDATE on `mysql`.*, and `{role}` \
             WITH ADMIN OPTION"
        ));
    }
    error
}

/// SQLSTATE of `ER_INVALID_ROLE`: there is no such role.
const INVALID_ROLE: &str = "OP000";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use claviger_plugin_sdk::testing::Host;

    use super::*;

    #[test]
    fn a_statement_that_was_not_sent_does_not_unmake_the_login() {
        let parameters = Parameters { grant_role: "readers".to_owned(), max_user_connections: 1 };
        for (fails, sent) in [("CREATE USER", false), ("GRANT", true), ("SET DEFAULT", true)] {
            let host = Host::new().sql("admin", move |statement| {
                let unsent = Error::new(ErrorKind::Unavailable, "the connection was cut");
                if statement.starts_with(fails) { Err(unsent) } else { Ok(Vec::new()) }
            });
            let seen = host.run(|| {
                let admin = Connection::open("admin")?;
                login(&admin, "clav_x", &parameters, &Secret::generate(192)?)
            });
            assert_eq!(seen.result.unwrap_err().request_sent, sent, "{fails}");
        }
    }

    #[test]
    fn says_what_the_operator_must_do() {
        for (code, kind, expect, advice) in [
            ("OP000", ErrorKind::Other, ErrorKind::NotFound, "create the role `readers`"),
            ("1396", ErrorKind::NotFound, ErrorKind::Conflict, "a role of this name"),
            ("1044", ErrorKind::Denied, ErrorKind::Denied, "UPDATE on `mysql`.*"),
            ("1064", ErrorKind::InvalidInput, ErrorKind::InvalidInput, "refused"),
        ] {
            let mut error = Error::new(kind, "refused").after_sending();
            error.code = Some(code.to_owned());
            let error = explain(error, "readers");
            assert_eq!(error.kind, expect, "{code}");
            assert!(error.message.contains(advice), "{}", error.message);
            assert!(error.request_sent, "whether it was sent is the host's to say");
        }
    }
}
