//! Sessions of AWS roles, end to end: from a prompt file to boto3 reading a bucket. moto checks
//! signatures and IAM policies; the double in front of it checks and records what moto ignores.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use claviger_e2e::aws::Aws;
use claviger_e2e::broker::Broker;
use claviger_e2e::client::{Agent, Issued, lease_rows, reason};
use claviger_e2e::sts_double::Refusal;
use claviger_e2e::{poll, refusal};
use claviger_proto::v1;
use claviger_test_servers::AccessKey;
use tonic::{Code, Status};
use tonic_types::StatusExt;

#[tokio::test]
async fn boto3_may_do_what_the_role_allows_and_aws_knows_for_whom() {
    let aws = Aws::start();
    let world = aws.world();
    let broker = Broker::start(&world).await;
    let agent = agent(&broker).await;
    let issued = agent.issue("aws/reports").await.expect("a credential");
    let used = said(&aws, &issued, USE);
    let session = agent.session.split_once('_').expect("a prefix").1;
    let name = used["arn"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert!(name.starts_with(&format!("{session}.unix-")), "{name}");
    assert_eq!(used["read"], "region,total\nnorth,42\n");
    assert_eq!(used["write"], "AccessDenied", "the role may not write");
    assert_eq!(issued.field("default_region"), "eu-central-1");

    let asked = aws.sts.requests().pop().expect("one request");
    assert_eq!(asked.signed_by.as_deref(), Some(aws.moto.root_key().id.as_str()));
    let lease = issued.lease.lease_id.split_once('_').expect("a prefix").1;
    let uid = rustix::process::geteuid().as_raw();
    for (field, expect) in [
        ("RoleSessionName", name.as_str()),
        (
            "Policy",
            r#"{"Statement":{"Action":"s3:GetObject","Effect":"Allow","Resource":"arn:aws:s3:::reports/*"},"Version":"2012-10-17"}"#,
        ),
        ("Tags.member.1.Key", "claviger:session"),
        ("Tags.member.1.Value", session),
        ("Tags.member.2.Value", lease),
        ("Tags.member.3.Value", "report-builder"),
        ("Tags.member.4.Key", "claviger:requester"),
        ("Tags.member.4.Value", &format!("unix:{uid}")),
        ("TransitiveTagKeys.member.4", "claviger:requester"),
    ] {
        assert_eq!(asked.fields[field], expect, "{field}");
    }
    assert!(asked.fields["SourceIdentity"].starts_with(&format!("unix-{uid}=")));
    assert!((3_590..=3_600).contains(&duration(&asked.fields)), "{:?}", asked.fields);
    nothing_secret_was_kept(
        &world,
        &broker,
        &[
            &aws.moto.root_key().secret,
            issued.field("secret_access_key"),
            issued.field("session_token"),
        ],
    );
}

#[tokio::test]
async fn a_session_only_expires_and_says_so() {
    let aws = Aws::start();
    let world = aws.world();
    let broker = Broker::start(&world).await;
    let agent = agent(&broker).await;
    let issued = agent.issue("aws/reports").await.expect("a credential");
    assert_eq!(issued.lease.revocation(), v1::RevocationClass::ExpireOnly);
    let left = issued.lease.residual_exposure.expect("told").seconds;
    assert!((3_590..=3_600).contains(&left), "at most its own life, not {left} s");
    agent.close().await.expect("closed");
    poll::until("the lease waits for its expiry", || async {
        let rows = lease_rows(&broker.admin_socket(), &[v1::LeaseState::Lapsing]).await;
        (rows.len() == 1).then_some(())
    })
    .await;
    assert_eq!(said(&aws, &issued, USE)["read"], "region,total\nnorth,42\n");
}

#[tokio::test]
async fn five_minutes_are_refused_or_raised_as_the_scope_says() {
    let aws = Aws::start();
    let world = aws.world();
    let broker = Broker::start(&world).await;
    let agent = agent(&broker).await;
    let refused = issue_for(&agent, "aws/reports", 300).await.expect_err("refused");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "TTL_TOO_SHORT")
    );
    assert!(refused.message().contains("15m"), "{}", refused.message());
    assert!(aws.sts.requests().is_empty(), "nothing was asked of AWS");

    let raised = issue_for(&agent, "aws/raised", 300).await.expect("a credential");
    assert!(
        raised.notice.contains("5m was asked for; the credential lives 15m"),
        "{}",
        raised.notice
    );
    assert_eq!(duration(&aws.sts.requests()[0].fields), 900);
}

#[tokio::test]
async fn what_aws_refuses_reaches_the_agent_with_what_to_do() {
    let aws = Aws::start();
    let world = aws.world();
    let broker = Broker::start(&world).await;
    let agent = agent(&broker).await;
    let foreign = agent.issue("aws/payroll").await.expect_err("the role trusts somebody else");
    assert_eq!(reason(&foreign), "BACKEND_REFUSED");
    assert_eq!(upstream_code(&foreign), "AccessDenied");
    assert!(foreign.message().contains("trust policy"), "{}", foreign.message());

    let bulky = agent.issue("aws/bulky").await.expect_err("policy and tags are too much");
    assert_eq!(reason(&bulky), "BACKEND_MISCONFIGURED");
    assert_eq!(upstream_code(&bulky), "PackedPolicyTooLarge");
    assert!(bulky.message().contains("103% of allotted space"), "{}", bulky.message());
    assert!(bulky.message().contains("`policy_arns`"), "{}", bulky.message());

    let long = issue_for(&agent, "aws/long", 5 * 3600).await.expect_err("more than the role gives");
    assert_eq!(upstream_code(&long), "ValidationError");
    assert!(long.message().contains("lower the scope's `max_ttl`"), "{}", long.message());

    aws.sts.refuse_next(Refusal {
        status: 400,
        code: "Throttling",
        message: "Rate exceeded".to_owned(),
        retry_after_secs: Some(7),
    });
    let throttled = agent.issue("aws/reports").await.expect_err("too many requests");
    assert_eq!(
        (throttled.code(), reason(&throttled).as_str()),
        (Code::ResourceExhausted, "BACKEND_RATE_LIMITED")
    );
    let wait = throttled.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(wait, Some(std::time::Duration::from_secs(7)));
    agent.issue("aws/reports").await.expect("the next request is served");
}

#[tokio::test]
async fn a_wrong_root_key_is_told_and_stands_in_no_message() {
    let aws = Aws::start();
    let wrong = AccessKey {
        secret: "canary-wrong-secret-key-0123456789abcdef".to_owned(),
        ..aws.moto.root_key().clone()
    };
    let world = aws.world_with_key(&wrong);
    let broker = Broker::start(&world).await;
    let agent = agent(&broker).await;
    let refused = agent.issue("aws/reports").await.expect_err("refused");
    assert_eq!(reason(&refused), "BACKEND_REFUSED");
    assert_eq!(upstream_code(&refused), "SignatureDoesNotMatch");
    assert!(refused.message().contains("does not accept the access key"), "{}", refused.message());
    assert!(!refused.message().contains("canary"), "{}", refused.message());
    nothing_secret_was_kept(&world, &broker, &[&wrong.secret]);
}

#[tokio::test]
async fn a_policy_that_sts_can_never_take_stops_the_start() {
    let aws = Aws::start();
    let world = aws.world();
    let config = std::fs::read_to_string(world.config()).expect("text");
    world.write("claviger.toml", &config.replace(&"x".repeat(1900), &"x".repeat(2100)));
    let said = refusal::of_serve(&world).await;
    assert!(said.contains("/scopes/bulky/policy"), "{said}");
    assert!(said.contains("characters long when compiled, and STS takes at most 2048"), "{said}");
}

#[tokio::test]
async fn without_any_root_key_the_broker_proves_itself_with_a_token() {
    let aws = Aws::start();
    let world = aws.world_without_key();
    let broker = Broker::start(&world).await;
    let agent = agent(&broker).await;
    let issued = agent.issue("aws-keyless/reports").await.expect("a credential");
    let used = said(&aws, &issued, USE);
    assert_eq!(used["read"], "region,total\nnorth,42\n");
    assert_eq!(used["write"], "AccessDenied");
    let session = agent.session.split_once('_').expect("a prefix").1;
    assert!(used["arn"].as_str().unwrap().contains(&format!("/{session}.")), "{used}");

    let asked = aws.sts.requests().pop().expect("one request");
    assert_eq!(asked.signed_by, None, "no key signs it");
    assert_eq!(asked.claims["sub"], "backend:aws-keyless");
    assert_eq!(asked.claims["claviger"]["session"], session);
    assert_eq!(asked.claims["claviger"]["role"], "report-builder");
    let tags = &asked.claims["https://aws.amazon.com/tags"];
    assert_eq!(tags["principal_tags"]["claviger:session"][0], session);
    assert_eq!(tags["principal_tags"]["claviger:role"][0], "report-builder");
    assert_eq!(tags["transitive_tag_keys"].as_array().map(Vec::len), Some(4), "{tags}");
    let uid = rustix::process::geteuid().as_raw();
    let source = asked.claims["https://aws.amazon.com/source_identity"].as_str().expect("one");
    assert!(source.starts_with(&format!("unix-{uid}=")), "{source}");

    let foreign = agent.issue("aws-keyless/payroll").await.expect_err("the role trusts nobody");
    assert_eq!(upstream_code(&foreign), "AccessDenied");
}

async fn agent(broker: &Broker) -> Agent {
    Agent::open(&broker.socket(), "report-builder").await.expect("a session")
}

async fn issue_for(agent: &Agent, scope: &str, secs: i64) -> Result<v1::IssueResponse, Status> {
    let request = agent.with_token(v1::IssueRequest {
        scope: scope.to_owned(),
        ttl: Some(prost_types::Duration { seconds: secs, nanos: 0 }),
        ..Default::default()
    });
    Ok(agent.client.clone().issue(request).await?.into_inner())
}

fn said(aws: &Aws, issued: &Issued, script: &str) -> serde_json::Value {
    let output = aws.boto3(issued, script);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}\n{}", aws.moto.log_text());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn duration(fields: &std::collections::BTreeMap<String, String>) -> u64 {
    fields["DurationSeconds"].parse().expect("a number")
}

fn upstream_code(status: &Status) -> String {
    let info = status.get_details_error_info().expect("details");
    info.metadata.get("upstream_code").cloned().unwrap_or_default()
}

fn nothing_secret_was_kept(world: &claviger_e2e::world::World, broker: &Broker, secrets: &[&str]) {
    let mut kept = vec![("log".to_owned(), broker.log().into_bytes())];
    for entry in std::fs::read_dir(world.path().join("state")).expect("the journal's folder") {
        let path = entry.expect("an entry").path();
        // Compiled plugins, which were there before any secret.
        if path.is_file() {
            kept.push((path.display().to_string(), std::fs::read(&path).expect("readable")));
        }
    }
    for (place, bytes) in kept {
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret stands in {place}");
        }
    }
}

/// What an agent does with the credential: asks who it is, reads, and tries to write.
const USE: &str = r#"
import boto3, botocore.exceptions, json
s3 = boto3.client("s3")
try:
    s3.put_object(Bucket="reports", Key="mine", Body=b"x")
    write = "allowed"
except botocore.exceptions.ClientError as error:
    write = error.response["Error"]["Code"]
print(json.dumps({
    "arn": boto3.client("sts").get_caller_identity()["Arn"],
    "read": s3.get_object(Bucket="reports", Key="2026-q3.csv")["Body"].read().decode(),
    "write": write,
}))
"#;
