//! Lies about the end: makes logins as it should, and its `revoke` says `ok` without doing
//! anything. No sandbox can see that; the conformance suite must.

use std::collections::BTreeMap;

use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, Issue, Lease, Provider, Revoke, Secret, rfc3339};

struct ForgetsToRevoke;

claviger_plugin_sdk::export!(ForgetsToRevoke, manifest = "login.json");

type Ignored = BTreeMap<String, String>;

impl Provider for ForgetsToRevoke {
    type Settings = Ignored;
    type Parameters = Ignored;

    fn issue(issue: &Issue<Ignored, Ignored>, lease: &Lease) -> Result<(), Error> {
        let admin = Connection::open("admin")?;
        let login = format!("clav_{}", issue.intent);
        let password = Secret::generate(192)?;
        lease.set_field("user", &login)?;
        lease.set_secret("password", &password)?;
        admin.transaction(&[
            Sql::new("DROP ROLE IF EXISTS ").ident(&login),
            Sql::new("CREATE ROLE ")
                .ident(&login)
                .text(" LOGIN PASSWORD ")
                .scram_sha256(&password, 1)
                .text(" VALID UNTIL ")
                .literal(&rfc3339(issue.expires_at)),
        ])
    }

    fn revoke(_: &Revoke<Ignored>) -> Result<(), Error> {
        Ok(())
    }
}
