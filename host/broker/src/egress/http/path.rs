//! The one form of a path, and the prefixes that grants are made of. Pure text.

use percent_encoding::percent_decode;

/// What is wrong with text that a plugin's author wrote into a path.
pub fn literal_problem(text: &str) -> Option<&'static str> {
    let odd = text.bytes().find(|byte| !is_path_byte(*byte))?;
    Some(match odd {
        b'?' | b'#' => "a path holds neither `?` nor `#`: add parameters with `query`",
        b'%' => "a path is written without `%`: add values with `segment`",
        b'\\' => "a path holds no backslash",
        _ => "a path holds plain ASCII: add values with `segment`",
    })
}

/// What is wrong with a whole, encoded path.
pub fn problem(path: &str) -> Option<&'static str> {
    let Some(rest) = path.strip_prefix('/') else {
        return Some("a path begins with a slash: address and port are the operator's");
    };
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Some("a path has no empty segment");
        }
        if let Some(problem) = segment_problem(segment) {
            return Some(problem);
        }
    }
    None
}

/// Whether `path` lies at or below `prefix`. A prefix ends where a segment does: `/v1/users` holds
/// `/v1/users` and `/v1/users/7`, not `/v1/users-admin`.
pub fn lies_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// A server may decode a segment before it takes dots out of the path, and some do so twice, so
/// none of its readings may hold a dot segment.
fn segment_problem(segment: &str) -> Option<&'static str> {
    let mut text = segment.as_bytes().to_vec();
    for _ in 0..DECODED_MAX {
        if text.iter().any(u8::is_ascii_control) {
            return Some("a path holds no control characters");
        }
        // Parameters of a segment (`..;x`) are cut off by some servers.
        let mut parts = text.split(|byte| *byte == b'/' || *byte == b'\\');
        let name = |part: &[u8]| part.split(|byte| *byte == b';').next().map(<[u8]>::to_vec);
        if parts.any(|part| name(part).is_some_and(|name| name == b"." || name == b"..")) {
            return Some("a path holds neither `.` nor `..` as a segment, however encoded");
        }
        let decoded: Vec<u8> = percent_decode(&text).collect();
        if decoded == text {
            return None;
        }
        text = decoded;
    }
    Some("a value in the path is encoded too often")
}

/// RFC 3986, section 3.3, without percent-encoding.
const fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'/' | b'-'
                | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        )
}

/// Ours, a server's and one more.
const DECODED_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::http::encode::percent;

    #[test]
    fn only_canonical_paths_pass() {
        for path in ["/", "/v1", "/v1/", "/v1/users/a.b..c", "/a/...", "/a;v=1/b", "/x:y@z/~"] {
            assert_eq!(literal_problem(path), None, "{path}");
            assert_eq!(problem(path), None, "{path}");
        }
        for path in
            ["", "v1", "//host/x", "/a//b", "//", "/.", "/a/..", "/../b", "/a/./b", "/..;/b"]
        {
            assert!(problem(path).is_some(), "{path}");
        }
        for text in ["/a?b", "/a#b", "/%2e", "/a\\b", "/a b", "/ä", "/a\r\nb", "/a\0", "/\x7f"] {
            assert!(literal_problem(text).is_some(), "{text:?}");
        }
    }

    #[test]
    fn a_value_stays_within_its_segment() {
        for value in ["7", "a/b", "group/project", "a?b#c%d", "ä", "...", "a;b", "100%"] {
            assert_eq!(problem(&format!("/v1/{}", percent(value))), None, "{value}");
        }
        for value in [
            ".",
            "..",
            "../admin",
            "a/../b",
            "..\\admin",
            "..;/x",
            "%2e%2e",
            "%2e%2e%2fx",
            "%252e.",
            "%25252525252541",
            "a\0",
            "a\r\nb",
            "%00",
        ] {
            assert!(problem(&format!("/v1/{}", percent(value))).is_some(), "{value:?}");
        }
        // Two harmless values that together are not.
        assert!(problem(&format!("/v1/{}{}", percent("."), percent("."))).is_some());
    }

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        for (path, prefix, expect) in [
            ("/v1/users", "/v1/users", true),
            ("/v1/users/7", "/v1/users", true),
            ("/v1/users-admin", "/v1/users", false),
            ("/v1/users/7", "/v1/users/", true),
            ("/v1/users", "/v1/users/", false),
            ("/anything", "/", true),
            ("/v1", "/v1/users", false),
            ("/V1/users", "/v1", false),
        ] {
            assert_eq!(lies_below(path, prefix), expect, "{path} {prefix}");
        }
    }
}
