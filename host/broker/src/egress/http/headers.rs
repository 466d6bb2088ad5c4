//! Which headers a guest may set, and which of a response it may see. Lists, no logic of requests.

use http::{HeaderName, HeaderValue};

/// A header that a guest wants to send, or a sentence on what is wrong with it.
pub fn guest(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let malformed = "a header has a name of letters, digits and dashes";
    // Many servers read `_` and other signs as `-`, and would see the host's headers in the guest's.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(malformed);
    }
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed)?;
    if is_the_hosts(name.as_str()) {
        return Err("this header is the host's: authentication, routing and framing are not set \
                    by plugins");
    }
    // Visible ASCII, spaces and tabs: CR, LF and NUL would end the header or the value.
    let malformed = "a header's value holds printable ASCII only";
    if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
        return Err(malformed);
    }
    let value = HeaderValue::from_str(value).map_err(|_| malformed)?;
    Ok((name, value))
}

/// Whether a guest may see this header of a response.
pub fn is_visible(name: &str) -> bool {
    VISIBLE.contains(&name)
}

/// A header's value as a guest may see it.
pub fn shown(name: &str, value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    if name != "location" {
        return Some(text.to_owned());
    }
    // Codes and tokens travel in queries and fragments, and passwords before an `@`.
    let plain = text.split(['?', '#']).next().unwrap_or_default();
    let authority = plain.split_once("//").map_or("", |(_, rest)| rest).split('/').next();
    Some(if authority.is_some_and(|a| a.contains('@')) { String::new() } else { plain.to_owned() })
}

fn is_the_hosts(name: &str) -> bool {
    HOSTS.contains(&name) || HOSTS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Authentication, framing, hop-by-hop headers (RFC 9110, section 7.6.1), and headers with which
/// some servers replace the method or the path that was granted.
const HOSTS: [&str; 22] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];

const HOSTS_PREFIXES: [&str; 4] = ["proxy-", "x-amz-", "x-goog-", "x-forwarded-"];

/// Documented in the plugin contract: what a caller needs to wait, to log and to find what it made.
const VISIBLE: [&str; 7] = [
    "content-type",
    "date",
    "location",
    "request-id",
    "retry-after",
    "x-amzn-requestid",
    "x-request-id",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn what_is_the_hosts_is_refused() {
        for name in [
            "Authorization",
            "authorization",
            "proxy-authorization",
            "Proxy-Anything",
            "cookie",
            "HOST",
            "x-amz-date",
            "X-Amz-Security-Token",
            "x-goog-api-key",
            "content-length",
            "Transfer-Encoding",
            "te",
            "trailer",
            "upgrade",
            "connection",
            "keep-alive",
            "expect",
            "forwarded",
            "X-Forwarded-For",
            "X-HTTP-Method-Override",
            "x-original-url",
            "",
            "a b",
            "a:b",
            "a\r\nhost",
            "ä",
            "a\0",
        ] {
            assert!(guest(name, "1").is_err(), "{name:?}");
        }
        for value in ["a\r\nx: y", "a\nb", "a\rb", "a\0b", "ä", "\x7f"] {
            assert!(guest("x-note", value).is_err(), "{value:?}");
        }
        for name in ["accept", "Content-Type", "x-note", "if-match", "x-amzn-note"] {
            assert!(guest(name, "a b\tc").is_ok(), "{name}");
        }
    }

    #[test]
    fn a_location_shows_neither_query_nor_password() {
        for (value, expect) in [
            ("https://api.example/v1/users/7", "https://api.example/v1/users/7"),
            ("/v1/users/7?code=x", "/v1/users/7"),
            ("https://api.example/cb#token=x", "https://api.example/cb"),
            ("https://user:pass@api.example/x", ""),
            ("//user:pass@api.example/x", ""),
        ] {
            let shown = shown("location", &value.parse().unwrap());
            assert_eq!(shown.as_deref(), Some(expect), "{value}");
        }
        assert_eq!(shown("date", &"a?b".parse().unwrap()).as_deref(), Some("a?b"));
    }

    #[test]
    fn only_listed_headers_are_visible() {
        assert!(is_visible("retry-after") && !is_visible("set-cookie") && !is_visible("x-token"));
    }
}
