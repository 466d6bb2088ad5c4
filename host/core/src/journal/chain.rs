//! The hash chain over the journal: each entry's hash covers its number, its bytes and the hash
//! before it. Verifying needs only the recorded lines. Reads no store.

use sha2::{Digest, Sha256};

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
