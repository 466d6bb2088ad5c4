//! What AWS logs of a session: its name, its source identity, its tags. Each is made to fit AWS's
//! rules in such a way that two requesters never come to one name unnoticed.

use sha2::{Digest, Sha256};

/// The session's name, `<session>.<requester>`: whatever CloudTrail shows of a use begins with the
/// id under which Claviger knows the rest.
pub fn role_session_name(session: &str, requester: &str) -> String {
    let chars_left = NAME_CHARS_MAX.saturating_sub(session.len() + 1);
    format!("{session}.{}", fitted(requester, NAME_SIGNS, chars_left))
}

/// On whose behalf: what stays with a session through every further role that it assumes.
pub fn source_identity(requester: &str) -> String {
    fitted(requester, NAME_SIGNS, NAME_CHARS_MAX)
}

/// A tag's value.
pub fn tag_value(text: &str) -> String {
    fitted(text, TAG_SIGNS, TAG_CHARS_MAX)
}

/// `text` itself if it is allowed as it is. Otherwise its beginning with `-` for what is not
/// allowed, then `=` and 64 bits of its SHA-256. A text that holds `=` is never taken as it is:
/// so what has no `=` is the text, and what has one names the text by its digest.
fn fitted(text: &str, signs: &str, chars_max: usize) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
    if (CHARS_MIN..=chars_max).contains(&text.len()) && text.chars().all(kept) {
        return text.to_owned();
    }
    let digest = Sha256::digest(text.as_bytes());
    let digest: String = digest.iter().take(DIGEST_BYTES).map(|b| format!("{b:02x}")).collect();
    let head = text.chars().take(chars_max.saturating_sub(digest.len() + 1));
    let head: String = head.map(|c| if kept(c) { c } else { '-' }).collect();
    format!("{head}={digest}")
}

/// Of `RoleSessionName` and `SourceIdentity`; both take `[\w+=,.@-]`.
const NAME_CHARS_MAX: usize = 64;
const NAME_SIGNS: &str = "_+,.@-";
const TAG_CHARS_MAX: usize = 256;
const TAG_SIGNS: &str = " _.:/+-@";
/// AWS takes no shorter name.
const CHARS_MIN: usize = 2;
/// To find a second requester with the digest of a given one takes 2⁶⁴ tries, and requesters are
/// proven identities, which nobody can try at will.
const DIGEST_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SESSION: &str = "01jdxyz0123456789abcdefghj";

    #[test]
    fn a_name_keeps_what_aws_allows_and_marks_what_it_changed() {
        for (requester, expect) in [
            ("alice@example.org", "alice@example.org"),
            ("unix:1000", "unix-1000=d8cf1542892b8887"),
            ("a", "a=ca978112ca1bbdca"),
            ("", "=e3b0c44298fc1c14"),
            ("a=b", "a-b=42144f3939c3ffbb"),
        ] {
            assert_eq!(source_identity(requester), expect);
        }
    }

    #[test]
    fn everything_fits_and_no_two_requesters_share_a_name() {
        let long = "spiffe://example.org/ns/reports/sa/".repeat(9);
        let requesters = [
            "unix:1000",
            "unix-1000",
            "unix/1000",
            "unix:1000 ",
            "Unix:1000",
            "unix-1000=d8cf1542892b8887",
            "spiffe://example.org/a",
            "spiffe://example.org-a",
            "alice@example.org",
            "älice@example.org",
            "a",
            "",
            &long,
            &format!("{long}x"),
            &"x".repeat(37),
            &"x".repeat(38),
            &"x".repeat(64),
            &"x".repeat(65),
            "aws:alice",
        ];
        let names: [fn(&str) -> String; 3] =
            [|who| role_session_name(SESSION, who), source_identity, tag_value];
        for (make, chars_max, signs) in
            [(names[0], 64, "_+=,.@-"), (names[1], 64, "_+=,.@-"), (names[2], 256, " _.:/=+-@")]
        {
            let made: BTreeSet<_> = requesters.iter().map(|who| make(who)).collect();
            assert_eq!(made.len(), requesters.len(), "{made:?}");
            for name in made {
                assert!((2..=chars_max).contains(&name.len()), "{name}");
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c)));
                assert!(!name.starts_with("aws:") || signs.contains(':'), "{name}");
            }
        }
    }

    #[test]
    fn a_session_name_begins_with_the_session() {
        let name = role_session_name(SESSION, "spiffe://example.org/ns/reports/sa/nightly");
        assert_eq!(name.split('.').next(), Some(SESSION));
        assert_eq!(name.len(), 64);
    }
}
