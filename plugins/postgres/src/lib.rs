//! Issues PostgreSQL logins that die with the session. Opens no socket and sees no password: it
//! composes SQL, and the host quotes and runs it.
//!
//! Tested on PostgreSQL 15; see `README.md` for what 16 changed.

mod create;
mod remove;
mod rotate;
mod settings;

use claviger_plugin_sdk::sql::Connection;
use claviger_plugin_sdk::{
    Config, Error, Issue, Lease, Problem, Provider, Revoke, RevokeAll, Rotate, RotateRoot, Secret,
};
use settings::{Parameters, Settings};

/// The plugin: one login role per credential, named after its intent.
#[derive(Debug)]
pub struct Postgres;

claviger_plugin_sdk::export!(Postgres, manifest = "manifest.json", batch, rotates);

impl Provider for Postgres {
    type Settings = Settings;
    type Parameters = Parameters;

    fn validate(config: &Config<Settings, Parameters>) -> Vec<Problem> {
        settings::problems(config)
    }

    fn issue(issue: &Issue<Settings, Parameters>, lease: &Lease) -> Result<(), Error> {
        let admin = Connection::open(ADMIN)?;
        let login = login_name(&issue.intent);
        let password = Secret::generate(PASSWORD_BITS)?;
        lease.set_field("host", &admin.host())?;
        lease.set_field("port", &admin.port().to_string())?;
        lease.set_field("dbname", &admin.database())?;
        lease.set_field("user", &login)?;
        lease.set_secret("password", &password)?;
        lease.set_join_key("db_user", &login)?;
        create::login(&admin, issue, &password)
    }

    fn revoke(revoke: &Revoke<Settings>) -> Result<(), Error> {
        let admin = Connection::open(ADMIN)?;
        remove::login(&admin, &login_name(&revoke.intent), &revoke.settings)
    }
}

impl RevokeAll for Postgres {
    fn revoke_all(revokes: &[Revoke<Settings>]) -> Result<(), Error> {
        let admin = Connection::open(ADMIN)?;
        let logins: Vec<_> = revokes.iter().map(|revoke| login_name(&revoke.intent)).collect();
        remove::logins(&admin, &logins)
    }
}

impl RotateRoot for Postgres {
    fn rotate_root(rotate: &Rotate<Settings>) -> Result<(), Error> {
        rotate::own_password(&Connection::open(&rotate.connection)?, rotate)
    }
}

/// The name of an intent's login, and the only thing that `revoke` needs: 31 of the 63 bytes that
/// PostgreSQL allows.
fn login_name(intent: &str) -> String {
    format!("{LOGIN_PREFIX}{intent}")
}

const ADMIN: &str = "admin";
const LOGIN_PREFIX: &str = "clav_";
/// Far beyond 128 bits, from which on a verifier of one iteration cannot be searched.
const PASSWORD_BITS: u32 = 192;
