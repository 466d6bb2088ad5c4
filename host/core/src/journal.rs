//! What the journal records: one entry a line, each chained to the one before. Stores nothing.

pub mod chain;
mod entry;

pub use chain::{ChainBreak, ChainHead, ChainVerifier, EntryHash, RecordedLine};
pub use entry::{Entry, Event, Verdict};

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a journal entry: 1, 2, 3 … without gaps. Holding one means that the entry is
/// durable: adapters make it only after their commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JournalSeq(u64);

impl JournalSeq {
    /// The number of an entry that has just become durable, or was read back.
    pub const fn durable(seq: u64) -> Self {
        Self(seq)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for JournalSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
