//! Makes text of strangers fit for an operator's screen and log: one line, no escape sequences, no
//! letters that run backwards. Takes out no secret.

/// Whether `text` can be shown as it is.
pub fn is_plain(text: &str) -> bool {
    !text.contains(unfit)
}

/// `text` as one line of at most `bytes_max` bytes.
pub fn line(text: &str, bytes_max: usize) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if unfit(c) { ' ' } else { c })
        // What replaces a character is never longer, so that no more than this is ever looked at.
        .take(bytes_max)
        .collect();
    line.truncate(line.floor_char_boundary(bytes_max));
    line
}

/// Control characters, and those that reorder the text around them: with either, a line can look
/// like another one.
fn unfit(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_one_line_that_is_what_it_looks_like() {
        for (text, expect) in [
            ("plain \u{fc} \u{1f511}", "plain \u{fc} \u{1f511}"),
            ("a\nERROR b\r\u{1b}[2J\0", "a ERROR b  [2J "),
            ("txt.\u{202e}exe", "txt. exe"),
        ] {
            assert_eq!(line(text, 100), expect);
            assert_eq!(is_plain(text), text == expect, "{text:?}");
        }
        assert_eq!(line("\u{fc}\u{fc}", 3), "\u{fc}", "no character is cut in two");
    }
}
