//! Gives the connection's own account a new password. Sessions that are open go on.

use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, Secret};

/// One statement: it takes effect whole or not at all. `CURRENT_USER()` is the account that logged
/// in, its host included, which the plugin does not know.
pub fn own_password(admin: &Connection, secret: &Secret) -> Result<(), Error> {
    let alter = Sql::new("ALTER USER CURRENT_USER() IDENTIFIED WITH mysql_native_password AS ");
    admin.execute(&alter.mysql_native(secret)).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use claviger_plugin_sdk::testing::Host;

    use super::*;

    #[test]
    fn sends_a_verifier_and_never_the_password() {
        let seen = Host::new()
            .sql("admin", |_| Ok(Vec::new()))
            .run(|| own_password(&Connection::open("admin")?, &Secret::generate(192)?));
        seen.result.unwrap();
        let [statement] = seen.statements.as_slice() else { unreachable!("one statement") };
        assert!(statement.contains("ALTER USER CURRENT_USER()"), "{statement}");
        assert!(statement.contains("'<mysql-native of "), "{statement}");
    }
}
