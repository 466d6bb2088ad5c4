//! A permit made durable: the proof that the journal knew before a credential could exist.

use crate::decide::Permit;
use crate::ids::IntentId;
use crate::journal::JournalSeq;

/// INVARIANT (no-plugin-without-intent): a plugin is called only with `&Intent`, and an intent is
/// made only here, from a permit and the number of the journal entry that recorded it. Not `Clone`.
#[derive(Debug)]
pub struct Intent {
    id: IntentId,
    seq: JournalSeq,
    permit: Permit,
}

impl Intent {
    /// The intent that entry `seq` of the journal recorded.
    pub(crate) const fn recorded(id: IntentId, seq: JournalSeq, permit: Permit) -> Self {
        Self { id, seq, permit }
    }

    /// Its id: the tag of everything that the plugin creates upstream.
    pub const fn id(&self) -> IntentId {
        self.id
    }

    /// The journal entry that recorded it.
    pub const fn seq(&self) -> JournalSeq {
        self.seq
    }

    /// What was permitted.
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }
}
