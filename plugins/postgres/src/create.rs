//! Creates a login, in one transaction and one round trip; renews it when an earlier answer was
//! lost.

use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, ErrorKind, Issue, Secret, rfc3339};

use crate::login_name;
use crate::settings::{Parameters, Settings};

type Request = Issue<Settings, Parameters>;

/// Leaves exactly one login for the intent, with this password.
pub fn login(admin: &Connection, issue: &Request, password: &Secret) -> Result<(), Error> {
    let login = login_name(&issue.intent);
    let create = Sql::new("CREATE ROLE ")
        .ident(&login)
        .text(" LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION");
    let label = Sql::new("COMMENT ON ROLE ").ident(&login).text(" IS ").literal(&comment(issue));
    let mut statements = vec![with_attributes(create, issue, password), label];
    statements.extend(rights(&login, &issue.parameters));
    match admin.transaction(&statements) {
        Err(error) if error.has_code(DUPLICATE_OBJECT) => renew(admin, issue, password),
        created => created.map_err(|error| explain(error, &issue.parameters.grant_role)),
    }
}

/// Gives an intent's existing login a new password. It does not say LOGIN: a login whose end has
/// begun stays closed, whatever arrives late.
fn renew(admin: &Connection, issue: &Request, password: &Secret) -> Result<(), Error> {
    let login = login_name(&issue.intent);
    let ours = Sql::new("SELECT 1 FROM pg_catalog.pg_roles WHERE rolcanlogin AND rolname = ")
        .literal(&login)
        .text(" AND pg_catalog.shobj_description(oid, 'pg_authid') = ")
        .literal(&comment(issue));
    if admin.query(&ours)?.is_empty() {
        let message = format!("`{login}` exists and is not the open login of this intent");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let alter = Sql::new("ALTER ROLE ").ident(&login);
    let mut statements = vec![with_attributes(alter, issue, password)];
    statements.extend(rights(&login, &issue.parameters));
    admin.transaction(&statements).map_err(|error| explain(error, &issue.parameters.grant_role))
}

fn with_attributes(statement: Sql, issue: &Request, password: &Secret) -> Sql {
    statement
        .text(" CONNECTION LIMIT ")
        .number(issue.parameters.connection_limit.into())
        .text(" PASSWORD ")
        .scram_sha256(password, issue.settings.scram_iterations)
        .text(" VALID UNTIL ")
        .literal(&rfc3339(issue.expires_at))
}

/// A group is granted and never tables: concurrent grants on one table fail half the time.
fn rights(login: &str, parameters: &Parameters) -> impl Iterator<Item = Sql> {
    let group = Sql::new("GRANT ").ident(&parameters.grant_role).text(" TO ").ident(login);
    let timeout = parameters.statement_timeout.as_ref().map(|timeout| {
        Sql::new("ALTER ROLE ").ident(login).text(" SET statement_timeout = ").literal(timeout)
    });
    std::iter::once(group).chain(timeout)
}

/// What `\du+` shows, and how a login is known to be this session's. Everyone who can connect
/// may read it, so it does not name the requester.
fn comment(issue: &Request) -> String {
    format!("Claviger session {}, role {}", issue.session, issue.role)
}

fn explain(error: Error, group: &str) -> Error {
    match error.code.as_deref() {
        Some(UNDEFINED_OBJECT) => error.with_kind(ErrorKind::NotFound).with_advice(&format!(
            "create the group role `{group}` or name another one as `grant_role`"
        )),
        Some(INSUFFICIENT_PRIVILEGE) => error.with_kind(ErrorKind::Denied).with_advice(&format!(
            "the connection's user needs CREATEROLE and, from PostgreSQL 16 on, \
             `GRANT {group} TO … WITH ADMIN OPTION`"
        )),
        _ => error,
    }
}

/// SQLSTATE `duplicate_object`: the role exists.
const DUPLICATE_OBJECT: &str = "42710";
/// SQLSTATE `undefined_object`: a role does not exist.
const UNDEFINED_OBJECT: &str = "42704";
/// SQLSTATE `insufficient_privilege`.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(code: &str) -> Error {
        let mut error = Error::new(ErrorKind::Other, "refused").after_sending();
        error.code = Some(code.to_owned());
        explain(error, "orders_readonly")
    }

    #[test]
    fn says_what_the_operator_must_do() {
        for (code, kind, advice) in [
            ("42704", ErrorKind::NotFound, "create the group role `orders_readonly`"),
            ("42501", ErrorKind::Denied, "GRANT orders_readonly TO"),
            ("53300", ErrorKind::Other, "refused"),
        ] {
            let error = explained(code);
            assert_eq!(error.kind, kind, "{code}");
            assert!(error.message.contains(advice), "{}", error.message);
            assert!(error.request_sent, "whether it was sent is the host's to say");
        }
    }
}
