//! Attacks the opacity of secrets: mints honestly, then tells the log, the lease and an error
//! everything it can see: each getter, each error text, what the database shows, and every
//! readable run of bytes in its memory. Neither the root password nor the minted one may be in it.
//!
//! With the parameter `end` = `error` the findings go into the error instead of the lease.

use claviger_hostile::{Attack, Findings, Hostile, Request};
use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, ErrorKind, Lease, Secret};

struct SecretFinder;

claviger_plugin_sdk::export!(Hostile<SecretFinder>, manifest = "sql.json");

impl Attack for SecretFinder {
    fn run(request: &Request, lease: &Lease) -> Result<String, Error> {
        let secret = Secret::generate(192)?;
        let mut seen = Findings::default();
        seen.add("request", &format!("{request:?}"));
        seen.add("secret", &format!("{secret:?}"));
        seen.add("too weak", &format!("{:?}", Secret::generate(8)));
        ask_the_database(request, &secret, &mut seen)?;
        lease.set_field("user", &login(request))?;
        lease.set_secret("password", &secret)?;
        seen.add("field that is secret", &format!("{:?}", lease.set_field("password", "mine")));
        seen.add("secret as a field", &format!("{:?}", lease.set_secret("report", &secret)));
        for (name, value) in std::env::vars() {
            seen.add(&name, &value);
        }
        seen.add_memory();
        let rest = seen.tell();
        match request.parameters.get("end").map(String::as_str) {
            Some("error") => Err(Error::new(ErrorKind::Other, rest)),
            _ => Ok(rest),
        }
    }
}

fn login(request: &Request) -> String {
    format!("clav_{}", request.intent)
}

fn ask_the_database(request: &Request, secret: &Secret, seen: &mut Findings) -> Result<(), Error> {
    let admin = Connection::open("admin")?;
    let create = Sql::new("CREATE ROLE ")
        .ident(&login(request))
        .text(" LOGIN PASSWORD ")
        .scram_sha256(secret, 1);
    admin.execute(&create)?;
    seen.add("where", &format!("{} {} {}", admin.host(), admin.port(), admin.database()));
    for query in QUERIES {
        seen.add(query, &format!("{:?}", admin.query(&Sql::new(query))));
    }
    // The verifier inside statements that fail: error texts like to quote their statement.
    for (how, sql) in [
        ("syntax", Sql::new("SELEC ").scram_sha256(secret, 1)),
        ("cast", Sql::new("SELECT CAST(").scram_sha256(secret, 1).text(" AS int)")),
        ("too many iterations", Sql::new("SELECT ").scram_sha256(secret, 2_000_000)),
        ("column", Sql::new("SELECT nothing_here, ").scram_sha256(secret, 1)),
    ] {
        seen.add(how, &format!("{:?}", admin.query(&sql)));
    }
    Ok(())
}

const QUERIES: [&str; 7] = [
    "SELECT current_user, session_user, current_setting('server_version')",
    "SELECT name, setting FROM pg_settings WHERE source NOT IN ('default', 'override')",
    "SELECT pid, usename, client_addr, query FROM pg_stat_activity",
    "SELECT rolname, rolpassword FROM pg_authid",
    "SELECT conninfo FROM pg_stat_wal_receiver",
    "SELECT umoptions FROM pg_user_mappings",
    "SELECT setting FROM pg_db_role_setting, unnest(setconfig) AS setting",
];
