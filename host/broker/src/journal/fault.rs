//! Turns SQLite's errors into the journal's own sentences. The only file that reads error codes.

use std::path::PathBuf;

use claviger_core::lease::TransitionError;
use claviger_core::ports::JournalError;
use rusqlite::{Error, ErrorCode};
use thiserror::Error as ThisError;

use super::seal::SealError;

/// Why a journal could not be opened.
#[derive(Debug, ThisError)]
pub enum OpenJournalError {
    /// The folder or the file could not be made or reached.
    #[error("the journal `{}` cannot be opened: {reason}", path.display())]
    Path {
        /// The journal.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Another broker has it.
    #[error(
        "the journal `{}` is in use by another broker: stop that one first, or give this one a \
         journal of its own", path.display()
    )]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("`{}` is not a journal of this broker: give another path", path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// A later broker wrote it.
    #[error(
        "the journal `{}` has schema {found}, and this broker knows only schemas up to {known}: \
         start the broker version that wrote it, or a later one", path.display()
    )]
    NewerSchema {
        /// The journal.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that this broker knows.
        known: i64,
    },
    /// It was sealed with another key.
    #[error(
        "the sealing key does not open the journal `{}`: give the key that it is under, as \
         `sealing_key` or, to change it, among `previous_sealing_keys`", path.display()
    )]
    WrongKey {
        /// The journal.
        path: PathBuf,
    },
    /// It cannot be read or written, or does not end as it should.
    #[error("the journal `{}` cannot be opened: {error}", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// Why.
        error: JournalError,
    },
}

/// How far an error reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Only the job that met it.
    Job,
    /// The file cannot be written now; it may be again.
    File,
    /// The file's content is broken; a person must look.
    Content,
}

/// An error of one job: what to answer, and how far it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) error: JournalError,
    pub(super) reach: Reach,
}

impl Fault {
    /// A row that makes no sense; concerns only the job that read it.
    pub(super) fn damaged(sentence: impl Into<String>) -> Self {
        Self { error: JournalError::Damaged(sentence.into()), reach: Reach::Job }
    }

    /// The file cannot be written.
    pub(super) fn unwritable(sentence: impl Into<String>) -> Self {
        Self { error: JournalError::Unwritable(sentence.into()), reach: Reach::File }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let sentence = error.to_string();
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::OperationInterrupted
                | ErrorCode::OperationAborted,
            ) => Self::unwritable(sentence),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self { error: JournalError::Damaged(sentence), reach: Reach::Content }
            }
            // Constraints, wrong types, rows that are not there: of the one job.
            _ => Self::damaged(sentence),
        }
    }
}

impl From<TransitionError> for Fault {
    fn from(error: TransitionError) -> Self {
        Self::damaged(error.to_string())
    }
}

impl From<SealError> for Fault {
    fn from(error: SealError) -> Self {
        Self::damaged(error.to_string())
    }
}

impl From<Fault> for JournalError {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn what_concerns_the_file_stops_the_file_and_what_concerns_a_job_the_job() {
        let cases = [
            (ffi::SQLITE_FULL, Reach::File),
            (ffi::SQLITE_READONLY, Reach::File),
            (ffi::SQLITE_READONLY_DBMOVED, Reach::File),
            (ffi::SQLITE_IOERR, Reach::File),
            (ffi::SQLITE_IOERR_FSYNC, Reach::File),
            (ffi::SQLITE_CANTOPEN, Reach::File),
            (ffi::SQLITE_BUSY, Reach::File),
            (ffi::SQLITE_CORRUPT, Reach::Content),
            (ffi::SQLITE_NOTADB, Reach::Content),
            (ffi::SQLITE_CONSTRAINT_PRIMARYKEY, Reach::Job),
        ];
        for (code, expect) in cases {
            let fault = Fault::from(Error::SqliteFailure(ffi::Error::new(code), None));
            let unwritable = matches!(fault.error, JournalError::Unwritable(_));
            assert_eq!(fault.reach, expect, "{code}: {fault:?}");
            assert_eq!(unwritable, expect == Reach::File, "{code}: {fault:?}");
        }
    }
}
