//! Finds all forms of all known secrets in one pass over a text.

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER};
use zeroize::Zeroizing;

use super::SharedSecret;
use super::view::View;

/// All forms of some secrets. The automaton keeps its own copy of them, which is freed with the
/// call but not zeroed: the process is hardened against being read (`harden.rs`).
pub struct Matcher {
    automaton: Option<AhoCorasick>,
    forms: Vec<Form>,
}

/// What a pattern of the automaton stands for.
#[derive(Clone, Copy)]
struct Form {
    how: Written,
    secret_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    AsItIs,
    Hex,
    Base64 {
        /// Whether the digit before holds bits of the secret and of what stands before it.
        shared_before: Shared,
        /// The same of the digit after.
        shared_after: Shared,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    Yes,
    No,
}

impl Shared {
    const fn when(shared: bool) -> Self {
        if shared { Self::Yes } else { Self::No }
    }
}

impl Matcher {
    pub(super) fn new(secrets: &[SharedSecret]) -> Self {
        let mut patterns: Vec<Zeroizing<String>> = Vec::new();
        let mut forms = Vec::new();
        for secret in secrets {
            for (pattern, how) in written(secret) {
                patterns.push(pattern);
                forms.push(Form { how, secret_bytes: secret.len() });
            }
        }
        // Upper and lower case are one: hexadecimal digits come in both, and a secret whose case
        // was changed is still most of the secret. The compact kind is the quickest to build.
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(patterns.iter().map(|pattern| pattern.as_bytes()))
            .ok();
        Self { automaton, forms }
    }

    /// Where secrets stand in `text`: in order, apart from each other, at character boundaries.
    pub(super) fn spans(&self, text: &str) -> Vec<(usize, usize)> {
        if self.automaton.is_none() {
            return vec![(0, text.len())];
        }
        let mut spans = Vec::new();
        for view in views(text.as_bytes()) {
            self.each(&view, |form, start, end| {
                if let Some((start, end)) = form.extent(&view.bytes, start, end) {
                    join(&mut spans, view.span(start, end));
                }
                Go::On
            });
        }
        merged(text, spans)
    }

    /// Whether one of the secrets that are long enough not to be an ordinary word stands in `text`.
    pub(super) fn finds_long(&self, text: &[u8]) -> bool {
        let mut found = self.automaton.is_none();
        for view in views(text) {
            self.each(&view, |form, _, _| {
                found |= form.secret_bytes >= LONG_BYTES;
                if found { Go::Stop } else { Go::On }
            });
        }
        found
    }

    fn each(&self, view: &View, mut see: impl FnMut(Form, usize, usize) -> Go) {
        let Some(automaton) = &self.automaton else { return };
        for found in automaton.find_overlapping_iter(&view.bytes) {
            let Some(form) = self.forms.get(found.pattern().as_usize()) else { continue };
            if matches!(see(*form, found.start(), found.end()), Go::Stop) {
                return;
            }
        }
    }
}

enum Go {
    On,
    Stop,
}

impl Form {
    /// What of `text` round a match is to go, if it is one.
    fn extent(self, text: &[u8], start: usize, end: usize) -> Option<(usize, usize)> {
        let before = start.checked_sub(1).and_then(|at| text.get(at));
        let after = text.get(end);
        let is = |byte: Option<&u8>, what: fn(u8) -> bool| byte.is_some_and(|byte| what(*byte));
        match self.how {
            Written::AsItIs if self.secret_bytes < WORD_BYTES => {
                let word = |byte: u8| byte.is_ascii_alphanumeric();
                (!is(before, word) && !is(after, word)).then_some((start, end))
            }
            Written::AsItIs | Written::Hex => Some((start, end)),
            Written::Base64 { shared_before, shared_after } => {
                let digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
                let before = shared_before == Shared::Yes && is(before, digit);
                let after = shared_after == Shared::Yes && is(after, digit);
                Some((start - usize::from(before), end + usize::from(after)))
            }
        }
    }
}

/// The text as it is, and with up to two layers of escapes undone.
fn views(text: &[u8]) -> impl Iterator<Item = View> {
    let first = View::plain(text);
    let second = first.unescaped();
    let third = second.as_ref().and_then(View::unescaped);
    [Some(first), second, third].into_iter().flatten()
}

fn written(secret: &str) -> Vec<(Zeroizing<String>, Written)> {
    let mut forms = vec![(Zeroizing::new(secret.to_owned()), Written::AsItIs)];
    if secret.len() < WORD_BYTES {
        return forms;
    }
    forms.push((Zeroizing::new(HEXLOWER.encode(secret.as_bytes())), Written::Hex));
    for alphabet in [BASE64_NOPAD, BASE64URL_NOPAD] {
        for shift in 0..3 {
            let how = Written::Base64 {
                shared_before: Shared::when(shift > 0),
                shared_after: Shared::when(!((shift + secret.len()) * 8).is_multiple_of(6)),
            };
            forms.push((base64(&alphabet, secret, shift), how));
        }
    }
    forms
}

/// The digits of base64 that depend on nothing but the secret when it begins `shift` bytes after
/// a group of three.
fn base64(alphabet: &Encoding, secret: &str, shift: usize) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(vec![0; shift]);
    bytes.extend_from_slice(secret.as_bytes());
    let digits = Zeroizing::new(alphabet.encode(&bytes));
    let (first, last) = ((shift * 8).div_ceil(6), bytes.len() * 8 / 6);
    Zeroizing::new(digits.get(first..last).unwrap_or_default().to_owned())
}

/// Adds a span, or makes the last one longer: matches come in the order of their ends, and a text
/// of one letter may hold more of them than it has letters.
fn join(spans: &mut Vec<(usize, usize)>, (start, end): (usize, usize)) {
    match spans.last_mut() {
        Some((first, last)) if start <= *last && end >= *first => {
            *first = start.min(*first);
            *last = end.max(*last);
        }
        _ => spans.push((start, end)),
    }
}

/// In order, and those that touch as one.
fn merged(text: &str, mut spans: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    spans.sort_unstable();
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (start, end) in spans {
        let start = (0..=start).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end = (end..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        match merged.last_mut() {
            Some((_, last)) if start <= *last => *last = end.max(*last),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// Below this a secret is taken out only where it stands alone: every text holds a given letter.
const WORD_BYTES: usize = 4;

/// What people may have chosen as a password is shorter; what a service makes is longer.
const LONG_BYTES: usize = 8;
