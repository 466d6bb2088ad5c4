//! Attacks the grants: opens SQL connections that its manifest does not name. The host must
//! refuse each with `denied`, whatever the name looks like.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::sql::Connection;
use claviger_plugin_sdk::{Error, Lease};

struct ForeignConnection;

claviger_plugin_sdk::export!(Hostile<ForeignConnection>, manifest = "plain.json");

impl Attack for ForeignConnection {
    fn run(_: &Request, _: &Lease) -> Result<String, Error> {
        let outcomes = NAMES.map(|name| match Connection::open(name) {
            Ok(_) => format!("{name:?}: opened"),
            Err(error) => format!("{name:?}: {:?}", error.kind),
        });
        Ok(outcomes.join("\n"))
    }
}

const NAMES: [&str; 7] = [
    "admin",
    "",
    "*",
    "../admin",
    "other-backend/admin",
    "admin\0",
    "postgres://postgres@127.0.0.1:5432/postgres",
];
