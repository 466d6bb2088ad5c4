//! One exported line of the journal: the entry exactly as stored, as a string, with the hashes
//! that chain it. Checks no chain.

use claviger_core::journal::JournalSeq;
use claviger_core::journal::chain::{EntryHash, RecordedLine};
use claviger_proto::v1::JournalEntry;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// A line as `audit export` writes it and `audit verify` reads it. The entry stands inside a
/// string, since the chain covers its bytes and not its meaning.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedLine {
    seq: u64,
    previous_hash: String,
    hash: String,
    json: String,
}

impl From<JournalEntry> for ExportedLine {
    fn from(entry: JournalEntry) -> Self {
        Self {
            seq: entry.seq,
            previous_hash: HEXLOWER.encode(&entry.previous_hash),
            hash: HEXLOWER.encode(&entry.hash),
            json: entry.json,
        }
    }
}

impl ExportedLine {
    /// The line as the chain takes it; the error says which part is no hash.
    pub fn recorded(&self) -> Result<RecordedLine<'_>, String> {
        let hash = |name: &str, text: &str| {
            text.parse::<EntryHash>()
                .map_err(|error| format!("entry {}: {name}: {error}", self.seq))
        };
        Ok(RecordedLine {
            seq: JournalSeq::durable(self.seq),
            previous: hash("previous_hash", &self.previous_hash)?,
            hash: hash("hash", &self.hash)?,
            json: self.json.as_bytes(),
        })
    }
}
