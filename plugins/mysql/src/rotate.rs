//! Gives the connection's own account a new password. Sessions that are open go on.

use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, ErrorKind, Secret};

/// One statement changes it: that takes effect whole or not at all. The account is asked for, host
/// included, and named: MariaDB takes `ALTER USER CURRENT_USER() IDENTIFIED …` and does nothing.
pub fn own_password(admin: &Connection, secret: &Secret) -> Result<(), Error> {
    let rows = admin.query(&Sql::new("SELECT CURRENT_USER()"))?;
    let account = rows.first().and_then(|row| row.first().cloned().flatten());
    let parts = account.as_deref().and_then(|account| account.rsplit_once('@'));
    let Some((user, host)) = parts else {
        let message =
            "the server does not say whose password it is: look at `SELECT CURRENT_USER()`";
        return Err(Error::new(ErrorKind::Other, message));
    };
    let alter = Sql::new("ALTER USER ").literal(user).text("@").literal(host);
    let alter = alter.text(" IDENTIFIED WITH mysql_native_password AS ").mysql_native(secret);
    admin.execute(&alter).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use claviger_plugin_sdk::testing::Host;

    use super::*;

    #[test]
    fn sends_a_verifier_and_never_the_password() {
        let seen = Host::new()
            .sql("admin", |sql| Ok(if sql.starts_with("SELECT") { account() } else { vec![] }))
            .run(|| own_password(&Connection::open("admin")?, &Secret::generate(192)?));
        seen.result.unwrap();
        let [_, statement] = seen.statements.as_slice() else { unreachable!("two statements") };
        assert!(statement.contains("ALTER USER 'cla@viger'@'%'"), "{statement}");
        assert!(statement.contains("'<mysql-native of "), "{statement}");
    }

    fn account() -> Vec<claviger_plugin_sdk::sql::Row> {
        vec![vec![Some("cla@viger@%".to_owned())]]
    }
}
