//! Finds the YAML front matter at the head of a Markdown file. Does not read the YAML.

use super::error::{Located, Position, PromptFault};

/// The text between the two `---` lines, or `None` if the file does not begin with one. Only the
/// very first line opens front matter (a rule further down is a rule), so the block always
/// follows [`LINES_BEFORE`] lines. Carriage returns, trailing blanks and a byte-order mark do not matter.
pub(super) fn find(text: &str) -> Result<Option<&str>, Located> {
    let text = without_bom(text);
    let Some((first, rest)) = text.split_once('\n') else {
        return if is_fence(text) { Err(unclosed()) } else { Ok(None) };
    };
    if !is_fence(first) {
        return Ok(None);
    }
    let mut end = 0;
    for line in rest.split_inclusive('\n') {
        if is_fence(line) {
            return Ok(rest.get(..end));
        }
        end += line.len();
    }
    Err(unclosed())
}

/// Editors on Windows begin UTF-8 files with this mark.
pub(super) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn is_fence(line: &str) -> bool {
    line.trim_end_matches([' ', '\t', '\r', '\n']) == "---"
}

fn unclosed() -> Located {
    PromptFault::Unclosed.at(Position::START)
}

/// How many lines of the file come before the block.
pub(super) const LINES_BEFORE: usize = 1;
