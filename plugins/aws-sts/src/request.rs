//! The one request to STS: which role, for how long, limited by what, and for whom.

use claviger_plugin_sdk::http::Request;
use claviger_plugin_sdk::{Error, ErrorKind, Issue};
use serde_json::{Value, json};

use crate::settings::{Identity, Parameters, Settings};
use crate::{names, policy};

/// What to send. The host signs it, or adds the broker's token.
pub fn of(issue: &Issue<Settings, Parameters>) -> Result<Request<'static>, Error> {
    let fields = fields(issue)?;
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let request = Request::post("sts").path("/").form(&fields);
    Ok(match issue.settings.identity {
        Identity::AccessKey => request,
        Identity::WebIdentity => request.claims(&claims(issue)),
    })
}

fn fields(issue: &Issue<Settings, Parameters>) -> Result<Vec<(String, String)>, Error> {
    let Parameters { role_arn, policy, policy_arns, external_id, .. } = &issue.parameters;
    let text = str::to_owned;
    let mut fields = vec![
        (text("Action"), text(issue.settings.identity.operation())),
        (text("Version"), text(API_VERSION)),
        (text("RoleArn"), role_arn.clone()),
        (text("RoleSessionName"), names::role_session_name(&issue.session, &issue.requester)),
        (text("DurationSeconds"), life_secs(issue.now, issue.expires_at).to_string()),
    ];
    if let Some(policy) = policy {
        let compiled = policy::compile(policy).map_err(|problem| {
            Error::new(ErrorKind::InvalidConfig, format!("the scope's `policy` {problem}"))
        })?;
        fields.push((text("Policy"), compiled));
    }
    let arns = (1..).zip(policy_arns);
    fields.extend(arns.map(|(n, arn)| (format!("PolicyArns.member.{n}.arn"), arn.clone())));
    // With a token, AWS takes these from its claims alone.
    if issue.settings.identity == Identity::AccessKey {
        fields.extend(external_id.iter().map(|id| (text("ExternalId"), id.clone())));
        fields.push((text("SourceIdentity"), names::source_identity(&issue.requester)));
        for (n, (key, value)) in (1..).zip(tags(issue)) {
            fields.push((format!("Tags.member.{n}.Key"), text(key)));
            fields.push((format!("Tags.member.{n}.Value"), value));
            fields.push((format!("TransitiveTagKeys.member.{n}"), text(key)));
        }
    }
    Ok(fields)
}

/// What a token says instead: see "Pass session tags in AWS STS" and "Monitor and control actions
/// taken with assumed roles" in the IAM user guide.
fn claims(issue: &Issue<Settings, Parameters>) -> Value {
    let tags = tags(issue);
    let one_each = tags.iter().map(|(key, value)| ((*key).to_owned(), json!([value])));
    json!({
        "https://aws.amazon.com/tags": {
            "principal_tags": one_each.collect::<serde_json::Map<_, _>>(),
            "transitive_tag_keys": tags.each_ref().map(|(key, _)| *key),
        },
        "https://aws.amazon.com/source_identity": names::source_identity(&issue.requester),
    })
}

/// Tags that CloudTrail records once, when the session begins, and that policies can speak of.
/// Transitive, so that a session of a further role carries them too.
fn tags(issue: &Issue<Settings, Parameters>) -> [(&'static str, String); 4] {
    [
        ("claviger:session", &issue.session),
        ("claviger:lease", &issue.intent),
        ("claviger:role", &issue.role),
        ("claviger:requester", &issue.requester),
    ]
    .map(|(key, value)| (key, names::tag_value(value)))
}

/// What is left of the permitted life. The broker permits no less than STS gives, but a second or
/// two have passed since.
fn life_secs(now: u64, expires_at: u64) -> u64 {
    expires_at.saturating_sub(now).clamp(LIFE_SECS_MIN, LIFE_SECS_MAX)
}

/// The version of the STS API, the only one.
const API_VERSION: &str = "2011-06-15";
/// STS refuses less; `ttl.min-secs` in the manifest says the same to the broker.
const LIFE_SECS_MIN: u64 = 900;
/// STS refuses more, as the broker does.
const LIFE_SECS_MAX: u64 = 43_200;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn issue(identity: &str, parameters: &str) -> Issue<Settings, Parameters> {
        Issue {
            intent: "intent".to_owned(),
            session: "session".to_owned(),
            role: "report builder".to_owned(),
            requester: "alice@example.org".to_owned(),
            scope: "aws/reports".to_owned(),
            settings: serde_json::from_str(&format!(r#"{{"identity":"{identity}"}}"#)).unwrap(),
            parameters: serde_json::from_str(parameters).unwrap(),
            now: 1_000,
            expires_at: 2_800,
        }
    }

    fn written(identity: &str, parameters: &str) -> Vec<String> {
        let fields = fields(&issue(identity, parameters)).unwrap();
        fields.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn a_key_says_for_whom_in_every_way_that_aws_knows() {
        let parameters = r#"{"role_arn":"arn","region":"r","external_id":"x1",
            "policy":{"Statement":[]},"policy_arns":["p","q"]}"#;
        assert_eq!(
            written("access-key", parameters),
            [
                "Action=AssumeRole",
                "Version=2011-06-15",
                "RoleArn=arn",
                "RoleSessionName=session.alice@example.org",
                "DurationSeconds=1800",
                r#"Policy={"Statement":[],"Version":"2012-10-17"}"#,
                "PolicyArns.member.1.arn=p",
                "PolicyArns.member.2.arn=q",
                "ExternalId=x1",
                "SourceIdentity=alice@example.org",
                "Tags.member.1.Key=claviger:session",
                "Tags.member.1.Value=session",
                "TransitiveTagKeys.member.1=claviger:session",
                "Tags.member.2.Key=claviger:lease",
                "Tags.member.2.Value=intent",
                "TransitiveTagKeys.member.2=claviger:lease",
                "Tags.member.3.Key=claviger:role",
                "Tags.member.3.Value=report builder",
                "TransitiveTagKeys.member.3=claviger:role",
                "Tags.member.4.Key=claviger:requester",
                "Tags.member.4.Value=alice@example.org",
                "TransitiveTagKeys.member.4=claviger:requester",
            ]
        );
    }

    #[test]
    fn a_token_goes_without_the_parameters_that_aws_reads_from_it() {
        let fields = written("web-identity", r#"{"role_arn":"arn","region":"r"}"#);
        assert_eq!(fields.len(), 5, "{fields:?}");
        assert_eq!(fields.first().unwrap(), "Action=AssumeRoleWithWebIdentity");
        let claims = claims(&issue("web-identity", r#"{"role_arn":"arn","region":"r"}"#));
        assert_eq!(
            claims,
            json!({
                "https://aws.amazon.com/tags": {
                    "principal_tags": {
                        "claviger:session": ["session"],
                        "claviger:lease": ["intent"],
                        "claviger:role": ["report builder"],
                        "claviger:requester": ["alice@example.org"],
                    },
                    "transitive_tag_keys":
                        ["claviger:session", "claviger:lease", "claviger:role", "claviger:requester"],
                },
                "https://aws.amazon.com/source_identity": "alice@example.org",
            })
        );
    }

    #[test]
    fn a_life_is_what_is_left_of_it_within_what_sts_gives() {
        for (now, expires_at, expect) in [
            (1_000, 2_800, 1_800),
            (1_002, 1_900, 900),
            (1_000, 1_900, 900),
            (1_000, 44_200, 43_200),
            (1_000, 44_201, 43_200),
        ] {
            assert_eq!(life_secs(now, expires_at), expect, "{now} {expires_at}");
        }
    }
}
