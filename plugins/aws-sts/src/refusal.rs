//! What STS says when it refuses, in the contract's words, with what an operator can do about it.

use claviger_plugin_sdk::http::Response;
use claviger_plugin_sdk::{Error, ErrorKind};

use ErrorKind::{Denied, InvalidConfig, RateLimited, Unavailable};

/// The answer if STS issued something; what it said otherwise.
pub fn check(answer: Response) -> Result<Response, Error> {
    answer
        .ok_or_at(Some("/ErrorResponse/Error/Code"), Some("/ErrorResponse/Error/Message"))
        .map_err(explain)
}

fn explain(error: Error) -> Error {
    let code = error.code.clone().unwrap_or_default();
    let Some((kind, advice)) = known(code.trim_end_matches("Exception")) else { return error };
    let error = error.with_kind(kind).with_advice(advice);
    let pause = (kind == RateLimited).then_some(PAUSE_MS);
    // These codes say that STS decided against it: there is nothing upstream that a blind retry
    // could double.
    Error { request_sent: false, retry_after_ms: error.retry_after_ms.or(pause), ..error }
}

/// What a code means, without the ending that only some versions of STS write.
fn known(code: &str) -> Option<(ErrorKind, &'static str)> {
    Some(match code {
        "AccessDenied" => (Denied, TRUST),
        "InvalidClientTokenId" | "UnrecognizedClient" => (Denied, KEY),
        "SignatureDoesNotMatch" | "IncompleteSignature" => (Denied, KEY),
        "MissingAuthenticationToken" => (InvalidConfig, IDENTITY),
        "ExpiredToken" | "RequestExpired" => (Denied, EXPIRED),
        "InvalidIdentityToken" | "IDPRejectedClaim" => (Denied, TOKEN),
        "IDPCommunicationError" => (Unavailable, PAGE),
        "MalformedPolicyDocument" => (InvalidConfig, "mend the scope's `policy`"),
        "PackedPolicyTooLarge" => (InvalidConfig, PACKED),
        "RegionDisabled" => (InvalidConfig, REGION),
        "ValidationError" | "InvalidParameterValue" => (InvalidConfig, DURATION),
        "Throttling" | "RequestLimitExceeded" | "TooManyRequests" => (RateLimited, THROTTLED),
        _ => return None,
    })
}

/// STS rarely says how long to wait. Its limits are per second and account.
const PAUSE_MS: u64 = 1_000;

const TRUST: &str = "let the role's trust policy and the broker's own policy allow the operation, \
                     sts:TagSession and sts:SetSourceIdentity";
const KEY: &str = "AWS does not accept the access key of connection `sts`: write a valid key, and \
                   check the broker's clock and the region of the signature";
const IDENTITY: &str = "the setting `identity` and the connection's `auth` belong together: \
                        `access-key` with `sigv4`, `web-identity` with `web-identity`";
const EXPIRED: &str = "the broker's own credential on connection `sts` has expired: renew it, and \
                       check the broker's clock";
const TOKEN: &str = "AWS does not accept the broker's token: check the issuer's URL and the \
                     audience of the IAM identity provider";
const PAGE: &str = "AWS could not fetch the broker's discovery page: it must be reachable from \
                    the internet";
const PACKED: &str = "STS packs session policy and tags together into limited room: shorten the \
                      scope's `policy`, or make it a managed policy and name it under \
                      `policy_arns`";
const REGION: &str = "activate STS in this region for the account, or let connection `sts` use \
                      another region";
const DURATION: &str = "if it is about DurationSeconds, lower the scope's `max_ttl` or raise the \
                        role's maximum session duration (with role chaining it is 1 hour)";
const THROTTLED: &str = "AWS limits the account's requests";

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(code: &str, retry_after_ms: Option<u64>) -> Error {
        let mut error =
            Error::new(ErrorKind::Other, "the service answered 400: no").after_sending();
        error.code = Some(code.to_owned());
        error.retry_after_ms = retry_after_ms;
        explain(error)
    }

    #[test]
    fn says_what_the_operator_must_do() {
        for (code, kind, advice) in [
            ("AccessDenied", ErrorKind::Denied, "the role's trust policy"),
            ("SignatureDoesNotMatch", ErrorKind::Denied, "write a valid key"),
            ("InvalidClientTokenId", ErrorKind::Denied, "write a valid key"),
            ("MissingAuthenticationToken", ErrorKind::InvalidConfig, "setting `identity`"),
            ("ExpiredToken", ErrorKind::Denied, "renew it"),
            ("InvalidIdentityToken", ErrorKind::Denied, "the audience"),
            ("IDPCommunicationError", ErrorKind::Unavailable, "discovery page"),
            ("MalformedPolicyDocument", ErrorKind::InvalidConfig, "mend the scope's `policy`"),
            ("PackedPolicyTooLarge", ErrorKind::InvalidConfig, "`policy_arns`"),
            ("RegionDisabledException", ErrorKind::InvalidConfig, "activate STS"),
            ("ValidationError", ErrorKind::InvalidConfig, "maximum session duration"),
            ("Throttling", ErrorKind::RateLimited, "limits the account"),
        ] {
            let error = explained(code, None);
            assert_eq!(error.kind, kind, "{code}");
            assert!(error.message.starts_with("the service answered 400: no: "));
            assert!(error.message.contains(advice), "{}", error.message);
            assert!(!error.request_sent, "{code} says that nothing was issued");
        }
    }

    #[test]
    fn what_it_does_not_know_stays_as_it_is() {
        let error = explained("InternalFailure", None);
        assert_eq!((error.kind, error.request_sent), (ErrorKind::Other, true));
        assert_eq!(error.message, "the service answered 400: no");
    }

    #[test]
    fn a_throttled_caller_learns_how_long_to_wait() {
        assert_eq!(explained("Throttling", Some(7_000)).retry_after_ms, Some(7_000));
        assert_eq!(explained("Throttling", None).retry_after_ms, Some(1_000));
        assert_eq!(explained("AccessDenied", None).retry_after_ms, None);
    }
}
