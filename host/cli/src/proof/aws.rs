//! A `GetCallerIdentity` signed with the AWS credentials of the environment, for the broker to send.
//! Sends nothing itself.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use claviger_proto::v1::{AwsIdentity, Header};

use crate::exit::Failure;

/// The request that the broker sends to `sts_url`, signed for the broker `server_id`.
pub fn signed(sts_url: &str, server_id: &str) -> Result<AwsIdentity, Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(id), Some(key)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
    else {
        return Err(Failure::usage(
            "--aws signs with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which are not set",
        ));
    };
    let token = variable("AWS_SESSION_TOKEN");
    let identity = Credentials::new(id, key, token, None, "environment").into();
    let region = region_of(sts_url);
    let url = format!("{}/", sts_url.trim_end_matches('/'));
    let host = url.split("//").nth(1).unwrap_or_default().trim_end_matches('/');
    let failed = || Failure::other("the AWS request could not be signed");
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&region)
        .name("sts")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| failed())?;
    let given = [("host", host), ("content-type", FORM), (SERVER_ID, server_id)];
    let body = SignableBody::Bytes(BODY.as_bytes());
    let request = SignableRequest::new("POST", &url, given.into_iter(), body);
    let request = request.map_err(|_| failed())?;
    let (added, _signature) = sign(request, &params.into()).map_err(|_| failed())?.into_parts();
    let (added, _no_query) = added.into_parts();
    let header = |name: &str, value: &str| Header { name: name.into(), value: value.into() };
    let headers = given.iter().map(|(name, value)| header(name, value));
    let headers = headers.chain(added.iter().map(|h| header(h.name(), h.value()))).collect();
    Ok(AwsIdentity { method: "POST".to_owned(), url, headers, body: BODY.into() })
}

/// The STS of the environment's region.
pub fn default_sts_url() -> String {
    match std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION")) {
        Ok(region) if !region.is_empty() => format!("https://sts.{region}.amazonaws.com"),
        _ => "https://sts.amazonaws.com".to_owned(),
    }
}

/// The region that a signature for that STS names.
fn region_of(sts_url: &str) -> String {
    let region = sts_url.split("//sts.").nth(1).and_then(|rest| rest.split('.').next());
    region.filter(|region| region.contains('-')).unwrap_or("us-east-1").to_owned()
}

/// The header that names the broker.
const SERVER_ID: &str = "x-claviger-server-id";

const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

const FORM: &str = "application/x-www-form-urlencoded";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_names_the_region_of_its_sts() {
        for (url, expect) in [
            ("https://sts.eu-central-1.amazonaws.com", "eu-central-1"),
            ("https://sts.amazonaws.com", "us-east-1"),
            ("http://127.0.0.1:5000", "us-east-1"),
        ] {
            assert_eq!(region_of(url), expect);
        }
    }
}
