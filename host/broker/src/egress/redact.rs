//! Takes known secrets out of text that is about to leave: log lines and error messages.

use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret value shared between the parts of one call; zeroed when the last part lets go.
pub type SharedSecret = Arc<Zeroizing<String>>;

/// The secrets that one call knows of.
#[derive(Clone, Default)]
pub struct Redactor {
    known: Vec<SharedSecret>,
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
        if !secret.is_empty() {
            self.known.push(secret);
        }
    }

    /// `text` without any known secret, and at most `bytes_max` long.
    ///
    /// Secrets go first and the cut comes after, so that the cut cannot leave half of one.
    pub fn clean(&self, text: &str, bytes_max: usize) -> String {
        let mut clean = text.to_owned();
        for secret in &self.known {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), REDACTED);
            }
        }
        clip(&mut clean, bytes_max);
        clean
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

    fn redactor() -> Redactor {
        Redactor::new(["hunter2", ""].map(|s| Arc::new(Zeroizing::new(s.to_owned()))))
    }

    #[test]
    fn takes_out_every_occurrence() {
        assert_eq!(redactor().clean("a hunter2 b hunter2", 99), "a [redacted] b [redacted]");
    }

    #[test]
    fn a_cut_leaves_neither_half_a_secret_nor_half_a_character() {
        assert_eq!(redactor().clean("xhunter2", 4), "x[re");
        assert_eq!(redactor().clean("aä", 2), "a");
    }
}
