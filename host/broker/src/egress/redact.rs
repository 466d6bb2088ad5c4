//! Takes known secrets out of text that is about to leave, and finds them in what a guest sends.
//! Knows no door.

mod matcher;
mod view;

use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use self::matcher::Matcher;

/// A secret value shared between the parts of one call; zeroed when the last part lets go.
pub type SharedSecret = Arc<Zeroizing<String>>;

/// The secrets that one call knows of.
#[derive(Clone, Default)]
pub struct Redactor {
    known: Vec<SharedSecret>,
    /// Made of `known` when it is first needed.
    matcher: OnceLock<Arc<Matcher>>,
}

impl Redactor {
    /// One that knows `secrets` from the start.
    pub fn new(secrets: impl IntoIterator<Item = SharedSecret>) -> Self {
        let mut redactor = Self::default();
        secrets.into_iter().for_each(|secret| redactor.learn(secret));
        redactor
    }

    /// From now on `secret` is taken out too.
    pub fn learn(&mut self, secret: SharedSecret) {
        if !secret.is_empty() && !self.known.contains(&secret) {
            self.known.push(secret);
            self.matcher = OnceLock::new();
        }
    }

    /// `text` without any known secret, and at most `bytes_max` long.
    ///
    /// Secrets go first and the cut comes after, so that the cut cannot leave half of one.
    pub fn clean(&self, text: &str, bytes_max: usize) -> String {
        let mut clean = self.clean_whole(text);
        clip(&mut clean, bytes_max);
        clean
    }

    /// `text` without any known secret, as it is or encoded as URLs, JSON, XML, base64 and
    /// hexadecimal digits encode it.
    pub fn clean_whole(&self, text: &str) -> String {
        let spans = self.matcher().map(|matcher| matcher.spans(text)).unwrap_or_default();
        let mut clean = String::with_capacity(text.len());
        let mut done = 0;
        for (start, end) in spans {
            clean.push_str(text.get(done..start).unwrap_or_default());
            clean.push_str(REDACTED);
            done = end;
        }
        clean.push_str(text.get(done..).unwrap_or_default());
        clean
    }

    /// As [`Redactor::clean_whole`], for a value out of a document. A service that writes a stray `\`
    /// before a secret turns its first letter into an escape, such as `\r`: what is left is not
    /// the secret, but written out again it is. Nothing of such a value is shown.
    pub fn clean_value(&self, text: &str) -> String {
        let clean = self.clean_whole(text);
        if !clean.contains(|c: char| c.is_ascii_control()) {
            return clean;
        }
        let written = serde_json::Value::from(clean.as_str()).to_string();
        if self.clean_whole(&written) == written { clean } else { REDACTED.to_owned() }
    }

    /// Whether `sent` holds a known secret, as it is or encoded. Secrets of less than eight bytes
    /// do not count: they stand in ordinary words by chance, and a refusal would tell a guest who
    /// guesses that it guessed right.
    pub fn finds_secret(&self, sent: &[u8]) -> bool {
        self.matcher().is_some_and(|matcher| matcher.finds_long(sent))
    }

    fn matcher(&self) -> Option<&Matcher> {
        if self.known.is_empty() {
            return None;
        }
        Some(self.matcher.get_or_init(|| Arc::new(Matcher::new(&self.known))).as_ref())
    }
}

/// Cuts `text` to `bytes_max`, never inside a character.
pub fn clip(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor_of(secrets: &[&str]) -> Redactor {
        Redactor::new(secrets.iter().map(|s| Arc::new(Zeroizing::new((*s).to_owned()))))
    }

    fn redactor() -> Redactor {
        redactor_of(&["hunter2", ""])
    }

    #[test]
    fn takes_out_every_occurrence() {
        assert_eq!(redactor().clean("a hunter2 b hunter2", 99), "a [redacted] b [redacted]");
    }

    #[test]
    fn an_escape_does_not_hide_the_beginning_of_a_secret() {
        let redactor = redactor_of(&["root-0123456789", "tower\tand\nbridge"]);
        for (value, expect) in [
            ("\root-0123456789", "[redacted]"),
            ("\root-", "\root-"),
            ("a\nb", "a\nb"),
            ("x tower\tand\nbridge y", "x [redacted] y"),
            ("root-0123456789", "[redacted]"),
        ] {
            assert_eq!(redactor.clean_value(value), expect, "{value:?}");
        }
    }

    #[test]
    fn a_cut_leaves_neither_half_a_secret_nor_half_a_character() {
        assert_eq!(redactor().clean("xhunter2", 4), "x[re");
        assert_eq!(redactor().clean("aä", 2), "a");
    }

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let secret = "p\"a/s&s+wörd=1";
        for text in [
            secret.to_owned(),
            secret.to_uppercase().replace('Ö', "ö"),
            "p%22a%2Fs%26s%2Bw%C3%B6rd%3D1".to_owned(),
            "p%22a%2fs%26s%2bw%c3%b6rd%3d1".to_owned(),
            "p%22a/s%26s+w%C3%B6rd=1".to_owned(),
            "p%2522a%252Fs%2526s%252Bw%25C3%25B6rd%253D1".to_owned(),
            "p\\\"a\\/s&s+w\\u00f6rd=1".to_owned(),
            "p&quot;a/s&amp;s+wörd=1".to_owned(),
            "p&#34;a&#x2F;s&amp;s+w&#246;rd=1".to_owned(),
            data_encoding::HEXLOWER.encode(secret.as_bytes()),
            data_encoding::HEXUPPER.encode(secret.as_bytes()),
            data_encoding::BASE64.encode(secret.as_bytes()),
            data_encoding::BASE64.encode(format!("u:{secret}").as_bytes()),
            data_encoding::BASE64.encode(format!("us:{secret}!").as_bytes()),
            data_encoding::BASE64URL_NOPAD.encode(secret.as_bytes()),
            data_encoding::BASE64URL_NOPAD.encode(format!("x{secret}yz").as_bytes()),
            data_encoding::BASE64.encode(secret.as_bytes()).replace('/', "\\/"),
        ] {
            let redactor = redactor_of(&[secret]);
            assert!(redactor.finds_secret(text.as_bytes()), "{text}");
            let clean = redactor.clean_whole(&format!("<{text}>"));
            assert!(clean.contains(REDACTED), "{text}: {clean}");
            assert!(clean.starts_with('<') && clean.ends_with('>'), "{text}: {clean}");
        }
    }

    #[test]
    fn of_base64_no_digit_stays_that_depends_on_the_secret() {
        let redactor = redactor_of(&["correct horse"]);
        let check = |text: &str, expect: &str| {
            let encoded = data_encoding::BASE64.encode(text.as_bytes());
            assert_eq!(redactor.clean_whole(&encoded), expect, "{encoded}");
        };
        check("correct horse", "[redacted]==");
        check("abccorrect horse", "YWJj[redacted]==");
        check("acorrect horse", "Y[redacted]=");
        check("abcorrect horse", "YW[redacted]");
    }

    #[test]
    fn a_short_secret_goes_without_taking_words_with_it() {
        for (secret, text, expect) in [
            ("a", "a banana: a", "[redacted] banana: [redacted]"),
            ("123", "1234 123", "1234 [redacted]"),
            ("1234", "x1234y", "x[redacted]y"),
            ("admin", "badminton", "b[redacted]ton"),
        ] {
            assert_eq!(redactor_of(&[secret]).clean_whole(text), expect, "{secret}");
            assert!(!redactor_of(&[secret]).finds_secret(text.as_bytes()), "{secret}");
        }
    }

    #[test]
    fn overlapping_secrets_leave_nothing_of_each_other() {
        let redactor = redactor_of(&["abcdefgh", "efghijkl", "gh"]);
        assert_eq!(redactor.clean_whole("xabcdefghijkly"), "x[redacted]y");
    }

    #[test]
    fn what_is_learned_later_counts_too() {
        let mut redactor = redactor();
        assert_eq!(redactor.clean_whole("swordfish"), "swordfish");
        redactor.learn(Arc::new(Zeroizing::new("swordfish".to_owned())));
        assert_eq!(redactor.clean_whole("swordfish"), REDACTED);
    }
}
