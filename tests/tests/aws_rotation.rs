//! The access key of an AWS backend, replaced by the broker: under load, on schedule, over outages and
//! over crashes at each step, and never so that it is locked out. moto refuses a deleted key at once;
//! the double in front of it holds requests up on their way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use claviger_e2e::aws::Aws;
use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, journal};
use claviger_e2e::poll;
use claviger_e2e::sts_double::{Moment, Refusal, Stop};
use claviger_proto::v1;

const ROTATE: [&str; 3] = ["backend", "rotate", "aws"];

fn run(broker: &Broker, args: &[&str]) -> Output {
    claviger(broker, args).output().expect("claviger runs")
}

fn check(output: &Output, code: i32, hint: &str) {
    let told = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(hint), "no `{hint}` in {told}");
}

async fn entries(broker: &Broker, event: &str) -> Vec<serde_json::Value> {
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    entries.into_iter().filter(|entry| entry["event"] == event).collect()
}

async fn count(broker: &Broker, event: &str) -> usize {
    entries(broker, event).await.len()
}

async fn until_count(broker: &Broker, event: &str, expect: usize) {
    poll::until(&format!("there are {expect} entries `{event}`"), || async {
        (count(broker, event).await >= expect).then_some(())
    })
    .await;
    assert_eq!(count(broker, event).await, expect);
}

/// Issues with whichever key is in force.
async fn issues(broker: &Broker) {
    let agent = Agent::open(&broker.socket(), "report-builder").await.expect("a session");
    agent.issue("aws/reports").await.expect("whichever key is in force");
    agent.close().await.expect("closed");
}

/// The ids of the keys that the broker's user has.
fn keys(aws: &Aws) -> Vec<String> {
    aws.operate(KEYS).lines().map(str::to_owned).collect()
}

/// The one key that is left is not the first one, which is worth nothing any more.
fn the_first_key_is_gone(aws: &Aws) {
    let (left, first) = (keys(aws), aws.moto.root_key());
    assert!(left.len() == 1 && !left.contains(&first.id), "{left:?}, first {}", first.id);
    let used = aws.boto3_with(first, WHO_AM_I);
    let told = String::from_utf8_lossy(&used.stderr).into_owned();
    assert!(!used.status.success() && told.contains("InvalidClientTokenId"), "{told}");
}

/// Issues and releases until it is stopped; a failed call fails the test.
struct Load {
    stop: Arc<AtomicBool>,
    issued: Arc<AtomicU64>,
    agents: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(broker: &Broker) -> Self {
        let (stop, issued) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut agents = Vec::new();
        for _ in 0..4 {
            let agent = Agent::open(&broker.socket(), "report-builder").await.expect("a session");
            let (stop, issued) = (Arc::clone(&stop), Arc::clone(&issued));
            agents.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let lease = agent.issue("aws/reports").await.expect("issued").lease.lease_id;
                    agent.release(&lease).await.expect("released");
                    issued.fetch_add(1, Ordering::SeqCst);
                }
                agent.close().await.expect("closed");
            }));
        }
        Self { stop, issued, agents }
    }

    async fn goes_on(&self) {
        let until = self.issued.load(Ordering::SeqCst) + 8;
        poll::until("the load goes on", || {
            std::future::ready((self.issued.load(Ordering::SeqCst) >= until).then_some(()))
        })
        .await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for agent in self.agents {
            agent.await.expect("no call failed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_key_changes_under_load_without_a_failed_call() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    let load = Load::start(&broker).await;
    load.goes_on().await;
    check(&run(&broker, &ROTATE), 0, "store:aws/key version 2 is in force");
    load.goes_on().await;
    until_count(&broker, "rotation-retired", 1).await;
    load.goes_on().await;
    the_first_key_is_gone(&aws);
    let retired = entries(&broker, "rotation-retired").await.remove(0)["detail"].to_string();
    assert!(retired.contains(&aws.moto.root_key().id), "{retired}");
    let by_secret = ["secret", "rotate", "aws/id"];
    check(&run(&broker, &by_secret), 0, "store:aws/key version 3 is in force");
    load.goes_on().await;
    load.end().await;
    until_count(&broker, "rotation-retired", 2).await;
    let signed_by = aws.sts.requests().pop().expect("a request").signed_by;
    assert_eq!(keys(&aws), [signed_by.expect("signed")], "the newest key signs");
    assert_eq!(count(&broker, "rotation-started").await, 2);
    assert_eq!(count(&broker, "rotation-done").await, 2);
    broker.stop().await;
    let broker = Broker::start(&world).await;
    issues(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_key_is_replaced_on_schedule() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("rotate_every = \"1s\"\n", &aws.iam());
    let broker = Broker::start(&world).await;
    poll::until("it was replaced twice", || async {
        (count(&broker, "rotation-done").await >= 2).then_some(())
    })
    .await;
    issues(&broker).await;
    let started = entries(&broker, "rotation-started").await.remove(0);
    assert_eq!(started["principal"], "broker");
    assert!(!keys(&aws).contains(&aws.moto.root_key().id), "the first one is deleted");
}

/// Whatever the broker was about when it died, and whether or not what it sent took effect: the next
/// one issues at once, ends the rotation, and leaves one key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_at_any_step_goes_on_at_the_next_start() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let mut broker = Broker::start(&world).await;
    for (number, (action, moment)) in (1..).zip(STEPS) {
        aws.sts.stop_at(Stop { action, moment });
        let mut rotate = claviger(&broker, &ROTATE);
        rotate.stdout(Stdio::null()).stderr(Stdio::null());
        let mut rotate = rotate.spawn().expect("claviger runs");
        poll::until(&format!("{action} is held up"), || {
            std::future::ready((aws.sts.held_up() > 0).then_some(()))
        })
        .await;
        broker.kill();
        rotate.wait().expect("it ends with the broker, or before");
        // Now it takes effect, if it had not, and nobody hears of it.
        aws.sts.let_go();
        broker = Broker::start(&world).await;
        issues(&broker).await;
        until_count(&broker, "rotation-retired", number).await;
        issues(&broker).await;
        assert_eq!(count(&broker, "rotation-started").await, number, "{action} {moment:?}");
        assert_eq!(count(&broker, "rotation-done").await, number, "{action} {moment:?}");
        the_first_key_is_gone(&aws);
    }
    assert_eq!(count(&broker, "rotation-failed").await, 0);
    let version = STEPS.len() + 2;
    check(&run(&broker, &ROTATE), 0, &format!("version {version} is in force"));
}

const STEPS: [(&str, Moment); 7] = [
    ("ListAccessKeys", Moment::Arriving),
    ("CreateAccessKey", Moment::Arriving),
    ("CreateAccessKey", Moment::Answering),
    ("GetCallerIdentity", Moment::Arriving),
    ("GetCallerIdentity", Moment::Answering),
    ("DeleteAccessKey", Moment::Arriving),
    ("DeleteAccessKey", Moment::Answering),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_counts_when_it_is_accepted_and_not_before() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    aws.sts.stop_at(Stop { action: "GetCallerIdentity", moment: Moment::Arriving });
    check(&run(&broker, &ROTATE), 1, "it is not settled which of two credentials");
    issues(&broker).await;
    let signed_by = aws.sts.requests().pop().expect("a request").signed_by;
    assert_eq!(signed_by.as_deref(), Some(aws.moto.root_key().id.as_str()), "still the first one");
    assert_eq!(keys(&aws).len(), 2);
    aws.sts.let_go();
    until_count(&broker, "rotation-done", 1).await;
    until_count(&broker, "rotation-retired", 1).await;
    the_first_key_is_gone(&aws);
    issues(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_fails_is_tried_again() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    check(&run(&broker, &ROTATE), 0, "version 2 is in force");
    // Nothing else is sent before it.
    aws.sts.refuse_next(Refusal {
        status: 503,
        code: "ServiceUnavailable",
        message: "try later".to_owned(),
        retry_after_secs: None,
    });
    until_count(&broker, "rotation-retired", 1).await;
    let log = broker.log();
    assert!(log.contains("a key that was replaced is not deleted yet"), "{log}");
    the_first_key_is_gone(&aws);
}

/// A user has two keys at most: a second one that nobody can be using makes room, any other is the
/// operator's to look at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_key_makes_room_if_nobody_uses_it() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    let unused = aws.operate(SECOND);
    check(&run(&broker, &ROTATE), 0, "version 2 is in force");
    until_count(&broker, "rotation-retired", 1).await;
    let left = keys(&aws);
    assert!(left.len() == 1 && !left.contains(&unused), "{left:?}");
    let used = aws.operate(&format!("{SECOND}{USE}"));
    let refused = run(&broker, &ROTATE);
    check(&refused, 1, "which somebody has used");
    check(&refused, 1, &used);
    assert_eq!(count(&broker, "rotation-failed").await, 1);
    assert_eq!(keys(&aws).len(), 2, "nothing was made and nothing deleted");
    aws.operate(&format!("{DEACTIVATE}\"{used}\", Status=\"Inactive\")"));
    check(&run(&broker, &ROTATE), 0, "version 4 is in force");
    until_count(&broker, "rotation-retired", 2).await;
    issues(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_connection_to_iam_nothing_is_replaced_and_the_rest_works() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", "");
    let broker = Broker::start(&world).await;
    issues(&broker).await;
    check(&run(&broker, &ROTATE), 1, "bind the connection `iam` too");
    assert_eq!(count(&broker, "rotation-failed").await, 1);
    issues(&broker).await;
    assert_eq!(keys(&aws), [aws.moto.root_key().id.clone()]);
}

const KEYS: &str = r#"
import boto3
for key in boto3.client("iam").list_access_keys(UserName="claviger")["AccessKeyMetadata"]:
    print(key["AccessKeyId"])
"#;

const WHO_AM_I: &str = r#"
import boto3
boto3.client("sts").get_caller_identity()
"#;

const SECOND: &str = r#"
import boto3
key = boto3.client("iam").create_access_key(UserName="claviger")["AccessKey"]
print(key["AccessKeyId"])
"#;

const USE: &str = r#"
boto3.client("sts", aws_access_key_id=key["AccessKeyId"],
             aws_secret_access_key=key["SecretAccessKey"]).get_caller_identity()
"#;

const DEACTIVATE: &str = r#"
import boto3
boto3.client("iam").update_access_key(UserName="claviger", AccessKeyId="#;
