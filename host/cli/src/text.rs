//! Text as people may safely see it: tables, times, lengths of time. Writes nothing.

use std::borrow::Cow;
use std::time::Duration;

use claviger_core::time::Timestamp;

/// Rows under headings, in columns of equal width.
pub struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these headings.
    pub const fn new(headings: &'static [&'static str]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds one row, a cell for each heading.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.iter().map(|cell| visible(cell).into_owned()).collect());
    }

    /// Whether there is no row yet.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, its headings first. `bold` wraps the headings.
    pub fn render(&self, bold: Bold) -> String {
        let widths: Vec<usize> = (0..self.headings.len()).map(|at| self.width(at)).collect();
        let headings: Vec<String> = self.headings.iter().map(|&text| text.to_owned()).collect();
        let mut text = bold.wrap(&line(&headings, &widths));
        text.push('\n');
        for row in &self.rows {
            text.push_str(&line(row, &widths));
            text.push('\n');
        }
        text
    }

    fn width(&self, at: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        let heading = self.headings.get(at).map_or(0, |text| text.len());
        cells.fold(heading, usize::max)
    }
}

/// Whether emphasis is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bold {
    /// With ANSI escapes.
    Shown,
    /// Not at all.
    Plain,
}

impl Bold {
    /// `text`, emphasised if that is shown.
    pub fn wrap(self, text: &str) -> String {
        match self {
            Self::Shown => format!("\x1b[1m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// Names and values, one pair a line.
pub fn pairs(pairs: &[(&str, &str)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{name:width$}  {}\n", visible(value))).collect()
}

/// `text` with everything escaped that could move the cursor, recolour a terminal or turn the
/// reading direction: reasons are written by agents and read by operators.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// A length of time as people write it; fractions of a second are dropped.
pub fn span(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// A length of time from a message, if it is there and not negative.
pub fn length(message: Option<prost_types::Duration>) -> Option<Duration> {
    message.and_then(|duration| Duration::try_from(duration).ok())
}

/// A point in time from a message as RFC 3339, or nothing.
pub fn moment(message: Option<prost_types::Timestamp>) -> String {
    let millis = message.and_then(|time| {
        let millis =
            time.seconds.checked_mul(1000)?.checked_add(i64::from(time.nanos) / 1_000_000)?;
        u64::try_from(millis).ok()
    });
    millis.map_or_else(String::new, |millis| Timestamp::from_unix_millis(millis).to_string())
}

/// A length of time as the command line takes it: `90s`, `30m`, `2h 15m`.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: write it as `30m` or `2h`"))
}

/// The name of a protobuf enum value as the journal spells it: `LEASE_STATE_STUCK` is `stuck`.
pub fn enum_name(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', "-")
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_headings_can_be_bold() {
        let mut table = Table::new(&["SCOPE", "OK"]);
        table.row(["orders-db/readonly", "yes"]);
        table.row(["é", "no"]);
        let expect = "SCOPE               OK\norders-db/readonly  yes\né                   no\n";
        assert_eq!(table.render(Bold::Plain), expect);
        assert!(table.render(Bold::Shown).starts_with("\x1b[1mSCOPE"));
    }

    #[test]
    fn text_from_others_cannot_drive_a_terminal() {
        for (text, expect) in [
            ("plain, with ümlaut", "plain, with ümlaut"),
            ("\x1b[2Jgone", "\\u{1b}[2Jgone"),
            ("two\nlines", "two\\nlines"),
            ("\u{202e}abc", "\\u{202e}abc"),
        ] {
            assert_eq!(visible(text), expect);
            let mut table = Table::new(&["X"]);
            table.row([text]);
            assert_eq!(table.render(Bold::Plain), format!("X\n{expect}\n"));
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        let time = prost_types::Timestamp { seconds: 1_795_000_000, nanos: 123_000_000 };
        assert_eq!(moment(Some(time)), "2026-11-18T11:06:40.123Z");
        assert_eq!(moment(Some(prost_types::Timestamp { seconds: -1, nanos: 0 })), "");
        assert_eq!(moment(None), "");
    }

    #[test]
    fn lengths_of_time_are_written_as_people_do() {
        for (text, expect) in [("90s", Some(90)), ("2h 15m", Some(8100)), ("5", None), ("", None)] {
            assert_eq!(parse_span(text).ok().map(|span| span.as_secs()), expect, "{text}");
        }
        assert_eq!(span(Duration::from_millis(5_400_999)), "1h 30m");
        assert_eq!(length(Some(prost_types::Duration { seconds: -1, nanos: 0 })), None);
    }

    #[test]
    fn enum_names_are_those_of_the_journal() {
        let name = claviger_proto::v1::RevocationClass::DenyByPolicy.as_str_name();
        assert_eq!(enum_name(name, "REVOCATION_CLASS_"), "deny-by-policy");
    }
}
