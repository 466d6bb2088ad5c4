//! Gives the connection's own login a new password. Every role may do that to itself; sessions that
//! are open go on.

use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, Rotate};

use crate::settings::Settings;

/// One statement: it takes effect whole or not at all.
pub fn own_password(admin: &Connection, rotate: &Rotate<Settings>) -> Result<(), Error> {
    let iterations = rotate.settings.scram_iterations;
    let alter = Sql::new("ALTER ROLE CURRENT_USER PASSWORD ");
    admin.execute(&alter.scram_sha256(&rotate.secret, iterations)).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use claviger_plugin_sdk::testing::Host;
    use claviger_plugin_sdk::{RotateRoot, Secret};

    use super::*;
    use crate::Postgres;

    #[test]
    fn sends_a_verifier_and_never_the_password() {
        let seen = Host::new().sql("admin", |_| Ok(Vec::new())).run(|| {
            let settings = Settings { scram_iterations: 1, reassign_owned_to: None };
            let (connection, secret) = ("admin".to_owned(), Secret::generate(192)?);
            Postgres::rotate_root(&Rotate { connection, settings, secret, now: 0 })
        });
        seen.result.unwrap();
        let [statement] = seen.statements.as_slice() else { unreachable!("one statement") };
        let begins = "ALTER ROLE CURRENT_USER PASSWORD '<scram-sha-256 1 of ";
        assert!(statement.starts_with(begins), "{statement}");
    }
}
