//! The access key of an AWS backend, replaced by the broker: under load, on schedule, over outages and
//! over crashes at each step, and never so that it is locked out. moto refuses a deleted key at once;
//! the double in front of it holds requests up on their way, and knows keys late.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::process::Stdio;

use claviger_e2e::aws::Aws;
use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::poll;
use claviger_e2e::rotation::{Load, Want, check, count, entries, issues, operate};
use claviger_e2e::sts_double::{Doubt, Moment, Refusal, Stop};

const ROTATE: [&str; 3] = ["backend", "rotate", "aws"];

const REPORTS: Want = Want { role: "report-builder", scope: "aws/reports" };

async fn until_count(broker: &Broker, event: &str, expect: usize) {
    poll::until(&format!("there are {expect} entries `{event}`"), || async {
        (count(broker, event).await >= expect).then_some(())
    })
    .await;
    assert_eq!(count(broker, event).await, expect);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_key_changes_under_load_without_a_failed_call() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    let load = Load::start(&broker, REPORTS).await;
    load.goes_on().await;
    check(&operate(&broker, &ROTATE), 0, "store:aws/key version 2 is in force");
    load.goes_on().await;
    until_count(&broker, "rotation-retired", 1).await;
    load.goes_on().await;
    the_first_key_is_gone(&aws);
    let retired = entries(&broker, "rotation-retired").await.remove(0)["detail"].to_string();
    assert!(retired.contains(&aws.moto.root_key().id), "{retired}");
    let by_secret = ["secret", "rotate", "aws/id"];
    check(&operate(&broker, &by_secret), 0, "store:aws/key version 3 is in force");
    load.goes_on().await;
    load.end().await;
    until_count(&broker, "rotation-retired", 2).await;
    let signed_by = aws.sts.requests().pop().expect("a request").signed_by;
    assert_eq!(keys(&aws), [signed_by.expect("signed")], "the newest key signs");
    assert_eq!(count(&broker, "rotation-started").await, 2);
    assert_eq!(count(&broker, "rotation-done").await, 2);
    broker.stop().await;
    let broker = Broker::start(&world).await;
    issues(&broker, REPORTS).await;
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
    issues(&broker, REPORTS).await;
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
        issues(&broker, REPORTS).await;
        until_count(&broker, "rotation-retired", number).await;
        issues(&broker, REPORTS).await;
        assert_eq!(count(&broker, "rotation-started").await, number, "{action} {moment:?}");
        assert_eq!(count(&broker, "rotation-done").await, number, "{action} {moment:?}");
        the_first_key_is_gone(&aws);
    }
    assert_eq!(count(&broker, "rotation-failed").await, 0);
    let version = STEPS.len() + 2;
    check(&operate(&broker, &ROTATE), 0, &format!("version {version} is in force"));
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
    let first = &aws.moto.root_key().id;
    aws.sts.doubt_keys_but(first, Doubt::Unknown);
    check(&operate(&broker, &ROTATE), 1, "it does not accept the new key yet");
    the_first_key_signs(&aws, &broker).await;
    aws.sts.doubt_keys_but(first, Doubt::AnotherUsers);
    let asked = || {
        let requests = aws.sts.requests().into_iter();
        let is_of_another = |key: &String| key != first;
        let of_another = requests.filter(|request| {
            request.is("GetCallerIdentity") && request.signed_by.as_ref().is_some_and(is_of_another)
        });
        of_another.count()
    };
    let before = asked();
    poll::until("it is tried more often than it must be accepted", || {
        std::future::ready((asked() > before + PROOFS).then_some(()))
    })
    .await;
    the_first_key_signs(&aws, &broker).await;
    aws.sts.doubt_nothing();
    until_count(&broker, "rotation-done", 1).await;
    until_count(&broker, "rotation-retired", 1).await;
    the_first_key_is_gone(&aws);
    issues(&broker, REPORTS).await;
}

/// So often in a row STS must accept a new key.
const PROOFS: usize = 3;

/// The new key is there, does not count, and signs nothing but the question whether it is accepted.
async fn the_first_key_signs(aws: &Aws, broker: &Broker) {
    issues(broker, REPORTS).await;
    let newest = aws.sts.requests().into_iter().rfind(|request| request.is("AssumeRole"));
    let signed_by = newest.expect("a request").signed_by;
    assert_eq!(signed_by.as_deref(), Some(aws.moto.root_key().id.as_str()), "still the first one");
    assert_eq!(keys(aws).len(), 2);
    assert_eq!(count(broker, "rotation-done").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_waits_while_sts_does_not_answer() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    aws.sts.stop_at(Stop { action: "GetCallerIdentity", moment: Moment::Arriving });
    check(&operate(&broker, &ROTATE), 1, "it is not settled which of two credentials");
    the_first_key_signs(&aws, &broker).await;
    aws.sts.let_go();
    until_count(&broker, "rotation-done", 1).await;
    until_count(&broker, "rotation-retired", 1).await;
    the_first_key_is_gone(&aws);
    issues(&broker, REPORTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_which_nobody_heard_is_replaced_without_another_order() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    aws.sts.stop_at(Stop { action: "CreateAccessKey", moment: Moment::Answering });
    check(&operate(&broker, &ROTATE), 1, "it is not known whether the backend has made");
    issues(&broker, REPORTS).await;
    check(&operate(&broker, &["secret", "list"]), 0, "(unsettled)");
    aws.sts.let_go();
    until_count(&broker, "rotation-done", 1).await;
    until_count(&broker, "rotation-retired", 1).await;
    the_first_key_is_gone(&aws);
    issues(&broker, REPORTS).await;
    assert_eq!(count(&broker, "rotation-started").await, 1);
    assert_eq!(count(&broker, "rotation-failed").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_fails_is_tried_again() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    check(&operate(&broker, &ROTATE), 0, "version 2 is in force");
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

/// As AWS answers where an operator has put another user's key meanwhile. moto would delete it,
/// whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_iam_does_not_find_is_not_said_to_be_deleted() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    let first = aws.moto.root_key().id.clone();
    check(&operate(&broker, &ROTATE), 0, "version 2 is in force");
    // Nothing else is sent before it.
    aws.sts.refuse_next(Refusal {
        status: 404,
        code: "NoSuchEntity",
        message: format!("The Access Key with id {first} cannot be found."),
        retry_after_secs: None,
    });
    until_count(&broker, "rotation-retired", 1).await;
    let retired = entries(&broker, "rotation-retired").await.remove(0)["detail"].to_string();
    let told = format!("key `{first}` is not among the keys of the user whose key is in force");
    assert!(retired.contains(&told), "{retired}");
    assert!(keys(&aws).contains(&first), "it is there still");
}

/// A user has two keys at most: a second one that nobody can be using makes room, any other is the
/// operator's to look at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_key_makes_room_if_nobody_uses_it() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", &aws.iam());
    let broker = Broker::start(&world).await;
    let unused = aws.operate(SECOND);
    check(&operate(&broker, &ROTATE), 0, "version 2 is in force");
    until_count(&broker, "rotation-retired", 1).await;
    let left = keys(&aws);
    assert!(left.len() == 1 && !left.contains(&unused), "{left:?}");
    let used = aws.operate(&format!("{SECOND}{USE}"));
    let refused = operate(&broker, &ROTATE);
    check(&refused, 1, "which somebody has used");
    check(&refused, 1, &used);
    assert_eq!(count(&broker, "rotation-failed").await, 1);
    assert_eq!(keys(&aws).len(), 2, "nothing was made and nothing deleted");
    aws.operate(&format!("{DEACTIVATE}\"{used}\", Status=\"Inactive\")"));
    check(&operate(&broker, &ROTATE), 0, "version 4 is in force");
    until_count(&broker, "rotation-retired", 2).await;
    issues(&broker, REPORTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_connection_to_iam_nothing_is_replaced_and_the_rest_works() {
    let aws = Aws::start();
    let world = aws.world_with_kept_key("", "");
    let broker = Broker::start(&world).await;
    issues(&broker, REPORTS).await;
    check(&operate(&broker, &ROTATE), 1, "bind the connection `iam` too");
    assert_eq!(count(&broker, "rotation-failed").await, 1);
    issues(&broker, REPORTS).await;
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
