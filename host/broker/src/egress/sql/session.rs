//! One connection lent for one call, whatever the dialect, and the rows that it reads.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::statement::Rendered;
use super::{mysql, postgres};
use crate::egress::{Failure, FailureKind};

/// A lent connection.
pub enum Session {
    /// To PostgreSQL.
    Postgres(postgres::Session),
    /// To MySQL or MariaDB.
    Mysql(mysql::Session),
}

/// The rows of one query.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows not read yet, each value as text.
    pub rows: VecDeque<Vec<Option<String>>>,
    /// How many rows the statement returned or touched.
    pub touched: u64,
    bytes: usize,
}

impl Session {
    /// Runs one statement and tells how many rows it touched.
    pub async fn execute(&mut self, sql: &Rendered, end: Instant) -> Result<u64, Failure> {
        self.query(sql, end).await.map(|rows| rows.touched)
    }

    /// Runs one query.
    pub async fn query(&mut self, sql: &Rendered, end: Instant) -> Result<Rows, Failure> {
        match self {
            Self::Postgres(session) => session.query(sql, end).await,
            Self::Mysql(session) => session.query(sql, end).await,
        }
    }

    /// Runs the statements in one transaction.
    pub async fn transaction(&mut self, all: &[Rendered], end: Instant) -> Result<(), Failure> {
        match self {
            Self::Postgres(session) => session.transaction(all, end).await,
            Self::Mysql(session) => session.transaction(all, end).await,
        }
    }
}

impl Rows {
    /// Keeps a row, unless the answer becomes too large.
    pub(super) fn keep(&mut self, values: Vec<Option<String>>) -> Result<(), Failure> {
        let bytes = values.iter().flatten().map(String::len).sum::<usize>();
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(values.len());
        if self.rows.len() >= ROWS_MAX || self.bytes > ROWS_BYTES_MAX {
            return Err(too_much());
        }
        self.rows.push_back(values);
        Ok(())
    }

    /// Takes the next rows, at most `rows_max`.
    pub fn next_page(&mut self, rows_max: usize) -> Vec<Vec<Option<String>>> {
        self.rows.drain(..rows_max.min(self.rows.len())).collect()
    }
}

pub(super) fn remaining(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

pub(super) fn late() -> Failure {
    Failure::sent(FailureKind::Timeout, "the database did not answer within the call's time")
}

pub(super) fn time_is_up() -> Failure {
    let message = "the call's time is used up: nothing was sent";
    Failure::unsent(FailureKind::Timeout, message)
}

pub(super) fn too_much() -> Failure {
    let message = "the query returned more than 1,000 rows or 256 KiB: narrow it";
    Failure::sent(FailureKind::InvalidInput, message)
}

/// Documented in the plugin contract: plugins look things up, they do not read tables.
const ROWS_MAX: usize = 1_000;

/// Documented in the plugin contract; bounds the broker's memory for one call.
const ROWS_BYTES_MAX: usize = 256 * 1024;
