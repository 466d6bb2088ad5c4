//! Tokens that the broker signs with its own key, for upstreams that trust it as an issuer.
//!
//! The host names issuer, subject and lifetime; a plugin chooses among the audiences that the
//! operator granted and may add claims. It never sees the token: it is a [`Secret`].

use crate::bindings::claviger::jwt::jwt;
use crate::{Error, Secret};

/// The issuer's URL: the claim `iss` of the tokens signed through `connection`.
pub fn issuer(connection: &str) -> Result<String, Error> {
    jwt::issuer(connection)
}

/// Signs a token for `audience` that ends at `expires_at`, in Unix seconds and not after the
/// request's. Only while issuing.
///
/// `claims` is a JSON object of further claims, `"{}"` for none. It must not name `iss`, `sub`,
/// `aud`, `iat`, `nbf`, `exp`, `jti`, `cnf` or `claviger`, which the host sets or withholds.
///
/// ```no_run
/// # use claviger_plugin_sdk::{Error, Issue, Lease, jwt};
/// # fn issue(issue: &Issue<(), ()>, lease: &Lease) -> Result<(), Error> {
/// let token = jwt::sign("broker", "sts.amazonaws.com", "{}", issue.expires_at)?;
/// lease.set_secret("token", &token)
/// # }
/// ```
pub fn sign(
    connection: &str,
    audience: &str,
    claims: &str,
    expires_at: u64,
) -> Result<Secret, Error> {
    jwt::sign(connection, audience, claims, expires_at)
}
