//! Issues MariaDB logins that die with the session. Opens no socket and sees no password: it
//! composes SQL, and the host quotes and runs it.
//!
//! Tested on MariaDB 10.11; see `README.md` for what is different on MySQL 8.

mod create;
mod remove;
mod rotate;
mod settings;

use claviger_plugin_sdk::sql::Connection;
use claviger_plugin_sdk::{
    Config, Error, Issue, Lease, Problem, Provider, Revoke, Rotate, RotateRoot, Secret,
};
use settings::{Parameters, Settings};

/// The plugin: one account per credential, named after its intent.
#[derive(Debug)]
pub struct Mysql;

claviger_plugin_sdk::export!(Mysql, manifest = "manifest.json", rotates);

impl Provider for Mysql {
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
        create::login(&admin, &login, &issue.parameters, &password)
    }

    fn revoke(revoke: &Revoke<Settings>) -> Result<(), Error> {
        let admin = Connection::open(ADMIN)?;
        remove::login(&admin, &login_name(&revoke.intent))
    }
}

impl RotateRoot for Mysql {
    fn rotate_root(rotate: &Rotate<Settings>) -> Result<(), Error> {
        rotate::own_password(&Connection::open(&rotate.connection)?, &rotate.secret)
    }
}

/// The name of an intent's account, and the only thing that `revoke` needs. Its host is `%`
/// always: an account is its name and its host together, and `revoke` knows no parameters.
fn login_name(intent: &str) -> String {
    format!("{LOGIN_PREFIX}{intent}")
}

const ADMIN: &str = "admin";
const LOGIN_PREFIX: &str = "clav_";
/// Far beyond 128 bits, below which a verifier without salt and stretching could be searched.
const PASSWORD_BITS: u32 = 192;
/// An account that `CREATE USER` finds and the other statements miss.
const CANNOT_USER: &str = "1396";
