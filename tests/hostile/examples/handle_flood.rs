//! Attacks the host's tables: makes handles by the thousand and lets none go. Counted secrets are
//! refused politely; whatever else runs over the table of a call must end the call.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::sql::{Connection, Sql};
use claviger_plugin_sdk::{Error, Lease, Secret};

struct HandleFlood;

claviger_plugin_sdk::export!(Hostile<HandleFlood>, manifest = "query.json");

impl Attack for HandleFlood {
    fn run(request: &Request, _: &Lease) -> Result<String, Error> {
        let made = match request.parameters.get("of").map(String::as_str) {
            Some("statements") => hoard(|| Ok(Sql::new("SELECT 1"))),
            Some("connections") => hoard(|| Connection::open("admin")),
            Some("rows") => {
                let admin = Connection::open("admin")?;
                hoard(|| admin.query(&Sql::new("SELECT 1")))
            }
            _ => hoard(|| Secret::generate(128)),
        };
        Ok(made)
    }
}

/// Makes as many as it gets, and tells how many and what the host said.
fn hoard<T>(make: impl Fn() -> Result<T, Error>) -> String {
    let mut hoarded = Vec::new();
    let mut said = String::new();
    for _ in 0..HANDLES {
        match make() {
            Ok(handle) => hoarded.push(handle),
            Err(error) => said = error.message,
        }
    }
    format!("{} made: {said}", hoarded.len())
}

/// Far more than the 256 that a call may hold.
const HANDLES: usize = 1_000;
