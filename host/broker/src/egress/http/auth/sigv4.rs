//! AWS Signature Version 4 over the final bytes of a request.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningParams,
    SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use data_encoding::HEXLOWER;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::AuthError;
use crate::egress::http::{Outgoing, Route};
use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};

/// Signs with one access key for one service in one region.
pub(super) struct Signer {
    identity: Identity,
    region: String,
    service: String,
}

impl Signer {
    /// A signer of id, key and, for temporary keys, session token.
    pub(super) fn new(
        keys: [Option<SharedSecret>; 3],
        region: String,
        service: String,
    ) -> Result<Self, AuthError> {
        super::filled(&[("region", &region), ("service", &service)])?;
        let [id, key, token] = keys;
        let text = |secret: Option<SharedSecret>| secret.map(|secret| secret.to_string());
        let (id, key) = (text(id).unwrap_or_default(), text(key).unwrap_or_default());
        super::filled(&[("access_key_id", &id), ("secret_access_key", &key)])?;
        let credentials = Credentials::new(id, key, text(token), None, "configuration");
        Ok(Self { identity: credentials.into(), region, service })
    }

    /// Signs `outgoing` as it goes to `route` at `now`, with every header that it has.
    pub(super) fn sign(
        &self,
        route: &Route,
        outgoing: &mut Outgoing,
        now: SystemTime,
    ) -> Result<(), Failure> {
        SET_BY_SIGNER.iter().for_each(|name| drop(outgoing.headers.remove(*name)));
        let signed = self.headers(route, outgoing, now)?;
        for (name, value, sensitive) in signed {
            let mut value = HeaderValue::try_from(value).map_err(|_| failed())?;
            value.set_sensitive(sensitive);
            outgoing.headers.insert(HeaderName::from_static(name), value);
        }
        Ok(())
    }

    fn headers(
        &self,
        route: &Route,
        outgoing: &Outgoing,
        now: SystemTime,
    ) -> Result<Vec<(&'static str, String, bool)>, Failure> {
        let params = v4::SigningParams::builder()
            .identity(&self.identity)
            .region(&self.region)
            .name(&self.service)
            .time(now)
            .settings(self.settings())
            .build()
            .map_err(|_| failed())?;
        let scheme = if route.tls { "https" } else { "http" };
        let authority = route.authority();
        let uri = format!("{scheme}://{authority}{}", outgoing.path_and_query);
        let mut headers = vec![("host", authority.as_str())];
        for (name, value) in &outgoing.headers {
            let value = value.to_str().map_err(|_| unsignable(name))?;
            headers.push((name.as_str(), value));
        }
        // The hash, not the body: the library may log what it is given.
        let body = SignableBody::Precomputed(HEXLOWER.encode(&Sha256::digest(&*outgoing.body)));
        let method = outgoing.method.as_str();
        let request =
            SignableRequest::new(method, uri, headers.into_iter(), body).map_err(|_| failed())?;
        let params = SigningParams::from(params);
        let (instructions, _signature) = sign(request, &params).map_err(|_| failed())?.into_parts();
        let (headers, _no_query) = instructions.into_parts();
        Ok(headers.iter().map(|h| (h.name(), h.value().to_owned(), h.sensitive())).collect())
    }

    /// S3 reads paths as they are written and wants the body's hash in a header.
    fn settings(&self) -> SigningSettings {
        let mut settings = SigningSettings::default();
        if self.service == "s3" {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        settings
    }
}

fn failed() -> Failure {
    Failure::unsent(FailureKind::Other, "the request could not be signed")
}

fn unsignable(name: &HeaderName) -> Failure {
    let message = format!("header `{name}` holds a character that a signature cannot cover");
    Failure::unsent(FailureKind::InvalidInput, message)
}

/// Nothing that a guest wrote may stand in their place.
const SET_BY_SIGNER: [&str; 4] =
    ["authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];
