//! The few forms in which text goes into the page: escaped, as a section, as a table. No figures.

/// A plain table of text.
pub struct Table {
    /// The titles of the columns.
    pub heads: Vec<&'static str>,
    /// The cells, row by row, not yet escaped.
    pub rows: Vec<Vec<String>>,
}

/// Text in which no character means anything to HTML or SVG. Everything that comes from a report
/// goes through here, in elements and in attributes, or a name with `<` in it would become part of
/// the page.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // A control character is refused by strict readers, and shows nothing anyway.
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A section of the page: its title, what to look for in it, and its finished content.
pub fn section(title: &str, lead: &str, content: &str) -> String {
    format!(
        "<section>\n<h2>{}</h2>\n<p class=\"lead\">{}</p>\n{content}\n</section>\n",
        escape(title),
        escape(lead)
    )
}

/// A chart under its title, with its figures as a table for those who want them or see no charts.
pub fn figure(title: &str, chart: &str, figures: &Table) -> String {
    format!(
        "<figure>\n<figcaption>{}</figcaption>\n{chart}\n\
         <details><summary>The figures</summary>{}</details>\n</figure>\n",
        escape(title),
        figures.write()
    )
}

/// The text, or as much of its beginning as fits into so many characters.
pub fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    format!("{}…", beginning.trim_end())
}

impl Table {
    fn write(&self) -> String {
        let heads: String = self.heads.iter().map(|head| format!("<th>{head}</th>")).collect();
        let row = |cells: &Vec<String>| {
            let cell = |cell: &String| format!("<td>{}</td>", escape(cell));
            format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>())
        };
        let rows: String = self.rows.iter().map(row).collect();
        format!(
            "<table class=\"plain\"><thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody></table>"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{escape, shortened};

    #[test]
    fn escapes_what_means_something_in_text_and_in_attributes() {
        assert_eq!(escape("a<b>&\"c'\u{0}µ"), "a&lt;b&gt;&amp;&quot;c&#39; µ");
    }

    #[test]
    fn shortens_by_characters_and_says_so() {
        assert_eq!(shortened("µµµµ", 4), "µµµµ");
        assert_eq!(shortened("one two three", 5), "one…");
    }
}
