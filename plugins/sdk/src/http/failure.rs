//! From a status that is no success to the contract's error. Pure; reads no body.

use crate::{Error, ErrorKind};

/// What a plugin may know of an answer that is no success.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

/// The contract's error for it. The request was sent: even one that was refused may not have been
/// the first of its call.
pub(super) fn of(answer: &Answer) -> Error {
    let status = answer.status;
    let said = answer.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    Error {
        kind: kind(status),
        code: Some(answer.code.clone().unwrap_or_else(|| status.to_string())),
        message: format!("the service answered {status}{said}"),
        request_sent: true,
        retry_after_ms: answer.retry_after.as_deref().and_then(millis),
    }
}

const fn kind(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Denied,
        404 | 410 => ErrorKind::NotFound,
        405 | 501 => ErrorKind::Unsupported,
        408 => ErrorKind::Timeout,
        409 | 412 => ErrorKind::Conflict,
        429 => ErrorKind::RateLimited,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    }
}

/// `retry-after` in seconds. A date tells no wait without a clock, so it counts as none.
fn millis(text: &str) -> Option<u64> {
    text.trim().parse::<u64>().ok().map(|secs| secs.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_kind() {
        for (status, expect) in [
            (301, ErrorKind::Other),
            (400, ErrorKind::Other),
            (401, ErrorKind::Denied),
            (403, ErrorKind::Denied),
            (404, ErrorKind::NotFound),
            (408, ErrorKind::Timeout),
            (409, ErrorKind::Conflict),
            (429, ErrorKind::RateLimited),
            (500, ErrorKind::Unavailable),
            (501, ErrorKind::Unsupported),
            (503, ErrorKind::Unavailable),
        ] {
            assert_eq!(kind(status), expect, "{status}");
        }
    }

    #[test]
    fn the_upstreams_own_words_win() {
        let answer = |code: Option<&str>, message: Option<&str>, retry_after: Option<&str>| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            of(&Answer {
                status: 429,
                retry_after: text(retry_after),
                code: text(code),
                message: text(message),
            })
        };
        let plain = answer(None, None, Some("Mon, 01 Jan 2029 00:00:00 GMT"));
        assert_eq!((plain.code.as_deref(), plain.retry_after_ms), (Some("429"), None));
        assert_eq!(plain.message, "the service answered 429");
        let told = answer(Some("Throttled"), Some("slow down"), Some("7"));
        assert_eq!((told.code.as_deref(), told.retry_after_ms), (Some("Throttled"), Some(7_000)));
        assert_eq!(told.message, "the service answered 429: slow down");
        assert!(told.request_sent);
    }
}
