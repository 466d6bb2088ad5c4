//! Everything that the command writes to its two streams. Answers go to stdout, the rest to stderr.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::exit::Failure;
use crate::text::{Bold, Table, visible};

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// One JSON object; one a line where there are many.
    Json,
    /// `NAME=value` lines (`session open` and `issue` only).
    Env,
    /// `export NAME=value` lines (`session open` and `issue` only).
    Export,
}

/// Writes answers, notes and failures in the chosen format.
#[derive(Clone, Copy)]
pub struct Printer {
    /// The chosen format.
    pub format: Format,
}

impl Printer {
    /// Whether JSON was asked for. Refuses the formats that only fit environment variables.
    pub fn is_json(self) -> Result<bool, Failure> {
        match self.format {
            Format::Table => Ok(false),
            Format::Json => Ok(true),
            Format::Env | Format::Export => Err(Failure::usage(
                "`--output env` and `--output export` fit `session open` and `issue` only: use `table` or `json`",
            )),
        }
    }

    /// One answer as a line of JSON.
    pub fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map(Zeroizing::new);
        let text = text.map_err(|error| Failure::other(format!("cannot write JSON: {error}")))?;
        self.text(&text)?;
        self.text("\n")
    }

    /// A table for people.
    pub fn table(self, table: &Table) -> Result<(), Failure> {
        self.text(&table.render(bold(&io::stdout())))
    }

    /// Text as it is. A reader that has gone away is no failure of ours.
    pub fn text(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure::other(format!("cannot write the answer: {error}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Progress or advice, on stderr. Not worth failing for.
    pub fn note(self, text: &str) {
        write_stderr(&format!("claviger: {}\n", visible(text)));
    }

    /// Why the command failed, on stderr: text, or JSON if that was asked for.
    pub fn failure(self, failure: &Failure) {
        match (self.format, serde_json::to_string(failure)) {
            (Format::Json, Ok(json)) => write_stderr(&format!("{json}\n")),
            _ => write_stderr(&failure_text(failure, bold(&io::stderr()))),
        }
    }
}

/// A failure as lines for people.
fn failure_text(failure: &Failure, bold: Bold) -> String {
    let mut text = format!("{} {}\n", bold.wrap("error:"), visible(&failure.sentence));
    let details = &failure.details;
    let wait = details.retry_after_secs.map(|secs| format!("try again in {secs}s"));
    for (name, value) in [
        ("denial", &details.denial_id),
        ("lease", &details.lease_id),
        ("next", &details.next),
        ("wait", &wait),
    ] {
        if let Some(value) = value {
            text.push_str(&format!("{name}: {}\n", visible(value)));
        }
    }
    text
}

/// A question on the terminal, where the answer is typed behind it.
pub fn ask(question: &str) {
    write_stderr(question);
}

/// NO_COLOR (no-color.org) speaks of colour; bold headings are dropped with it.
fn bold(stream: &impl IsTerminal) -> Bold {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if stream.is_terminal() && !no_color { Bold::Shown } else { Bold::Plain }
}

/// There is nowhere left to report a failure to write to stderr.
fn write_stderr(text: &str) {
    let _lost = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_refusal_says_what_to_do_next() {
        let mut failure = Failure::new(Exit::DENIED, "no policy\x1b[2J lets you").with_next("ask");
        failure.details.denial_id = Some("den_1".to_owned());
        let expect = "error: no policy\\u{1b}[2J lets you\ndenial: den_1\nnext: ask\n";
        assert_eq!(failure_text(&failure, Bold::Plain), expect);
    }

    #[test]
    fn formats_for_variables_are_refused_where_there_are_none() {
        for (format, expect) in [
            (Format::Table, Some(false)),
            (Format::Json, Some(true)),
            (Format::Env, None),
            (Format::Export, None),
        ] {
            assert_eq!(Printer { format }.is_json().ok(), expect, "{format:?}");
        }
    }
}
