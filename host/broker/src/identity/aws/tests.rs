//! What is passed on to STS and what is not, and whom its answer names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::sync::Mutex;

use claviger_core::fixture;

use super::*;
use crate::egress::http::{Exchanged, Incoming, Route};

const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIA1/20261118/eu-central-1/sts/aws4_request, \
     SignedHeaders=host;x-amz-date;x-claviger-server-id, \
     Signature=00000000000000000000000000000000000000000000000000000000000000ff";

/// An STS that gives one answer and remembers what it was sent.
struct Sts {
    status: u16,
    body: String,
    heard: Mutex<Vec<Outgoing>>,
}

impl Exchange for Sts {
    fn exchange<'a>(&'a self, _: &'a Route, outgoing: Outgoing, _: Instant) -> Exchanged<'a> {
        self.heard.lock().unwrap().push(outgoing);
        Box::pin(async {
            Ok(Incoming {
                status: StatusCode::from_u16(self.status).unwrap(),
                headers: HeaderMap::new(),
                body: Zeroizing::new(self.body.clone().into_bytes()),
            })
        })
    }
}

fn answer(arn: &str) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <GetCallerIdentityResult><Arn>{arn}</Arn><UserId>AROA1:run</UserId>\
         <Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
    )
}

fn over(status: u16, body: String) -> (Arc<Sts>, AwsIdentity) {
    let sts = Arc::new(Sts { status, body, heard: Mutex::default() });
    let place = Place::parse("https://sts.example/", &[]).unwrap();
    let spec = AwsSpec { sts: place, server_id: "claviger.corp".to_owned() };
    let identity = AwsIdentity::new(spec, Arc::clone(&sts) as Arc<_>);
    (sts, identity)
}

/// The moment `now + offset`, as the header writes it.
fn date(offset_secs: i64) -> String {
    let secs = fixture::now().unix_secs().checked_add_signed(offset_secs).unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    humantime::format_rfc3339_seconds(at).to_string().replace(['-', ':'], "")
}

fn request(date: &str) -> UnverifiedRequest<'_> {
    UnverifiedRequest {
        method: "POST",
        url: "https://sts.example/",
        headers: vec![
            ("Authorization", AUTHORIZATION),
            ("Host", "sts.example"),
            ("X-Amz-Date", date),
            ("X-Claviger-Server-ID", "claviger.corp"),
        ],
        body: BODY.as_bytes(),
    }
}

/// A change to the honest request.
type Change = fn(&mut UnverifiedRequest<'_>);

fn set(request: &mut UnverifiedRequest<'_>, name: &str, value: &'static str) {
    let found = request.headers.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.expect("a header of the honest request").1 = value;
}

/// What was changed, and why that is refused.
type Attack = (&'static str, Change, AwsError);

/// Another request than the one that STS may be asked with.
fn other_requests() -> Vec<Attack> {
    let otherwise = || AwsError::Otherwise("https://sts.example/".to_owned());
    vec![
        ("another method", |r| r.method = "GET", otherwise()),
        ("another host", |r| r.url = "https://sts.evil.example/", otherwise()),
        ("the host as a prefix", |r| r.url = "https://sts.example.evil/", otherwise()),
        ("the host as a user", |r| r.url = "https://sts.example@evil.example/", otherwise()),
        ("another port", |r| r.url = "https://sts.example:8443/", otherwise()),
        ("in the clear", |r| r.url = "http://sts.example/", otherwise()),
        ("another path", |r| r.url = "https://sts.example/x", otherwise()),
        ("a query", |r| r.url = "https://sts.example/?Action=AssumeRole", otherwise()),
        (
            "an extra parameter",
            |r| r.body = b"Action=GetCallerIdentity&Version=2011-06-15&X=1",
            otherwise(),
        ),
        ("another action", |r| r.body = b"Action=AssumeRole&Version=2011-06-15", otherwise()),
        (
            "an action twice",
            |r| r.body = b"Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15",
            otherwise(),
        ),
        ("no body", |r| r.body = b"", otherwise()),
        ("another host in the header", |r| set(r, "host", "sts.evil.example"), otherwise()),
    ]
}

/// The right request under other headers.
fn other_headers() -> Vec<Attack> {
    let header = |name: &str| AwsError::Header(name.to_owned());
    let other_server = || AwsError::OtherServer("claviger.corp".to_owned());
    vec![
        ("no server id", |r| r.headers.truncate(3), AwsError::Unsigned(SERVER_ID)),
        ("another server id", |r| set(r, SERVER_ID, "vault.corp"), other_server()),
        (
            "an unsigned server id",
            |r| set(r, "authorization", UNSIGNED_ID),
            AwsError::Unsigned(SERVER_ID),
        ),
        (
            "a signature for S3",
            |r| set(r, "authorization", FOR_S3),
            AwsError::Unsigned("authorization"),
        ),
        (
            "no signature",
            |r| set(r, "authorization", "Bearer x"),
            AwsError::Unsigned("authorization"),
        ),
        (
            "signed headers twice",
            |r| set(r, "authorization", TWICE),
            AwsError::Unsigned("authorization"),
        ),
        ("a header twice", |r| r.headers.push(("host", "sts.example")), header("host")),
        (
            "a header that changes the answer",
            |r| r.headers.push(("accept", "application/json")),
            header("accept"),
        ),
        (
            "a header that hides another",
            |r| r.headers.push(("connection", "x-amz-date")),
            header("connection"),
        ),
        ("a line break", |r| r.headers.push(("user-agent", "a\r\nhost: b")), header("user-agent")),
        ("a broken date", |r| set(r, "x-amz-date", "yesterday"), AwsError::Stale),
    ]
}

#[tokio::test]
async fn a_request_that_is_not_exactly_what_it_must_be_never_reaches_sts() {
    let date = date(0);
    for (case, change, expect) in other_requests().into_iter().chain(other_headers()) {
        let (sts, identity) = over(200, answer("arn:aws:sts::123456789012:assumed-role/ci/run"));
        let mut changed = request(&date);
        change(&mut changed);
        let found = identity.workload(&changed, fixture::now()).await.err();
        assert_eq!(found, Some(expect), "{case}");
        assert!(sts.heard.lock().unwrap().is_empty(), "{case}: STS was asked");
    }
}

#[tokio::test]
async fn a_request_is_good_for_five_minutes() {
    for (offset, expect) in
        [(-300, Some(AwsError::Stale)), (-299, None), (60, None), (61, Some(AwsError::Stale))]
    {
        let (_, identity) = over(200, answer("arn:aws:sts::123456789012:assumed-role/ci/run"));
        let date = date(offset);
        let found = identity.workload(&request(&date), fixture::now()).await.err();
        assert_eq!(found, expect, "{offset}");
    }
}

#[tokio::test]
async fn the_answer_of_sts_names_the_role_and_nobody_else() {
    let nobody = |arn: &str| Err(AwsError::Nobody(arn.to_owned()));
    for (arn, expect) in [
        ("arn:aws:sts::123456789012:assumed-role/ci/run", Ok("aws:123456789012:role/ci")),
        ("arn:aws:iam::123456789012:user/team/ada", Ok("aws:123456789012:user/ada")),
        ("arn:aws:iam::123456789012:root", nobody("arn:aws:iam::123456789012:root")),
        (
            "arn:aws:sts::123456789012:federated-user/x",
            nobody("arn:aws:sts::123456789012:federated-user/x"),
        ),
        (
            "arn:aws:sts::999999999999:assumed-role/ci/run",
            nobody("arn:aws:sts::999999999999:assumed-role/ci/run"),
        ),
    ] {
        let (sts, identity) = over(200, answer(arn));
        let date = date(0);
        let found = identity.workload(&request(&date), fixture::now()).await;
        let id = found.as_ref().map(Principal::id).map_err(Clone::clone);
        assert_eq!(id, expect, "{arn}");
        let heard = sts.heard.lock().unwrap();
        let sent = heard.first().expect("STS was asked");
        assert_eq!((sent.path_and_query.as_str(), sent.body.as_slice()), ("/", BODY.as_bytes()));
        let names: Vec<_> = sent.headers.keys().map(HeaderName::as_str).collect();
        let expect = ["authorization", "x-amz-date", SERVER_ID, "content-type"];
        assert_eq!(names, expect, "what else was there stayed here");
    }
    let (_, identity) = over(200, answer("arn:aws:sts::123456789012:assumed-role/ci/run"));
    let date = date(0);
    let principal = identity.workload(&request(&date), fixture::now()).await.unwrap();
    let tags: Vec<_> = principal.claims().iter().map(|(k, v)| format!("{k}={v}")).collect();
    let expect = [
        "account=123456789012",
        "arn=arn:aws:sts::123456789012:assumed-role/ci/run",
        "method=aws",
        "partition=aws",
        "session=run",
        "unique_id=AROA1",
    ];
    assert_eq!(tags, expect);
}

#[tokio::test]
async fn what_sts_does_not_say_plainly_proves_nobody() {
    let good = answer("arn:aws:sts::123456789012:assumed-role/ci/run");
    let twice = good.replace(
        "</GetCallerIdentityResponse>",
        "<GetCallerIdentityResult/></GetCallerIdentityResponse>",
    );
    for (case, status, body, expect) in [
        ("a refusal", 403, good.clone(), AwsError::Refused),
        ("a failure", 503, good.clone(), AwsError::Unavailable),
        ("a redirect", 302, good.clone(), AwsError::Unavailable),
        (
            "another answer",
            200,
            good.replace("GetCallerIdentityRes", "AssumeRoleRes"),
            AwsError::Unavailable,
        ),
        ("two results", 200, twice, AwsError::Unavailable),
        ("no XML", 200, "{}".to_owned(), AwsError::Unavailable),
        (
            "an entity",
            200,
            format!("<!DOCTYPE a [<!ENTITY b \"c\">]>{good}"),
            AwsError::Unavailable,
        ),
    ] {
        let (_, identity) = over(status, body);
        let date = date(0);
        let found = identity.workload(&request(&date), fixture::now()).await.err();
        assert_eq!(found, Some(expect), "{case}");
    }
}

const UNSIGNED_ID: &str = "AWS4-HMAC-SHA256 Credential=AKIA1/20261118/eu-central-1/sts/aws4_request, \
     SignedHeaders=host;x-amz-date, \
     Signature=00000000000000000000000000000000000000000000000000000000000000ff";

const FOR_S3: &str = "AWS4-HMAC-SHA256 Credential=AKIA1/20261118/eu-central-1/s3/aws4_request, \
     SignedHeaders=host;x-amz-date;x-claviger-server-id, \
     Signature=00000000000000000000000000000000000000000000000000000000000000ff";

const TWICE: &str = "AWS4-HMAC-SHA256 Credential=AKIA1/20261118/eu-central-1/sts/aws4_request, \
     SignedHeaders=host;x-amz-date;x-claviger-server-id, SignedHeaders=host, \
     Signature=00000000000000000000000000000000000000000000000000000000000000ff";
