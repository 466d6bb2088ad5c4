//! Issues sessions of AWS roles. Sends one request to STS, which the host authenticates; reads the
//! access key's id and the expiry of the answer, and moves the secrets on, unseen. Has IAM replace
//! the host's own access key.

mod names;
mod policy;
mod refusal;
mod request;
mod rotate;
mod settings;

use claviger_plugin_sdk::http::Response;
use claviger_plugin_sdk::{
    Config, DeleteKey, Error, ErrorKind, Issue, Lease, MakeKey, NewKey, Problem, Provider, Revoke,
    RotateKey, log, rfc3339, unix_secs,
};
use settings::{Parameters, Settings};

/// The plugin: one role session per credential, named after Claviger's session and requester.
#[derive(Debug)]
pub struct AwsSts;

claviger_plugin_sdk::export!(AwsSts, manifest = "manifest.json", rotates_keys);

impl Provider for AwsSts {
    type Settings = Settings;
    type Parameters = Parameters;

    fn validate(config: &Config<Settings, Parameters>) -> Vec<Problem> {
        settings::problems(config)
    }

    fn issue(issue: &Issue<Settings, Parameters>, lease: &Lease) -> Result<(), Error> {
        let answer = refusal::check(request::of(issue)?.send()?)?;
        let at = |name: &str| {
            let operation = issue.settings.identity.operation();
            format!("/{operation}Response/{operation}Result/{name}")
        };
        let expires_at = expiry(&answer, &at("Credentials/Expiration"), issue.expires_at)?;
        let access_key_id = answer.require(&at("Credentials/AccessKeyId"))?;
        lease.set_expires_at(expires_at)?;
        lease.set_field("access_key_id", &access_key_id)?;
        let take = |name: &str| answer.take_secret(&at(name));
        lease.set_secret("secret_access_key", &take("Credentials/SecretAccessKey")?)?;
        lease.set_secret("session_token", &take("Credentials/SessionToken")?)?;
        lease.set_field("region", &issue.parameters.region)?;
        lease.set_field("default_region", &issue.parameters.region)?;
        lease.set_field("expiration", &rfc3339(expires_at))?;
        lease.set_join_key("access_key_id", &access_key_id)?;
        lease.set_join_key("assumed_role_arn", &answer.require(&at("AssumedRoleUser/Arn"))?)?;
        lease.set_join_key("source_identity", &names::source_identity(&issue.requester))
    }

    /// STS has no call that ends a session: it ends at its expiry, as the manifest declares.
    fn revoke(revoke: &Revoke<Settings>) -> Result<(), Error> {
        let fields = [("scope", revoke.scope.as_str()), ("intent", revoke.intent.as_str())];
        log::info("an AWS session ends by itself, at its expiry at the latest", &fields);
        Ok(())
    }
}

impl RotateKey for AwsSts {
    fn make_key(make: &MakeKey<Settings>) -> Result<NewKey, Error> {
        rotate::make(&make.id_in_force)
    }

    fn delete_key(delete: &DeleteKey<Settings>) -> Result<(), Error> {
        rotate::delete(&delete.id)
    }
}

/// When the credential ends: as STS says, and never after `asked`.
fn expiry(answer: &Response, location: &str, asked: u64) -> Result<u64, Error> {
    let text = answer.require(location)?;
    let message = format!("STS wrote the expiry as `{text}`, which is no time");
    let no_time = Error::new(ErrorKind::Other, message).after_sending();
    within(unix_secs(&text).ok_or(no_time)?, asked)
}

/// Some seconds beyond `asked` come from what passed since the permission, since STS gives no less
/// than 15 minutes, and from clocks that differ. The credential then counts as ended at `asked`.
/// With more, it would be another credential than the permitted one: it is dropped, and since
/// nobody else ever held it, nobody can use it.
fn within(told: u64, asked: u64) -> Result<u64, Error> {
    let late_secs = told.saturating_sub(asked);
    if late_secs > LATE_SECS_MAX {
        let message = format!(
            "the session would end {late_secs} s later than permitted, so it was dropped: set the \
             broker's clock right"
        );
        return Err(Error::new(ErrorKind::Conflict, message).after_sending());
    }
    Ok(told.min(asked))
}

/// More than the 15 seconds that may pass between permission and request plus the drift of a clock
/// that somebody watches; far less than the 900 seconds of the shortest session.
const LATE_SECS_MAX: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_counts_as_ended_when_its_permission_ends() {
        for (told, asked, expect) in [
            (1_000, 1_000, Some(1_000)),
            (990, 1_000, Some(990)),
            (1_014, 1_000, Some(1_000)),
            (1_060, 1_000, Some(1_000)),
            (1_061, 1_000, None),
        ] {
            assert_eq!(within(told, asked).ok(), expect, "{told} {asked}");
        }
    }
}
