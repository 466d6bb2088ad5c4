//! Who holds AWS credentials: requests that botocore signs, checked by moto.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, channel, journal, reason};
use claviger_e2e::world::{Settings, World};
use claviger_proto::v1;
use claviger_test_servers::{AccessKey, Moto, python};
use tonic::{Code, Status};

/// A broker that takes the word of an AWS account's STS.
struct Trusting {
    moto: Moto,
    world: World,
    broker: Broker,
}

impl Trusting {
    async fn start() -> Self {
        let moto = Moto::start();
        let more = format!(
            "[identity.aws]\nsts_url = \"{}\"\nserver_id = \"{SERVER_ID}\"\nreach = [\"loopback\"]\n",
            moto.url()
        );
        let world = World::with(Settings { more, ..Settings::default() });
        world.write("policies/teams.cedar", POLICIES);
        let broker = Broker::start(&world).await;
        Self { moto, world, broker }
    }

    /// A request that a workload with that key signs, after it has assumed `role` if there is one.
    fn signed(&self, server_id: &str, role: &str) -> v1::AwsIdentity {
        let AccessKey { id, secret } = self.moto.root_key();
        let mut command = python();
        command.args(["-c", SIGN, self.moto.url(), server_id, role]);
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        let output = command.output().expect("Python runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let text = String::from_utf8(output.stdout).expect("text");
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header a line");
            v1::Header { name: name.to_owned(), value: value.to_owned() }
        };
        v1::AwsIdentity {
            method: "POST".into(),
            url: format!("{}/", self.moto.url()),
            headers: text.lines().map(header).collect(),
            body: BODY.into(),
        }
    }

    async fn open(&self, identity: v1::AwsIdentity, token: &str) -> Result<Agent, Status> {
        let request = v1::OpenSessionRequest {
            role: "support-triage".into(),
            aws_identity: Some(identity),
            workload_token: token.to_owned(),
            ..Default::default()
        };
        Agent::open_as(channel(&self.broker.socket()).await, request).await
    }
}

#[tokio::test]
async fn a_role_opens_a_session_under_its_own_name() {
    let trusting = Trusting::start().await;
    let agent = trusting.open(trusting.signed(SERVER_ID, "reports"), "").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    let query = v1::QueryJournalRequest { session_id: agent.session.clone(), ..Default::default() };
    for entry in journal(&trusting.broker.admin_socket(), query).await {
        assert_eq!(entry["principal"], "aws:123456789012:role/reports", "{entry}");
    }
    assert_eq!(trusting.world.logins().len(), 1);
    // The user who assumed the role is somebody else, whom no policy names.
    let refused = trusting.open(trusting.signed(SERVER_ID, ""), "").await.map(|a| a.session);
    let refused = refused.expect_err("a user, not the role");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NO_PERMIT"));
}

#[tokio::test]
async fn a_request_that_was_not_signed_for_this_broker_proves_nobody() {
    let trusting = Trusting::start().await;
    let honest = || trusting.signed(SERVER_ID, "reports");
    let but = |change: &dyn Fn(&mut v1::AwsIdentity)| {
        let mut identity = honest();
        change(&mut identity);
        identity
    };
    let refused = "WORKLOAD_REFUSED";
    let header = |identity: &mut v1::AwsIdentity, name: &str, change: &dyn Fn(&str) -> String| {
        let is_it = |header: &&mut v1::Header| header.name.eq_ignore_ascii_case(name);
        let found = identity.headers.iter_mut().find(is_it).expect("a header");
        found.value = change(&found.value);
    };
    let flipped = |value: &str| {
        let (head, last) = value.split_at(value.len() - 1);
        format!("{head}{}", if last == "0" { "1" } else { "0" })
    };
    for (case, identity, token, expect) in [
        ("no server id", trusting.signed("", "reports"), "", refused),
        ("another server's id", trusting.signed("vault.corp.example", "reports"), "", refused),
        (
            "a server id put there later",
            but(&|it| {
                it.headers.retain(|header| !header.name.eq_ignore_ascii_case("authorization"));
                let other = trusting.signed("", "reports").headers.into_iter();
                it.headers.extend(other.filter(|h| h.name.eq_ignore_ascii_case("authorization")));
            }),
            "",
            refused,
        ),
        (
            "a changed server id",
            but(&|it| header(it, "x-claviger-server-id", &|_| "x".into())),
            "",
            refused,
        ),
        ("a changed signature", but(&|it| header(it, "authorization", &flipped)), "", refused),
        ("another host", but(&|it| it.url = "http://127.0.0.1:1/".into()), "", refused),
        ("extra parameters", but(&|it| it.body.extend(b"&DurationSeconds=900")), "", refused),
        (
            "another action",
            but(&|it| it.body = b"Action=GetSessionToken&Version=2011-06-15".to_vec()),
            "",
            refused,
        ),
        ("together with a token", honest(), "a.b.c", "TWO_PROOFS"),
    ] {
        let found = trusting.open(identity, token).await.map(|agent| agent.session);
        assert_eq!(reason(&found.expect_err(case)), expect, "{case}");
    }
    trusting.open(honest(), "").await.expect("it was what was changed");
}

#[tokio::test]
async fn the_command_line_signs_with_the_credentials_of_its_environment_and_hands_none_on() {
    let trusting = Trusting::start().await;
    let AccessKey { id, secret } = trusting.moto.root_key();
    let mut assume = python();
    assume.args(["-c", ASSUME, trusting.moto.url()]);
    assume.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
    let output = assume.output().expect("Python runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let keys: Vec<&str> = text.split_whitespace().collect();
    let [id, secret, token] = keys.as_slice() else { panic!("no role: {text}") };
    let run = |server_id: &str| {
        let mut command = claviger(&trusting.broker, &["run", "--role", "support-triage", "--aws"]);
        command.args(["--aws-server-id", server_id, "--aws-sts-url", trusting.moto.url()]);
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        command.env("AWS_SESSION_TOKEN", token).args(["--", "env"]);
        command.output().expect("claviger runs")
    };
    let output = run(SERVER_ID);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("CLAVIGER_SESSION_TOKEN="), "{text}");
    assert!(!text.contains(secret) && !text.contains(token), "the agent inherits the credentials");
    let output = run("vault.corp.example");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("it was signed for another server"), "{told}");
}

const SERVER_ID: &str = "claviger.corp.example";

const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

const POLICIES: &str = r#"
@id("sessions")
permit (principal == Workload::"aws:123456789012:role/reports", action == Action::"open_session", resource)
when { principal.hasTag("account") && principal.getTag("account") == "123456789012" &&
       principal.hasTag("session") && principal.getTag("session") == "run-7" };

@id("orders.readonly")
permit (principal, action == Action::"issue", resource == Scope::"orders-db/readonly");
"#;

/// What a platform does for a workload: assumes its role, and puts the keys into its environment.
const ASSUME: &str = r#"
import sys
import boto3

sts = boto3.client("sts", endpoint_url=sys.argv[1], region_name="eu-central-1")
role = "arn:aws:iam::123456789012:role/reports"
keys = sts.assume_role(RoleArn=role, RoleSessionName="run-7")["Credentials"]
print(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
"#;

/// As a workload does with the SDK: assumes its role, and signs without sending.
const SIGN: &str = r#"
import sys
import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

url, server_id, role = sys.argv[1:]
session = boto3.Session(region_name="eu-central-1")
if role:
    sts = session.client("sts", endpoint_url=url)
    arn = f"arn:aws:iam::123456789012:role/{role}"
    keys = sts.assume_role(RoleArn=arn, RoleSessionName="run-7")["Credentials"]
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
headers = {"content-type": "application/x-www-form-urlencoded", "host": url.split("//")[1]}
if server_id:
    headers["x-claviger-server-id"] = server_id
body = "Action=GetCallerIdentity&Version=2011-06-15"
request = AWSRequest("POST", url + "/", data=body, headers=headers)
SigV4Auth(session.get_credentials().get_frozen_credentials(), "sts", "eu-central-1").add_auth(request)
for name, value in request.headers.items():
    print(f"{name.lower()}: {value}")
"#;
