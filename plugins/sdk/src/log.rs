//! Tells the operator something, in the broker's log. Never a secret; 64 lines a call.

use crate::bindings::claviger::log::log::{Level, write};

/// Writes a line for who debugs the plugin.
pub fn debug(message: &str, fields: &[(&str, &str)]) {
    write_line(Level::Debug, message, fields);
}

/// Writes a line for who reads along.
pub fn info(message: &str, fields: &[(&str, &str)]) {
    write_line(Level::Info, message, fields);
}

/// Writes a line about something an operator should look at.
pub fn warn(message: &str, fields: &[(&str, &str)]) {
    write_line(Level::Warn, message, fields);
}

/// Writes a line about a failure that the call's own answer does not carry.
pub fn error(message: &str, fields: &[(&str, &str)]) {
    write_line(Level::Error, message, fields);
}

fn write_line(level: Level, message: &str, fields: &[(&str, &str)]) {
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    write(level, message, &fields);
}
