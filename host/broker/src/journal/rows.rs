//! Reads and writes single columns: the core's types as SQLite keeps them. Knows no table.

use std::str::FromStr;

use claviger_core::time::Timestamp;
use rusqlite::Row;
use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as NameError, StrDeserializer};

use super::fault::Fault;

/// A column of text that parses, such as an id.
pub(super) fn parsed<T: FromStr>(row: &Row<'_>, column: &str) -> Result<T, Fault> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| nonsense(column, &text))
}

/// A column with the name of a variant, such as a state.
pub(super) fn named<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, Fault> {
    let text: String = row.get(column)?;
    variant(&text).ok_or_else(|| nonsense(column, &text))
}

/// The same, where the column may be empty.
pub(super) fn maybe_named<T: DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> Result<Option<T>, Fault> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| variant(&text).ok_or_else(|| nonsense(column, &text))).transpose()
}

/// A column of JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T, Fault> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|_| nonsense(column, &text))
}

/// A column of 32 bytes.
pub(super) fn bytes32(row: &Row<'_>, column: &str) -> Result<[u8; 32], Fault> {
    let bytes: Vec<u8> = row.get(column)?;
    bytes.try_into().map_err(|_| Fault::damaged(format!("column `{column}` has not 32 bytes")))
}

/// A column with a moment.
pub(super) fn moment(row: &Row<'_>, column: &str) -> Result<Timestamp, Fault> {
    let millis: i64 = row.get(column)?;
    Ok(Timestamp::from_unix_millis(u64::try_from(millis).unwrap_or(0)))
}

/// The same, where the column may be empty.
pub(super) fn maybe_moment(row: &Row<'_>, column: &str) -> Result<Option<Timestamp>, Fault> {
    let millis: Option<i64> = row.get(column)?;
    Ok(millis.map(|millis| Timestamp::from_unix_millis(u64::try_from(millis).unwrap_or(0))))
}

/// A moment for a column. The end of time stays the end of time.
pub(super) fn millis(at: Timestamp) -> i64 {
    integer(at.unix_millis())
}

/// A number for a column; what SQLite cannot hold becomes the most it can.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn variant<T: DeserializeOwned>(text: &str) -> Option<T> {
    let names: StrDeserializer<'_, NameError> = text.into_deserializer();
    T::deserialize(names).ok()
}

fn nonsense(column: &str, text: &str) -> Fault {
    let shown: String = text.chars().take(80).collect();
    Fault::damaged(format!("column `{column}` says `{shown}`, which makes no sense there"))
}
