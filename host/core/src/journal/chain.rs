//! The hash chain over the journal: each entry's hash covers its number, its bytes and the hash
//! before it. Verifying needs only the recorded lines. Reads no store.

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::JournalSeq;
use crate::digest::digest;

digest!(EntryHash, "The hash of one journal entry and, through the chain, of all before it.");

impl EntryHash {
    /// The hash "before" the first entry.
    pub const GENESIS: Self = Self([0; 32]);

    /// The hash of the entry with number `seq` and JSON form `bytes` that follows `self`.
    #[must_use]
    pub fn next(&self, seq: JournalSeq, bytes: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(seq.get().to_be_bytes());
        hasher.update(bytes);
        Self(hasher.finalize().into())
    }
}

/// One line of the journal as it is stored, not yet proven to be what was recorded.
#[derive(Clone, Copy, Debug)]
pub struct RecordedLine<'a> {
    /// Its number.
    pub seq: JournalSeq,
    /// The hash of the line before, as the line states it.
    pub previous: EntryHash,
    /// Its own hash, as the line states it.
    pub hash: EntryHash,
    /// The entry's JSON form.
    pub json: &'a [u8],
}

/// The end of the chain: the newest entry, or number 0 and [`EntryHash::GENESIS`] before any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// The newest entry's number.
    pub seq: JournalSeq,
    /// Its hash.
    pub hash: EntryHash,
}

impl ChainHead {
    /// Before the first entry.
    pub const EMPTY: Self = Self { seq: JournalSeq(0), hash: EntryHash::GENESIS };

    /// The head once an entry with the JSON form `bytes` has been added.
    #[must_use]
    pub fn extended(&self, bytes: &[u8]) -> Self {
        let seq = JournalSeq(self.seq.0.saturating_add(1));
        Self { seq, hash: self.hash.next(seq, bytes) }
    }
}

/// Follows the chain over recorded lines, in the order in which they are stored, and stops at the
/// first that was changed, removed, inserted or moved.
///
/// It proves that the lines are one unbroken chain that ends at the given head. Who could have
/// rewritten the whole chain could rewrite a bare head too: whether the head is genuine is for
/// its seal to prove, or for a copy of it kept elsewhere.
#[derive(Clone, Debug)]
pub struct ChainVerifier {
    tip: ChainHead,
}

impl ChainVerifier {
    /// A verifier that expects the first entry next.
    pub const fn new() -> Self {
        Self { tip: ChainHead::EMPTY }
    }

    /// A verifier that expects the entry after `head` next: for a chain checked up to there.
    pub const fn after(head: ChainHead) -> Self {
        Self { tip: head }
    }

    /// Checks the next line.
    pub fn check(&mut self, line: &RecordedLine<'_>) -> Result<(), ChainBreak> {
        let expected = JournalSeq(self.tip.seq.0.saturating_add(1));
        if line.seq > expected {
            return Err(ChainBreak::Missing { first: expected, next: line.seq });
        }
        if line.seq < expected {
            return Err(ChainBreak::Misplaced { seq: line.seq, expected });
        }
        if line.previous != self.tip.hash {
            return Err(ChainBreak::Unchained { seq: line.seq });
        }
        let tip = self.tip.extended(line.json);
        if line.hash != tip.hash {
            return Err(ChainBreak::Altered { seq: line.seq });
        }
        self.tip = tip;
        Ok(())
    }

    /// Compares where the lines ended with where they should have.
    pub fn finish(self, head: &ChainHead) -> Result<(), ChainBreak> {
        if self.tip.seq < head.seq {
            let first = JournalSeq(self.tip.seq.0.saturating_add(1));
            return Err(ChainBreak::CutOff { first, head: head.seq });
        }
        if self.tip.seq > head.seq {
            let seq = JournalSeq(head.seq.0.saturating_add(1));
            return Err(ChainBreak::BeyondHead { seq, head: head.seq });
        }
        if self.tip.hash != head.hash {
            return Err(ChainBreak::OtherHead { seq: head.seq });
        }
        Ok(())
    }
}

impl Default for ChainVerifier {
    fn default() -> Self {
        Self::new()
    }
}

/// Where and how the chain is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChainBreak {
    /// Entries were removed from the middle.
    #[error(
        "entry {first} is missing: the next one found is {next}, so what lay between was removed"
    )]
    Missing {
        /// The first that is missing.
        first: JournalSeq,
        /// The one found instead.
        next: JournalSeq,
    },
    /// An entry stands where another belongs.
    #[error("entry {seq} stands where entry {expected} belongs: entries were moved or inserted")]
    Misplaced {
        /// The one found.
        seq: JournalSeq,
        /// The one that belongs there.
        expected: JournalSeq,
    },
    /// An entry does not continue the one before.
    #[error(
        "entry {seq} does not continue the entry before it: one of them was exchanged or rewritten"
    )]
    Unchained {
        /// The later one.
        seq: JournalSeq,
    },
    /// An entry is not what was hashed.
    #[error("entry {seq} was changed after it was recorded: its hash does not fit its content")]
    Altered {
        /// The one changed.
        seq: JournalSeq,
    },
    /// Entries were removed from the end.
    #[error("entry {first} is missing: the journal ended at entry {head}, so its end was cut off")]
    CutOff {
        /// The first that is missing.
        first: JournalSeq,
        /// The recorded head.
        head: JournalSeq,
    },
    /// Entries were added at the end.
    #[error("entry {seq} was added from outside: the journal ended at entry {head}")]
    BeyondHead {
        /// The first that was added.
        seq: JournalSeq,
        /// The recorded head.
        head: JournalSeq,
    },
    /// A chain without a break, but not the recorded one.
    #[error("entry {seq} is not the one that the head names: the chain was rewritten")]
    OtherHead {
        /// The newest.
        seq: JournalSeq,
    },
}

impl ChainBreak {
    /// The entry at which the break shows.
    pub const fn seq(&self) -> JournalSeq {
        match *self {
            Self::Missing { first: seq, .. }
            | Self::CutOff { first: seq, .. }
            | Self::Misplaced { seq, .. }
            | Self::Unchained { seq }
            | Self::Altered { seq }
            | Self::BeyondHead { seq, .. }
            | Self::OtherHead { seq } => seq,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Line {
        seq: u64,
        previous: EntryHash,
        hash: EntryHash,
        json: String,
    }

    fn recorded(jsons: &[&str]) -> (Vec<Line>, ChainHead) {
        let mut head = ChainHead::EMPTY;
        let mut lines = Vec::new();
        for json in jsons {
            let next = head.extended(json.as_bytes());
            let json = (*json).to_owned();
            lines.push(Line { seq: next.seq.0, previous: head.hash, hash: next.hash, json });
            head = next;
        }
        (lines, head)
    }

    fn verify(lines: &[Line], head: &ChainHead) -> Result<(), ChainBreak> {
        let mut verifier = ChainVerifier::new();
        for line in lines {
            verifier.check(&RecordedLine {
                seq: JournalSeq(line.seq),
                previous: line.previous,
                hash: line.hash,
                json: line.json.as_bytes(),
            })?;
        }
        verifier.finish(head)
    }

    fn check(attack: impl FnOnce(&mut Vec<Line>), expect: ChainBreak) {
        let (mut lines, head) = recorded(&["a", "b", "c", "d", "e"]);
        attack(&mut lines);
        let found = verify(&lines, &head).unwrap_err();
        assert_eq!(found, expect, "{found}");
        assert!(found.to_string().contains(&found.seq().to_string()), "{found}");
    }

    #[test]
    fn takes_what_was_recorded() {
        for jsons in [&[] as &[&str], &["a"], &["a", "b", "a"]] {
            let (lines, head) = recorded(jsons);
            assert_eq!(verify(&lines, &head), Ok(()));
        }
    }

    #[test]
    fn goes_on_after_a_head_checked_earlier() {
        let (lines, head) = recorded(&["a", "b", "c"]);
        let checked = ChainHead { seq: JournalSeq(2), hash: lines[1].hash };
        let mut verifier = ChainVerifier::after(checked);
        let line = &lines[2];
        let (seq, json) = (JournalSeq(3), line.json.as_bytes());
        let last = RecordedLine { seq, previous: line.previous, hash: line.hash, json };
        assert_eq!(verifier.check(&last), Ok(()));
        assert_eq!(verifier.finish(&head), Ok(()));
    }

    #[test]
    fn finds_a_changed_entry() {
        let seq = JournalSeq(3);
        check(|lines| lines[2].json = "C".into(), ChainBreak::Altered { seq });
        check(|lines| lines[2].hash = EntryHash::GENESIS, ChainBreak::Altered { seq });
        check(|lines| lines[2].previous = EntryHash::GENESIS, ChainBreak::Unchained { seq });
        check(
            |lines| {
                let changed = lines[1].hash.next(seq, b"C");
                lines[2].json = "C".into();
                lines[2].hash = changed;
            },
            ChainBreak::Unchained { seq: JournalSeq(4) },
        );
    }

    #[test]
    fn finds_a_removed_entry() {
        let (first, next) = (JournalSeq(3), JournalSeq(4));
        check(|lines| drop(lines.remove(2)), ChainBreak::Missing { first, next });
        let (first, next) = (JournalSeq(1), JournalSeq(2));
        check(|lines| drop(lines.remove(0)), ChainBreak::Missing { first, next });
        let cut = ChainBreak::CutOff { first: JournalSeq(5), head: JournalSeq(5) };
        check(|lines| drop(lines.pop()), cut);
        let cut = ChainBreak::CutOff { first: JournalSeq(1), head: JournalSeq(5) };
        check(Vec::clear, cut);
    }

    #[test]
    fn finds_an_inserted_entry() {
        let (seq, expected) = (JournalSeq(3), JournalSeq(4));
        let twice = |lines: &mut Vec<Line>| lines.insert(2, lines[2].clone());
        check(twice, ChainBreak::Misplaced { seq, expected });
        let beyond = ChainBreak::BeyondHead { seq: JournalSeq(6), head: JournalSeq(5) };
        check(
            |lines| {
                let last = lines[4].clone();
                let hash = last.hash.next(JournalSeq(6), b"f");
                lines.push(Line { seq: 6, previous: last.hash, hash, json: "f".into() });
            },
            beyond,
        );
    }

    #[test]
    fn finds_entries_that_changed_places() {
        let (first, next) = (JournalSeq(2), JournalSeq(3));
        check(|lines| lines.swap(1, 2), ChainBreak::Missing { first, next });
        let renumbered = |lines: &mut Vec<Line>| {
            lines.swap(1, 2);
            lines[1].seq = 2;
            lines[2].seq = 3;
        };
        check(renumbered, ChainBreak::Unchained { seq: JournalSeq(2) });
    }

    #[test]
    fn finds_a_chain_rewritten_as_a_whole() {
        let other = recorded(&["a", "b", "C", "d", "e"]).0;
        check(|lines| *lines = other, ChainBreak::OtherHead { seq: JournalSeq(5) });
    }
}
